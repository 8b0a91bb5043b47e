"""What an import, a backup and a restore do for each byte and each MiB: copies, hashes, allocations, system calls, switches.

Five nodes, three copies, 4 KiB records, everything counted from outside: bench/interpose/work.c is preloaded into the nodes and
the client; perf counts the whole machine's system calls and context switches (root), so it wants the machine for itself.
"""

import os
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from clusters import Cluster
from datasets import Dataset
from native import interposer, say

RECORDS, VALUE = 100_000, 4096
MIB = 1 << 20
COUNTED = ("copied_bytes", "kernel_bytes", "hashed_bytes", "allocations")
EVENTS = {"raw_syscalls:sys_enter": "system_calls", "context-switches": "switches"}
# How often the counter shows what it has counted, and more.
SHOWN_S = 0.2


def loopback_bytes():
    return int(Path("/sys/class/net/lo/statistics/tx_bytes").read_text())


class Perf:
    """Events of the whole machine from its beginning on; none where they cannot be counted."""

    def __init__(self, directory):
        self.file = Path(directory) / "events"
        try:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                ["perf", "stat", "-a", "-x,", "-e", ",".join(EVENTS), "-o", self.file], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(SHOWN_S)
        except FileNotFoundError:
            self.process = None

    def stop(self):
        if self.process is None:
            return {}
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)
        fields = [line.split(",") for line in self.file.read_text().splitlines() if "," in line]
        return {EVENTS[line[2]]: int(line[0]) for line in fields if line[2] in EVENTS and line[0].isdigit()}


class Counter:
    """Counts of the steps of a cluster whose processes have been started with its environment."""

    def __init__(self, directory, library):
        self.directory = Path(directory) / "counts"
        self.directory.mkdir()
        self.environment = {"LD_PRELOAD": str(library), "SLUICE_COUNT_TO": str(self.directory)}

    def totals(self):
        time.sleep(SHOWN_S)
        files = [struct.unpack("4Q", path.read_bytes()) for path in self.directory.iterdir()]
        return dict(zip(COUNTED, map(sum, zip(*files)), strict=True)) if files else dict.fromkeys(COUNTED, 0)

    def step(self, cluster, work, data_bytes):
        """The JSON of `work`, and its counts for each byte and MiB of unique values."""
        cluster.wait_until_quiet()
        before, wire = self.totals(), loopback_bytes()
        perf = Perf(self.directory.parent)
        step, found = work()
        events = perf.stop()
        wire = loopback_bytes() - wire
        done = {name: count - before[name] for name, count in self.totals().items()}
        mib = data_bytes / MIB
        return found, {
            "copied_per_byte": done["copied_bytes"] / data_bytes, "kernel_copied_per_byte": done["kernel_bytes"] / data_bytes,
            "hashed_per_byte": done["hashed_bytes"] / data_bytes, "loopback_per_byte": wire / data_bytes,
            "allocations_per_mib": done["allocations"] / mib,
            **{f"{name}_per_mib": count / mib for name, count in events.items()}, "core_s_per_gb": step.core_s / data_bytes * 1e9}


def run(project, program, options):
    scratch = options.scratch or project / "build"
    with tempfile.TemporaryDirectory(prefix="counts-", dir=scratch) as directory:
        data = Dataset(directory, "4k", max(int(RECORDS * options.scale), 100), VALUE)
        counter = Counter(directory, interposer(project, "work", directory))
        os.environ.update(counter.environment)
        steps = {}
        try:
            with Cluster(program, Path(directory) / "backed-up") as cluster:
                _, steps["import"] = counter.step(cluster, lambda: cluster.load(data.lines, data.count), data.bytes)
                found, steps["backup"] = counter.step(cluster, lambda: cluster.backup("counted", data.count), data.bytes)
            archives = [archive["path"] for archive in found["archives"]]
            with Cluster(program, Path(directory) / "restored") as cluster:
                _, steps["restore"] = counter.step(cluster, lambda: cluster.restore(archives, data.count), data.bytes)
        finally:
            for name in counter.environment:
                del os.environ[name]
        for name, step in steps.items():
            say(f"  {name}: " + ", ".join(f"{field} {value:.4g}" for field, value in step.items()))
        return steps
