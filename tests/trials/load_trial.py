"""Writers, readers, backups and restores into a second cluster, all together for a long time on one machine.

Nothing is struck: no command may fail, nothing read may be wrong, and what processes and directories take may not grow once
they have warmed up. The data is bounded: writers write the same keys again and again, and backups are deleted.
"""

import json
import os
import random
import resource
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import harness
from harness import check, check_equal
from history import History, differences, digest_of
from processes import Cluster
from samples import MIB, Samples

KEYS = 4000
GROUP = 100
VALUE_BYTES = 6 << 10  # on average
WRITERS = 2
READERS = 2
KEPT_BACKUPS = 2
SAMPLE_SECONDS = 5
PROGRESS_SECONDS = 30
LARGEST_NODE = 1 << 30


class Load:
    """Both clusters, what works on them, and what was counted. Counts are under its lock."""

    def __init__(self, seed, seconds):
        self.seed = seed
        self.scratch = harness.Scratch(f"load-{seed}")
        self.history = History()
        self.lock = threading.Lock()
        self.counts = Counter()
        self.findings = []
        self.stopping = threading.Event()
        self.deadline = time.monotonic() + seconds
        self.samples = Samples()
        self.cluster = self.make("source", 4, 3)
        self.other = self.make("second", 3, 2)

    def make(self, name, nodes, replicas):
        self.scratch.clusters.append(self.scratch.path(name))
        return Cluster(self.scratch.path(name), nodes, "--slots", "256", "--replicas", str(replicas))

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] += by

    def guarded(self, work, *arguments):
        """Repeats work until the end, or until anything is found."""
        def run():
            try:
                while not self.stopping.is_set():
                    work(*arguments)
            except Exception as error:  # pylint: disable=broad-except
                self.findings.append({"what": str(error)[:3000], "trace": traceback.format_exc()[-2000:]})
                print(f"FOUND: {str(error)[:2000]}", file=sys.stderr, flush=True)
                self.stopping.set()
        return threading.Thread(target=run, daemon=True)

    # Each writer has keys of its own.

    def write(self, writer, source):
        keys = [f"w{writer}-{number:05d}".encode() for number in source.sample(range(KEYS // WRITERS), GROUP)]
        values = {key: source.randbytes(source.randrange(1, 2 * VALUE_BYTES)) for key in keys}
        deleted = keys[0]
        writes = self.history.begin(values, time.time())
        check_equal(self.cluster.put_lines(values)["failed"], 0, "failed writes")
        self.history.acknowledge(writes, time.time())
        writes = self.history.begin({deleted: None}, time.time())
        self.cluster.run("record", "delete", deleted.decode())
        self.history.acknowledge(writes, time.time())
        self.count("records_written", GROUP)
        self.stopping.wait(0.2)

    def read(self, source):
        key = f"w{source.randrange(WRITERS)}-{source.randrange(KEYS // WRITERS):05d}".encode()
        with self.history.reader(time.time()) as since:
            result = self.cluster.run("record", "get", key.decode(), expect=(0, 1))
            allowed = self.history.allowed_of_key(key, since)
        found = digest_of(result.stdout) if result.code == 0 else None
        check(found in allowed, f"wrong: {key} reads as none of {len(allowed)} values it may have: {result}")
        self.count("records_read")
        self.stopping.wait(0.1)

    def export(self):
        with self.history.reader(time.time()) as since:
            found = {key: digest_of(value) for key, value in self.cluster.records(self.scratch.path("now.jsonl")).items()}
            allowed = self.history.allowed(since)
        lost, wrong = differences(found, allowed)
        check(not lost and not wrong, f"lost: {lost[:5]} wrong: {wrong[:5]} in an export under load")
        self.count("exports")
        self.stopping.wait(10)

    def back_up(self, names):
        name = f"b{next(names)}"
        with self.history.reader(time.time()) as since:
            backup = self.cluster.json("backup", "create", "--name", name)
            check_equal(backup["state"], "completed", "state of a backup")
            allowed = self.history.allowed(since, backup["cut_time"] + 0.001)
        check_equal(self.cluster.json("backup", "verify", name)["bad"], [], "bad blocks")
        restored = self.other.json("restore", name, "--from", self.cluster.url)
        check_equal((restored["state"], restored["failed"], restored["proof"]["differing"]), ("completed", 0, 0), "restore")
        found = {key: digest_of(value) for key, value in self.other.records(self.scratch.path("restored.jsonl")).items()}
        lost, wrong = differences(found, allowed)
        check(not lost and not wrong, f"lost: {lost[:5]} wrong: {wrong[:5]} in backup {name}")
        check_equal(len(found), backup["records"], "records restored")
        existing = [one["backup"] for one in self.cluster.json("backup", "list")["backups"]]
        for old in existing[:-KEPT_BACKUPS]:
            self.cluster.run("backup", "delete", old)
            self.count("backups_deleted")
        self.count("backups")
        self.count("bytes_backed_up", backup["bytes"])
        self.history.tidy()
        self.stopping.wait(2)

    def run(self):
        source = random.Random(self.seed)
        threads = [self.guarded(self.write, number, random.Random(source.random())) for number in range(WRITERS)]
        threads += [self.guarded(self.read, random.Random(source.random())) for _ in range(READERS)]
        threads += [self.guarded(self.export), self.guarded(self.back_up, iter(range(1 << 30)))]
        for thread in threads:
            thread.start()
        self.sample()
        self.stopping.set()
        for thread in threads:
            thread.join()

    def sample(self):
        due = 0
        while time.monotonic() < self.deadline and not self.stopping.wait(SAMPLE_SECONDS):
            try:
                self.samples.take({"source": self.cluster, "second": self.other})
            except (FileNotFoundError, ProcessLookupError) as error:
                self.findings.append({"what": f"a node ended: {error}", "trace": ""})
                return
            if time.monotonic() >= due:
                due = time.monotonic() + PROGRESS_SECONDS
                largest = max(points[-1][1] for (what, _), points in self.samples.series.items() if what == "rss")
                print(f"load: {self.deadline - time.monotonic():.0f} s left, {dict(self.counts)}, largest node "
                      f"{largest / MIB:.0f} MiB", file=sys.stderr, flush=True)

    def fields(self):
        judged = self.samples.judgement()
        grows = sorted(name for name, one in judged.items() if one["grows"])
        largest = max(one["largest"] for name, one in judged.items() if name.startswith("rss"))
        return {"errors": len(self.findings), "grows": grows, "largest_node_bytes": largest,
                # Of the clients, each a process of its own.
                "largest_client_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10,
                **self.counts, "series": judged, "findings": self.findings}


def figure(samples, path):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
    import plot  # pylint: disable=import-outside-toplevel
    series = [(whom, points, "ours" if whom.startswith("source") else "other")
              for (what, whom), points in sorted(samples.series.items()) if what == "rss"]
    largest = max(value for _, points, _ in series for _, value in points)
    scaled = [(whom, [(t / 60, value / largest) for t, value in points], kind) for whom, points, kind in series]
    Path(path).write_text(plot.lines("Resident memory of the nodes under sustained load", "min", "", scaled,
                                     top=f"{largest / MIB:.0f} MiB"))


def run(options):
    seconds = options.seconds or 3600
    load = Load(options.seed, seconds)
    try:
        load.run()
    finally:
        load.scratch.close(keep=bool(load.findings))
    if options.samples:
        series = {f"{what} of {whom}": points for (what, whom), points in load.samples.series.items()}
        Path(options.samples).write_text(json.dumps(series))
    if options.figure:
        figure(load.samples, options.figure)
    fields = {"seed": options.seed, "seconds": seconds, "nice": os.nice(0), **load.fields()}
    good = not load.findings and not fields["grows"] and fields["largest_node_bytes"] <= LARGEST_NODE
    return fields, good
