"""Clusters whose cluster block is an etcd, which is killed while they work."""

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import harness
from harness import Failed, check, check_equal, run_json, wait_for
from crashes import finish

RECORDS = 1500
VALUE_BYTES = 32 << 10
NODES = 8
WRITERS = 8
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


class Writers:
    """Threads that write one new record after the other, each by a command of its own, until stop()."""

    def __init__(self, cluster, prefix, count):
        self.cluster, self.prefix = cluster, prefix
        self.acknowledged = {}
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(number,)) for number in range(count)]
        for thread in self.threads:
            thread.start()
        wait_for(lambda: len(self.so_far()) >= 2 * count, "the writers write")

    def write(self, writer):
        number = 0
        while not self.stopping.is_set():
            key, value = f"{self.prefix}-{writer}-{number:05d}", f"{writer}/{number}" * 20
            if self.cluster.run("record", "put", key, value, expect=None).code == 0:
                with self.lock:
                    self.acknowledged[key.encode()] = value.encode()
            number += 1

    def so_far(self):
        with self.lock:
            return dict(self.acknowledged)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.acknowledged


def check_holds(records, written, what):
    lost = [key for key, value in written.items() if records.get(key) != value]
    check(not lost, f"{what}: {len(lost)} of {len(written)} acknowledged writes are missing, as {lost[:3]}")


def test_etcd_killed_under_eight_nodes_and_eight_writers(scratch):
    """etcd is killed during a backup and during a restore, while eight writers write."""
    source = random.Random(SEED)
    print(f"  SLUICE_SEED={SEED}")
    etcd = Etcd(scratch)
    cluster = scratch.cluster("c", NODES, "--slots", "256", block=etcd.url("c"))
    records = harness.random_records(RECORDS, VALUE_BYTES, SEED)
    check_equal(cluster.put_lines(records)["records"], RECORDS, "records")
    writers = Writers(cluster, "w", WRITERS)
    try:
        caught = backups = 0
        while caught < 1:  # a backup is quick
            check(backups < 10, f"none of {backups} kills hit a running backup")
            before = writers.so_far()
            process = cluster.background("backup", "create", "--name", f"b{backups}")
            caught += killed_during(etcd, process, source.uniform(0.05, 0.3))
            outcome = finish(process)
            check_equal(outcome.get("state"), "completed", f"the backup: {outcome}")
            backups += 1
        during = writers.so_far()
    finally:
        written = writers.stop()
    last = f"b{backups - 1}"
    print(f"  {caught} of {backups} kills hit a running backup; {len(before)} writes before it, {len(during)} at its end")
    check(len(during) > len(before), "nothing was written while the backup ran")
    check_equal(cluster.json("backup", "verify", last)["bad"], [], "bad blocks")
    held = cluster.records(scratch.path("all.jsonl"))
    check_holds(held, written, "the cluster")

    target = scratch.cluster("new", NODES, "--slots", "256", block=etcd.url("new"))
    writers = Writers(target, "x", WRITERS)
    try:
        process = target.background("restore", last, "--from", cluster.url)
        hit = killed_during(etcd, process, source.uniform(0.05, 0.6))
        print(f"  the kill {'hit' if hit else 'missed'} the running restore")
        outcome = finish(process)
    finally:
        written = writers.stop()
    check_equal(outcome.get("state"), "completed", f"the restore: {outcome}")
    check_equal(outcome["proof"]["differing"], 0, "what the proof found to differ")
    restored = target.records(scratch.path("new.jsonl"))
    check_holds(restored, written, "the cluster that was restored into")
    check_holds(restored, before, "the archive")
    from_archive = {key: value for key, value in restored.items() if not key.startswith(b"x-")}
    check(all(held.get(key) == value for key, value in from_archive.items()), "the archive has what nobody wrote")
    old, new = (each.export(scratch.path(f"key-{name}.jsonl"), "key") for name, each in (("old", cluster), ("new", target)))
    check(old == new, "the exports differ")
    check({key: value for key, value in restored.items() if key.startswith(b"key")} == records, "records are missing")


def test_down_while_etcd_is_away(scratch):
    etcd = Etcd(scratch)
    cluster = scratch.cluster("c", 3, "--slots", "64", block=etcd.url("c"))
    etcd.kill()
    begun = time.monotonic()
    value = run_json("local", "down", "--dir", cluster.folder)
    seconds = time.monotonic() - begun
    print(f"  the nodes took {seconds:.1f} s to stop")
    check(seconds < 10, "the nodes took too long to stop")
    check_equal(sorted(value["stopped"]), ["n1", "n2", "n3"], "stopped")
    check_equal(value["killed"], [], "killed")
    check_equal(sorted(value["listed_live"]), ["n1", "n2", "n3"], "whom etcd may list as live")
    log = (cluster.folder / "n1.log").read_text()
    check("could not tell the cluster block" in log, f"n1 does not say what it could not tell: {log[-500:]}")
    etcd.start()
    run_json("local", "up", "--dir", cluster.folder, "--nodes", "3", cluster=etcd.url("c"))
    cluster.serves()
    check_equal(run_json("local", "down", "--dir", cluster.folder)["listed_live"], [], "who is listed as live")


class Wire:
    """In front of etcd: hands on what passes, until it has seen some bytes on their way to etcd. It hands these on too, and
    then nothing more, in either direction."""

    def __init__(self, etcd, cut):
        self.etcd, self.cut = etcd, cut
        self.has_cut = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(("127.0.0.1", self.etcd.clients))
            threading.Thread(target=self.hand_on, args=(client, server, self.cut), daemon=True).start()
            threading.Thread(target=self.hand_on, args=(server, client, None), daemon=True).start()

    def hand_on(self, come, go, cut):
        try:
            while data := come.recv(1 << 16):
                if cut and cut in data:
                    self.has_cut.set()
                elif self.has_cut.is_set():
                    return
                go.sendall(data)
        except OSError:
            pass


def test_an_interrupted_up_continues(scratch):
    """It is killed when etcd has been told of the cluster, and it was not told so."""
    etcd = Etcd(scratch)
    wire = Wire(etcd, b"c/doc/cluster")
    folder = scratch.path("c")
    scratch.clusters.append(folder)
    through = f"etcd://127.0.0.1:{wire.port}/c"
    arguments = ["local", "up", "--dir", folder, "--nodes", "3", "--slots", "64"]
    with subprocess.Popen([harness.PROGRAM, "--cluster", through, *map(os.fspath, arguments)],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(wire.has_cut.is_set, "etcd is told of the cluster")
        time.sleep(0.5)
        process.kill()
    # Another directory does not get the prefix.
    value = run_json("local", "up", "--dir", scratch.path("other"), "--nodes", "3", cluster=etcd.url("c"), expect=1)
    check("already" in value["error"], value["error"])
    check(not os.path.exists(scratch.path("other") / "local.json"), "what was refused is described")
    wire.cut = None
    wire.has_cut.clear()
    value = run_json("local", "start", "--dir", folder, "n1", expect=1)
    check("local up" in value["error"], value["error"])
    value = run_json(*arguments, cluster=through)
    check_equal(len(value["nodes"]), 3, "nodes")
    harness.run("record", "put", "a", "yes", cluster=through)
    check_equal(harness.run("record", "get", "a", cluster=through).stdout, b"yes", "a record")


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
