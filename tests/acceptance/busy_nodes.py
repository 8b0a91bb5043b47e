"""Nodes that stand still, are slow, have full disks, or are held up by strangers: what the others do meanwhile is right
and takes bounded time."""

import json
import os
import signal
import subprocess
import time

import harness
from harness import check, check_equal


class Paused:
    """A process that stands still for as long as this lasts."""

    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        os.kill(self.pid, signal.SIGSTOP)

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGCONT)


def all_run(cluster):
    return all(os.path.exists(f"/proc/{pid}") for pid in cluster.pids.values())


def test_a_paused_node_holds_no_reader_up(scratch):
    cluster = scratch.cluster("cluster", 5)
    records = harness.random_records(3000, 200, 1, prefix="a")
    records.update(harness.random_records(3000, 200, 2, prefix="b"))
    cluster.put_lines(records)
    whole = cluster.export(scratch.path("whole"))
    some = next(iter(records))
    for name in (cluster.names[0], cluster.names[3]):
        began = time.monotonic()
        with Paused(cluster.pids[name]):
            check_equal(cluster.json("record", "count", "--prefix", "a")["count"], 3000, f"count while {name} is paused")
            check_equal(cluster.json("record", "count")["count"], 6000, f"count of all while {name} is paused")
            check_equal(cluster.run("record", "get", some.decode()).stdout, records[some], f"get while {name} is paused")
            check(cluster.export(scratch.path(name)) == whole, f"another export while {name} is paused")
        check(time.monotonic() - began < 40, f"reading took {time.monotonic() - began:.1f} s while {name} was paused")
        check(all_run(cluster), f"a process ended while {name} was paused")


if __name__ == "__main__":
    harness.main(globals())
