"""Clusters whose cluster block is an etcd, which is killed while they work."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import harness
from harness import Failed, check, check_equal, run_json, wait_for
from crashes import finish

RECORDS = 1500
VALUE_BYTES = 32 << 10
SEED = int(os.environ.get("SLUICE_SEED", str(time.time_ns() % 1_000_000)))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Etcd:
    """One member, with its data in memory where there is room: the tests are not about its disk."""

    def __init__(self, scratch):
        room = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
        self.folder = tempfile.mkdtemp(prefix="sluice-etcd-", dir="/dev/shm" if room > 1 << 30 else None)
        self.clients, self.peers = free_port(), free_port()
        self.process = None
        scratch.closers.append(self.close)
        self.start()

    def start(self):
        if not shutil.which("etcd"):
            raise Failed("there is no etcd: scripts/install-dependencies etcd-server")
        clients, peers = f"http://127.0.0.1:{self.clients}", f"http://127.0.0.1:{self.peers}"
        with open(f"{self.folder}/log", "ab") as log:
            self.process = subprocess.Popen(  # pylint: disable=consider-using-with
                ["etcd", "--name", "m0", "--data-dir", f"{self.folder}/data", "--listen-client-urls", clients,
                 "--advertise-client-urls", clients, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
                 "--initial-cluster", f"m0={peers}"], stdout=log, stderr=log)
        wait_for(self.listens, "etcd listens")

    def listens(self):
        check(self.process.poll() is None, f"etcd ended; its log is {self.folder}/log")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.clients)) == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self, pause):
        self.kill()
        time.sleep(pause)
        self.start()

    def url(self, prefix):
        return f"etcd://127.0.0.1:{self.clients}/{prefix}"

    def close(self):
        if self.process:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def killed_during(etcd, process, delay):
    """Kills etcd some time into a command, and starts it again; whether the command was still running."""
    time.sleep(delay)
    running = process.poll() is None
    etcd.restart(0.3)
    return running


def test_etcd_killed_during_a_backup_and_a_restore(scratch):
    source = random.Random(SEED)
    print(f"  SLUICE_SEED={SEED}")
    etcd = Etcd(scratch)
    cluster = scratch.cluster("c", 4, block=etcd.url("c"))
    records = harness.random_records(RECORDS, VALUE_BYTES, SEED)
    check_equal(cluster.put_lines(records)["records"], RECORDS, "records")
    caught = 0
    backups = 0
    while caught < 2:  # a backup is quick
        check(backups < 15, f"only {caught} of {backups} kills hit a running backup")
        process = cluster.background("backup", "create", "--name", f"b{backups}")
        caught += killed_during(etcd, process, source.uniform(0.02, 0.25))
        outcome = finish(process)
        check_equal(outcome.get("state"), "completed", f"the backup: {outcome}")
        check_equal(cluster.json("backup", "verify", f"b{backups}")["bad"], [], "bad blocks")
        backups += 1
    print(f"  {caught} of {backups} kills hit a running backup")
    target = scratch.cluster("new", 4, block=etcd.url("new"))
    process = target.background("restore", "b0", "--from", cluster.url)
    hit = killed_during(etcd, process, source.uniform(0.05, 0.6))
    print(f"  the kill {'hit' if hit else 'missed'} the running restore")
    outcome = finish(process)
    check_equal(outcome.get("state"), "completed", f"the restore: {outcome}")
    check_equal(outcome["proof"]["differing"], 0, "what the proof found to differ")
    check(cluster.export(scratch.path("old.jsonl")) == target.export(scratch.path("new.jsonl")), "the exports differ")
    check(target.records(scratch.path("again.jsonl")) == records, "the restore does not hold the records")


def test_nodes_live_through_restarts_of_etcd(scratch):
    etcd = Etcd(scratch)
    cluster = scratch.cluster("c", 3, block=etcd.url("c"))
    for _ in range(3):
        etcd.restart(0.5)
        cluster.serves()

        def all_live():
            return all(node["state"] == "live" for node in cluster.json("nodes")["nodes"])
        wait_for(all_live, "all nodes are live", 20)
    # A node that died is noticed, and comes back.
    cluster.kill("n2")
    wait_for(lambda: {n["name"]: n["state"] for n in cluster.json("nodes")["nodes"]}["n2"] != "live", "n2 is missed", 20)
    cluster.start("n2")
    cluster.serves()


def test_two_clusters_in_one_etcd(scratch):
    etcd = Etcd(scratch)
    one = scratch.cluster("one", 2, "--slots", "64", block=etcd.url("one"))
    two = scratch.cluster("two", 2, "--slots", "64", block=etcd.url("two"))
    one.run("record", "put", "whose", "one")
    two.run("record", "put", "whose", "two")
    one.json("backup", "create", "--name", "b")
    check_equal(one.run("record", "get", "whose").stdout, b"one", "a record of the first")
    check_equal(two.run("record", "get", "whose").stdout, b"two", "a record of the second")
    check_equal(two.json("backup", "list")["backups"], [], "backups of the second")
    # A third one does not get a prefix that is taken.
    value = run_json("local", "up", "--dir", scratch.path("third"), "--nodes", "2", cluster=etcd.url("one"), expect=1)
    check("already" in value["error"] and "PREFIX" in value["error"] and etcd.url("one") in value["error"],
          value["error"])
    one.serves()


def test_no_etcd_there(scratch):
    url = f"etcd://127.0.0.1:{free_port()}/p"
    begun = time.monotonic()
    value = run_json("local", "up", "--dir", scratch.path("c"), "--nodes", "2", cluster=url, expect=1)
    check(url.split("/")[2] in value["error"], value["error"])
    check(time.monotonic() - begun < 30, "it takes too long to say so")


if __name__ == "__main__":
    harness.main(globals())
