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


def test_a_node_with_a_full_disk_is_passed_over_and_comes_back(scratch):
    folder = scratch.path("cluster") / "n2"
    folder.mkdir(parents=True)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48M", "tmpfs", folder],
                                           check=False, capture_output=True).returncode != 0:
        print("  skipped: mounting a tmpfs is not permitted here")
        return
    try:
        cluster = scratch.cluster("cluster", 3)
        state = lambda: {n["name"]: n["state"] for n in cluster.json("nodes")["nodes"]}["n2"]
        done = cluster.put_lines(harness.random_records(1500, 48 << 10, 3))
        check_equal((done["records"], done["failed"]), (1500, 0), "an import over a node whose disk fills")
        cluster.run("record", "put", "after", "yes")
        check_equal(state(), "full", "the state of the full node")
        log = (scratch.path("cluster") / "n2.log").read_text()
        check("takes no writes" in log and "disk is full" in log, "the full node's log says nothing of it")
        subprocess.run(["mount", "-o", "remount,size=600M", folder], check=True)
        harness.wait_for(lambda: state() == "live", "the node takes writes again, in the same process", 60)
        check(all_run(cluster), "a node's process ended")
        cluster.serves()
        check_equal(cluster.json("record", "count")["count"], 1501, "records afterwards")
    finally:
        harness.run("local", "down", "--dir", scratch.path("cluster"), expect=None)
        subprocess.run(["umount", folder], check=False, capture_output=True)


if __name__ == "__main__":
    harness.main(globals())
