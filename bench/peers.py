"""Whole backups, restores and imports of five nodes on one machine, beside rsync, restic, borg, BackupEngine and the limits.

Round by round, with all steps of a round on the same bytes: the machine's limits, an import into an empty cluster (R = 3), its
backup, the references' backups, a restore into another empty cluster, the references' restores. Every step begins with nothing
left to be written and, where a cluster runs, with its nodes quiet, and ends when everything is on the disk. Ratios are taken
within a round, medians are reported; above 1 means that Sluice is ahead. docs/performance.md defines the limits and says how to
read the figures.
"""

import filecmp
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from clusters import Cluster, Step, expect
from datasets import Dataset
from figures import (REPLICAS, Limits, backup_limit, backup_stages, import_limit, median_ratio, ordered_import_limit,
                     restore_limit, restore_stages, summary)
from native import built, install, measure_limits, say
from references import BackupEngine, Borg, Restic, Rsync, run_command

ROUNDS = 5
RECORDS = 300_000
SMALL_RECORDS = 2_000_000
VALUE = 4096
LARGE_VALUE = 1 << 20
SMALL_VALUE = 100
LIMITS_SCALE = 0.5
MISSED_SHARE = 0.05
MISSING_NODE = "n5"
FEW_RECORDS = 10
DISK_BYTES = 30e9


class Samples:
    """What each round gave, by name, and the processor time of each step."""

    def __init__(self):
        self.values = {}
        self.core_s_per_gb = {}

    def add(self, name, value):
        self.values.setdefault(name, []).append(value)

    def add_step(self, name, step, size):
        """The step's rate in MB/s."""
        self.add(name, size / step.seconds / 1e6)
        self.core_s_per_gb.setdefault(name, []).append(step.core_s / size * 1e9)
        say(f"  {name}: {size / step.seconds / 1e6:.0f} MB/s, {step.core_s / size * 1e9:.1f} core-s/GB")

    def ratio(self, name, other):
        return median_ratio(self.values, name, other)


class Bench:
    """What the parts share."""

    def __init__(self, project, program, options, directory):
        self.program = program
        self.scale = options.scale
        self.rounds = options.rounds or ROUNDS
        self.directory = Path(directory)
        self.limits_bench = built(project, program, "limits_bench")
        self.rocksdb_backup = built(project, program, "rocksdb_backup")
        self.samples = Samples()
        self.stages = {}
        self.cores = len(os.sched_getaffinity(0))

    def records(self, count):
        return max(100, round(count * self.scale))

    def cluster(self, name):
        return Cluster(self.program, self.directory / name)

    def limits(self, values, only):
        directory = self.directory / "limits"
        directory.mkdir(exist_ok=True)
        # Whatever the scale of the rest: with less, everything would stand in a cache.
        return Limits(measure_limits(self.limits_bench, directory, self.cores, LIMITS_SCALE, values, only))


def archives_of(found):
    return [Path(archive["path"]) for archive in found["archives"]]


def references(bench, data, database):
    """Name to reference, each in a directory of its own."""
    at = bench.directory
    return {"rsync": Rsync(at / "rsync", data.values), "restic": Restic(at / "restic", data.values),
            "borg": Borg(at / "borg", data.values),
            "backup_engine": BackupEngine(at / "backup_engine", database, bench.rocksdb_backup)}


def same_content(reference, data):
    copy = reference.restored()
    if copy and not filecmp.cmp(copy, data.values, shallow=False):
        raise RuntimeError(f"{copy} is not what was backed up")


def restore_step(bench, samples, archives, data, suffix=""):
    with bench.cluster("restored") as cluster:
        cluster.wait_until_quiet()
        step, found = cluster.restore(archives, data.count)
        samples.add_step("restore" + suffix, step, data.bytes)
        samples.add("restore_write_amplification" + suffix, found["written_bytes"] / (REPLICAS * data.bytes))
    cluster.remove()


def main_round(bench, data, database):
    samples = bench.samples
    limits = bench.limits([VALUE], ["memory", "disk", "loopback", "tables", "write_batch"])
    samples.add("backup_limit", backup_limit(limits, VALUE) / 1e6)
    samples.add("restore_limit", restore_limit(limits, VALUE) / 1e6)
    samples.add("import_limit", import_limit(limits, VALUE) / 1e6)
    samples.add("ordered_import_limit", ordered_import_limit(limits, VALUE) / 1e6)
    for job, stages in (("backup", backup_stages(limits, VALUE)), ("restore", restore_stages(limits, VALUE))):
        for stage, core_s in stages.items():
            bench.stages.setdefault(job, {}).setdefault(stage, []).append(core_s * 1e9)
    with ExitStack() as stack:
        with bench.cluster("backed-up") as cluster:
            cluster.wait_until_quiet()
            step, _ = cluster.load(data.lines, data.count)
            samples.add_step("import", step, data.bytes)
            cluster.wait_until_quiet()
            step, backup = cluster.backup("round", data.count)
            samples.add_step("backup", step, data.bytes)
        cluster.remove_stores()
        stack.callback(cluster.remove)
        peers = references(bench, data, database)
        for name, peer in peers.items():
            stack.enter_context(peer)
            samples.add_step(f"backup_{name}", peer.backup(), data.bytes)
        restore_step(bench, samples, archives_of(backup), data)
        for name, peer in peers.items():
            samples.add_step(f"restore_{name}", peer.restore(), data.bytes)
            same_content(peer, data)
        samples.add_step("restore_copies_rsync", peers["rsync"].restore_copies(REPLICAS), REPLICAS * data.bytes)
        samples.add("restore_copies", REPLICAS * samples.values["restore"][-1])


def add_main(bench):
    data = Dataset(bench.directory, "4k", bench.records(RECORDS), VALUE)
    database = bench.directory / "database"
    run_command(bench.rocksdb_backup, "load", database, data.values, str(VALUE))
    for number in range(bench.rounds):
        say(f"{data.count} records of {VALUE} bytes: round {number + 1} of {bench.rounds}")
        main_round(bench, data, database)
    shutil.rmtree(database)
    return data


def add_large(bench):
    """Backups of values of 1 MiB, of one cluster."""
    data = Dataset(bench.directory, "1m", bench.records(RECORDS) * VALUE // LARGE_VALUE or 1, LARGE_VALUE)
    with bench.cluster("large") as cluster:
        step, _ = cluster.load(data.lines, data.count)
        bench.samples.add_step("import_1m", step, data.bytes)
        for number in range(bench.rounds):
            say(f"{data.count} records of 1 MiB: round {number + 1} of {bench.rounds}")
            limits = bench.limits([LARGE_VALUE], ["memory", "disk", "loopback", "tables"])
            bench.samples.add("backup_1m_limit", backup_limit(limits, LARGE_VALUE) / 1e6)
            cluster.wait_until_quiet()
            step, found = cluster.backup(f"round-{number}", data.count)
            bench.samples.add_step("backup_1m", step, data.bytes)
            if number + 1 < bench.rounds:
                cluster.command("backup", "delete", f"round-{number}")
    cluster.remove_stores()
    restore_step(bench, bench.samples, archives_of(found), data, "_1m")
    cluster.remove()
    data.remove()


def add_small(bench):
    """Records of 100 bytes: what each record costs, rather than each byte."""
    data = Dataset(bench.directory, "100b", bench.records(SMALL_RECORDS), SMALL_VALUE)
    samples = bench.samples
    for number in range(bench.rounds):
        say(f"{data.count} records of {SMALL_VALUE} bytes: round {number + 1} of {bench.rounds}")
        limits = bench.limits([SMALL_VALUE], ["tables", "write_batch"])
        samples.add("scan_100b", limits.rate("scan_scattered", SMALL_VALUE) / 1e6)
        samples.add("sorted_scan_100b", limits.rate("scan", SMALL_VALUE) / 1e6)
        samples.add("import_100b_limit", import_limit(limits, SMALL_VALUE) / 1e6)
        with bench.cluster("small") as cluster:
            cluster.wait_until_quiet()
            step, _ = cluster.load(data.lines, data.count)
            samples.add_step("import_100b", step, data.bytes)
            samples.add("records_imported_per_s", data.count / step.seconds)
            cluster.wait_until_quiet()
            step, found = cluster.backup("small", data.count)
            samples.add_step("backup_100b", step, data.bytes)
        cluster.remove_stores()
        restore_step(bench, samples, archives_of(found), data, "_100b")
        samples.add("records_restored_per_s", samples.values["restore_100b"][-1] * 1e6 / SMALL_VALUE)
        cluster.remove()
    data.remove()


def add_divergent(bench, data):
    """Two clusters of the same records; in one of them a node missed some writes. Their backups in turn."""
    first, last = data.split(MISSED_SHARE)
    missed = sum(1 for _ in last.open("rb"))
    with bench.cluster("agreed") as agreed, bench.cluster("divergent") as divergent:
        agreed.load(data.lines, data.count)
        divergent.load(first, data.count - missed)
        divergent.kill(MISSING_NODE)
        divergent.load(last, missed)
        divergent.start(MISSING_NODE)
        for number in range(bench.rounds):
            say(f"{MISSED_SHARE:.0%} of the writes missed by one of five nodes: round {number + 1} of {bench.rounds}")
            for name, cluster in (("agreed", agreed), ("divergent", divergent)):
                agreed.wait_until_quiet()
                divergent.wait_until_quiet()
                step, found = cluster.backup(f"round-{number}", data.count)
                if (found["slots_divergent"] > 0) != (name == "divergent"):
                    raise RuntimeError(f"{found['slots_divergent']} divergent slots in the {name} cluster")
                bench.samples.add_step(f"backup_{name}", step, data.bytes)
                bench.samples.add(f"seconds_{name}", step.seconds)
                bench.samples.add(f"slots_divergent_{name}", found["slots_divergent"])
                cluster.command("backup", "delete", f"round-{number}")
    agreed.remove()
    divergent.remove()


def add_empty(bench):
    """What a backup costs besides its bytes."""
    with bench.cluster("empty") as cluster:
        for number in range(FEW_RECORDS):
            cluster.command("record", "put", f"key-{number}", "value")
        cluster.wait_until_quiet()
        for number in range(bench.rounds):
            with Step(cluster.core_s) as step:
                found = cluster.command("backup", "create", "--name", f"round-{number}")
            expect(found, state="completed", records=FEW_RECORDS)
            bench.samples.add("empty_backup_s", step.seconds)
            bench.samples.add("empty_backup_reported_s", found["seconds"])
            bench.samples.add("empty_backup_core_s", step.core_s)
            say(f"  an almost empty backup: {step.seconds:.2f} s, {found['seconds']:.2f} s of it the backup's")
    cluster.remove()


def fields_of(bench):
    samples = bench.samples
    ratio = samples.ratio
    peers = ("rsync", "restic", "borg", "backup_engine")
    core_s = {name: summary(values)["median"] for name, values in samples.core_s_per_gb.items()}
    medians = {name: summary(values)["median"] for name, values in samples.values.items()}
    return {
        "backup": {name: ratio("backup", f"backup_{name}") for name in peers},
        "restore": {name: ratio("restore", f"restore_{name}") for name in peers},
        "restore_copies": {"rsync": ratio("restore_copies", "restore_copies_rsync")},
        "backup_vs_limit": ratio("backup", "backup_limit"), "backup_1m_vs_limit": ratio("backup_1m", "backup_1m_limit"),
        "restore_vs_limit": ratio("restore", "restore_limit"), "import_vs_limit": ratio("import", "import_limit"),
        "import_vs_ordered_limit": ratio("import", "ordered_import_limit"),
        "core_s_per_gb": {name: core_s[name] for name in ("backup", "restore", "import")},
        "restore_write_amplification": medians["restore_write_amplification"],
        "limits": {"cores": bench.cores, **{f"{name}_mb_s": medians[f"{name}_limit"] for name in (
            "backup", "backup_1m", "restore", "import", "ordered_import", "import_100b")},
                   "scan_100b_mb_s": medians["scan_100b"], "sorted_scan_100b_mb_s": medians["sorted_scan_100b"],
                   "stages_core_s_per_gb": {job: {stage: summary(values)["median"] for stage, values in stages.items()}
                                            for job, stages in bench.stages.items()}},
        "records_100b": {"backup_vs_scan": ratio("backup_100b", "scan_100b"),
                         "backup_vs_sorted_scan": ratio("backup_100b", "sorted_scan_100b"),
                         "import_vs_limit": ratio("import_100b", "import_100b_limit"),
                         "restore_per_s": medians["records_restored_per_s"],
                         "import_per_s": medians["records_imported_per_s"]},
        "divergent_over_agreed": ratio("seconds_divergent", "seconds_agreed"),
        "empty_backup_s": medians["empty_backup_s"], "empty_backup_reported_s": medians["empty_backup_reported_s"],
        "rounds": bench.rounds, "scale": bench.scale, "core_s_per_gb_of_each": core_s,
        "samples": {name: summary(values) for name, values in samples.values.items()}}


def run(project, program, options):
    install(project, *Rsync.packages, *Restic.packages, *Borg.packages)
    scratch = options.scratch or project / "build"
    needed = DISK_BYTES * max(options.scale, 0.02)
    if shutil.disk_usage(scratch).free < needed:
        raise RuntimeError(f"{scratch} has less than the {needed / 1e9:.0f} GB free that this takes; use --scratch or --scale")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="peers-", dir=scratch) as directory:
        bench = Bench(project, program, options, directory)
        add_empty(bench)
        data = add_main(bench)
        add_divergent(bench, data)
        data.remove()
        add_large(bench)
        add_small(bench)
        return {**fields_of(bench), "seconds": time.monotonic() - begin}
