"""Nodes that stand still, are slow, have full disks, or are held up by strangers: what the others do meanwhile is right
and takes bounded time."""

import json
import os
import signal
import sqlite3
import subprocess
import threading
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


LEASE_MS = 2000
# While the file SLOW_SYNC_FILE exists, each sync of a cluster block's file takes twice a lease.
SLOW_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void wait_for_disk(int fd) {
  char link[64], path[PATH_MAX] = "";
  const char *file = getenv("SLOW_SYNC_FILE");
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  if (file && access(file, F_OK) == 0 && readlink(link, path, sizeof path - 1) > 0 && strstr(path, "cluster.db")) sleep(4);
}
int fsync(int fd) {
  wait_for_disk(fd);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
  wait_for_disk(fd);
  return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


def with_short_leases(scratch, nodes):
    """A cluster whose nodes' leases last LEASE_MS."""
    cluster = scratch.cluster("cluster", nodes)
    harness.run("local", "down", "--dir", cluster.folder)
    for name in cluster.names:
        with open(cluster.folder / f"{name}.toml", "a", encoding="utf-8") as config:
            config.write(f"lease_ms = {LEASE_MS}\n")
    return harness.Cluster(cluster.folder, nodes)


class Slowed:
    """A process that runs a small part of the time for as long as this lasts: its lease and its calls are kept."""

    PERIOD_S, RUNS_S = 0.2, 0.004

    def __init__(self, pid):
        self.pid = pid
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(self.PERIOD_S - self.RUNS_S)
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(self.RUNS_S)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def check_all_live_until(cluster, ended, what):
    """Lists the nodes, and reads a record, again and again until ended()."""
    looks = 0
    while not ended():
        states = {node["name"]: node["state"] for node in cluster.json("nodes")["nodes"]}
        check_equal(states, {name: "live" for name in cluster.names}, f"nodes while {what}")
        check_equal(cluster.run("record", "get", "before").stdout, b"yes", f"a read while {what}")
        looks += 1
    check(looks > 1, f"the nodes were listed {looks} times while {what}")


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

        # On a busy machine it may have been passed over before its disk was full, or have some room again.
        def is_full():
            cluster.put_lines(harness.random_records(300, 48 << 10, 3))
            return state() == "full"
        harness.wait_for(is_full, "the node with the full disk is listed as full")
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


def test_what_a_slow_node_has_not_done_goes_to_others(scratch):
    cluster = scratch.cluster("cluster", 4)
    harness.run("local", "down", "--dir", cluster.folder)
    for name in cluster.names:
        with open(cluster.folder / f"{name}.toml", "a", encoding="utf-8") as config:
            config.write("rebalance_after_ms = 500\n")
    cluster = harness.Cluster(cluster.folder, 4)
    for seed in range(10):
        cluster.put_lines(harness.random_records(1000, 64 << 10, seed, prefix=f"p{seed}"))
    whole = cluster.export(scratch.path("whole"))
    seconds = {}
    for name, after in (("stolen", 500), ("static", 0)):
        if after == 0:
            harness.run("local", "down", "--dir", cluster.folder)
            for node in cluster.names:
                config = cluster.folder / f"{node}.toml"
                config.write_text(config.read_text().replace("rebalance_after_ms = 500", "rebalance_after_ms = 0"))
            cluster = harness.Cluster(cluster.folder, 4)
        with Slowed(cluster.pids["n4"]):
            done = cluster.json("backup", "create", "--name", name)
        check_equal(done["state"], "completed", f"a backup with a slow node: {done}")
        seconds[name] = done["seconds"]
        check_equal(done["slots_agreed"], done["slots"], f"agreed slots of {name}")
        verified = cluster.json("backup", "verify", name)
        check_equal(verified["bad"], [], f"the archive of {name}")
        check_equal(done["records"], 10_000, f"records of {name}")
    logs = "".join((scratch.path("cluster") / f"{name}.log").read_text() for name in cluster.names)
    check("n4 is late" in logs, f"nobody noticed that n4 is slow: {seconds}")
    check(seconds["stolen"] < seconds["static"], f"the backup that was planned again took as long: {seconds}")
    check(cluster.export(scratch.path("again")) == whole, "the cluster changed")


def test_nodes_stay_live_while_the_cluster_block_takes_no_writes(scratch):
    cluster = with_short_leases(scratch, 5)
    cluster.run("record", "put", "before", "yes")
    block = sqlite3.connect(scratch.path("cluster") / "cluster.db", timeout=30, isolation_level=None)
    block.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    try:
        check_all_live_until(cluster, lambda: time.monotonic() - begun > 3.5 * LEASE_MS / 1000, "a writer holds the file")
        cluster.serves()
    finally:
        block.execute("ROLLBACK")
        block.close()
    check(all_run(cluster), "a node's process ended")
    cluster.serves()
    check_equal(cluster.json("backup", "create", "--name", "b")["state"], "completed", "a backup afterwards")
    logs = "".join((scratch.path("cluster") / f"{name}.log").read_text() for name in cluster.names)
    check("not live" not in logs, f"a node lost its lease: {logs[-2000:]}")


def test_nodes_stay_live_on_a_disk_that_syncs_slower_than_a_lease(scratch):
    source, shim, slow = scratch.path("slow.c"), scratch.path("slow.so"), scratch.path("slow")
    source.write_text(SLOW_SYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    os.environ.update(LD_PRELOAD=os.fspath(shim), SLOW_SYNC_FILE=os.fspath(slow))
    try:
        cluster = with_short_leases(scratch, 5)
        cluster.run("record", "put", "before", "yes")
        slow.touch()
        backup = cluster.background("backup", "create", "--name", "slow")
        stop = threading.Timer(4 * LEASE_MS / 1000, slow.unlink)
        stop.start()
        check_all_live_until(cluster, lambda: not slow.exists(), "each commit takes two leases")
        stop.join()
        stdout, stderr = backup.communicate(timeout=120)
        check_equal((backup.returncode, json.loads(stdout).get("state")), (0, "completed"),
                    f"a backup whose commits take two leases each: {stdout.decode()} {stderr.decode()}")
        cluster.kill("n5")
        # A node joins, and stays, on such a disk: its own commits take longer than its lease.
        slow.touch()
        cluster.start("n5")
        begun = time.monotonic()
        check_all_live_until(cluster, lambda: time.monotonic() - begun > 1.5 * LEASE_MS / 1000, "a node has joined")
        slow.unlink()
        cluster.serves()
    finally:
        del os.environ["LD_PRELOAD"], os.environ["SLOW_SYNC_FILE"]


if __name__ == "__main__":
    harness.main(globals())
