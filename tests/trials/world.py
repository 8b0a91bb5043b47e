"""A cluster that is written to, backed up and struck, and what is expected of it."""

import random
import threading
import time

import dpdk_cluster
import harness
from history import History
from processes import Cluster, Etcd

KEYS = 500
VALUE_BYTES = 12 << 10


class World:
    """A cluster with its block, from one seed, and what is expected of it."""

    def __init__(self, seed, transport, tally):
        self.seed = seed
        self.source = random.Random(f"world {seed}")
        self.tally = tally
        self.scratch = harness.Scratch(f"kills-{seed}")
        self.history = History()
        self.backups = {}  # by name: its UUID, and the digests that a restore of it gave
        self.usual = {}    # seconds that a kind of job takes
        self.numbers = iter(range(1 << 30))
        self.transport = transport
        self.is_spared = False  # nothing is struck
        self.etcd = Etcd(self.scratch) if self.source.random() < 0.5 and transport != "dpdk" else None
        self.network = None
        # Writes that a node misses while it is down make its copies differ for good. Worlds that spare imports, and where little
        # else is written, go on sending agreed slots.
        self.agrees = self.source.random() < 0.5
        nodes, others = self.source.choice((3, 4, 5)), self.source.choice((3, 4))
        replicas = self.source.choice((2, 3, 3))
        self.slots = self.source.choice((4, 64, 64))  # of a few blocks each, or of one
        try:
            if transport == "dpdk":
                nodes = others = replicas = 3
                self.network = dpdk_cluster.Network(self.scratch, nodes + others)
            self.others = others
            self.cluster = self.make("c", nodes, replicas)
        except BaseException:
            self.close(True)
            raise
        self.description = (f"{nodes} nodes, R {replicas}, {self.slots} slots, restored into {others}, "
                            f"{'etcd' if self.etcd else 'SQLite'}, {transport}")

    def make(self, name, nodes, replicas):
        if self.network:
            return self.network.cluster(self.scratch.path(name), nodes)
        rate = self.source.choice((None, 2, 3, 6))
        limits = ["--limit", ",".join(f"n{i + 1}={rate}MB/s" for i in range(nodes))] if rate else []
        self.scratch.clusters.append(self.scratch.path(name))
        return Cluster(self.scratch.path(name), nodes, "--slots", str(self.slots), "--replicas", str(replicas),
                       "--driver", self.transport, *limits, block=self.etcd.url(name) if self.etcd else None)

    def close(self, keep):
        self.scratch.close(keep)

    def values(self, count):
        """For new writes: some of the keys, with values."""
        keys = self.source.sample(range(KEYS), count)
        return {f"key-{key:05d}".encode(): self.source.randbytes(self.source.randrange(1, 2 * VALUE_BYTES)) for key in keys}


class Writer:
    """Writes small groups, and deletes, from one client after another, until it is stopped. Its keys are its own."""

    def __init__(self, world, seed):
        self.world = world
        self.source = random.Random(seed)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.error = None
        self.thread.start()

    def run(self):
        try:
            while not self.stopping.wait(self.source.uniform(0, 0.3)):
                self.write()
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def write(self):
        cluster, history = self.world.cluster, self.world.history
        keys = [f"live-{number:03d}".encode() for number in self.source.sample(range(6 if self.world.agrees else 60), 5)]
        if self.source.random() < 0.2:
            values = {keys[0]: None}
            writes = history.begin(values, time.time())
            result = cluster.run("record", "delete", keys[0].decode(), expect=None)
            good = result.code == 0
        else:
            values = {key: self.source.randbytes(self.source.randrange(1, 600)) for key in keys}
            writes = history.begin(values, time.time())
            lines = b"".join(harness.json_line(*item) for item in values.items())
            result = cluster.run("--json", "record", "import", "--jsonl", "-", stdin=lines, expect=None)
            good = result.code == 0 and result.json["failed"] == 0
        if good:
            history.acknowledge(writes, time.time())

    def stop(self):
        self.stopping.set()
        self.thread.join()
        if self.error:
            raise self.error
