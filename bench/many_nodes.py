"""A backup and a restore of 64 serving nodes on this machine: seconds, and the memory and threads of the largest node.

What is asked is whether many nodes work and what one of them holds, not how fast the machine is: all nodes share its processors
and its disk. The records are loaded into one cluster and backed up; its nodes are stopped; the archives of all of them are
restored into another cluster of as many nodes, whose copies are proved equal to the archive. Memory is the largest VmHWM of a
node, its arena included as far as it was used; threads are counted while each step runs.
"""

import tempfile
import threading
from pathlib import Path

from clusters import Cluster, expect
from datasets import Dataset
from figures import summary
from native import say

ROUNDS = 1
NODES, REPLICAS = 64, 3
RECORDS, VALUE = 10_000, 100_000
SAMPLE_SECONDS = 0.2


def status_of(pid):
    """The fields of /proc/PID/status that are numbers."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


class Watch:
    """The most threads of a node while it lasts, and the most memory that one ever had."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.threads = self.memory_bytes = 0
        self.ended = threading.Event()
        self.sampler = threading.Thread(target=self.sample)

    def look(self):
        for pid in self.cluster.pids.values():
            status = status_of(pid)
            self.threads = max(self.threads, status["Threads"])
            self.memory_bytes = max(self.memory_bytes, status["VmHWM"] * 1024)

    def sample(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            self.look()

    def __enter__(self):
        self.sampler.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.sampler.join()
        self.look()


def one_round(program, directory, data):
    found = {}
    with Cluster(program, directory / "source", NODES, REPLICAS) as source, Watch(source) as watch:
        step, _ = source.load(data.lines, data.count)
        found["load_s"] = step.seconds
        _, backup = source.backup("b", data.count)
        found["backup_s"] = backup["seconds"]
        found["backup_bounded_by"] = backup["bottleneck"]
    archives = [Path(archive["path"]) for archive in backup["archives"]]
    found["archive_parts"] = len(archives)
    source.remove_stores()
    with Cluster(program, directory / "target", NODES, REPLICAS) as target, Watch(target) as second:
        restore = target.command("restore", "--archive", *archives)
        expect(restore, state="completed", written=data.count, failed=0)
        found["restore_s"] = restore["seconds"]
        found["restore_bounded_by"] = restore["bottleneck"]
    found["memory_bytes"] = max(watch.memory_bytes, second.memory_bytes)
    found["threads"] = max(watch.threads, second.threads)
    source.remove()
    target.remove()
    return found


def run(project, program, options):
    rounds = []
    with tempfile.TemporaryDirectory(prefix="sluice-many-", dir=options.scratch or project / "build") as directory:
        data = Dataset(directory, "records", max(400, round(RECORDS * options.scale)), VALUE)
        for _ in range(options.rounds or ROUNDS):
            rounds.append(one_round(program, Path(directory), data))
            say("  " + ", ".join(f"{name} {value}" for name, value in rounds[-1].items()))
    last = rounds[-1]
    return {"nodes": NODES, "replicas": REPLICAS, "bytes": data.bytes, "archive_parts": last["archive_parts"],
            **{name: summary([each[name] for each in rounds]) for name in ("load_s", "backup_s", "restore_s")},
            "largest_node_vmhwm_bytes": max(each["memory_bytes"] for each in rounds),
            "largest_node_threads": max(each["threads"] for each in rounds),
            **{name: last[name] for name in ("backup_bounded_by", "restore_bounded_by")}}
