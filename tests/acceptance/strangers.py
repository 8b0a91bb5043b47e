"""Strangers at a cluster's data and control ports: silent, slow, noisy and many. What the cluster is for goes on."""

import os
import random
import socket
import struct
import threading
import time

import harness
from harness import check, check_equal

# What a peer of the tcp driver says first: magic, version, flags, its largest message.
PREAMBLE = b"slstcp1\n" + struct.pack("<IIQQ", 1, 0, (1 << 20) + 4096, 0)


def listening(pid):
    """The TCP ports that a process listens on."""
    inodes = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{entry}"))
        except OSError:
            pass
    ports = []
    for family in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{family}", encoding="ascii") as table:
            for line in table.readlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                    ports.append(int(fields[1].split(":")[1], 16))
    return ports


def speaks_tcp_driver(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
        one.settimeout(5)
        return one.recv(8) == PREAMBLE[:8]


class Strangers:
    """Threads that do their worst at one port until the end of the block."""

    def __init__(self, port):
        self.where = ("127.0.0.1", port)
        self.over = threading.Event()
        self.made = {}
        kinds = {
            "silent": lambda: self.hold(200, PREAMBLE),
            "half-open": lambda: self.hold(50, PREAMBLE[:20]),
            "slow": lambda: self.hold(20, b"", trickle=PREAMBLE + bytes(1000)),
            "garbage": self.garbage,
            "quick": self.quick,
        }
        self.threads = [threading.Thread(target=self.repeat, args=item) for item in kinds.items()]
        self.kinds = len(kinds)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        harness.wait_for(lambda: len(self.made) == self.kinds, "all kinds of strangers are at work", 30)
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def repeat(self, kind, work):
        while not self.over.is_set():
            try:
                threading.current_thread().name = kind
                work()
            except OSError:
                self.over.wait(0.01)

    def connect(self):
        one = socket.create_connection(self.where, timeout=5)
        kind = threading.current_thread().name
        self.made[kind] = self.made.get(kind, 0) + 1
        return one

    def hold(self, count, first, trickle=b""):
        """Holds so many connections, and makes those again that were closed."""
        held = {}
        try:
            while not self.over.wait(0.02):
                while len(held) < count and not self.over.is_set():
                    one = self.connect()
                    one.setblocking(False)
                    if first:
                        one.send(first)
                    held[one] = 0
                for one, sent in list(held.items()):
                    try:
                        if trickle:
                            held[one] += one.send(trickle[sent:sent + 1])
                        ended = one.recv(4096) == b""
                    except BlockingIOError:
                        ended = False
                    except OSError:
                        ended = True
                    if ended:
                        one.close()
                        del held[one]
        finally:
            for one in held:
                one.close()

    def garbage(self):
        with self.connect() as one:
            one.sendall((PREAMBLE if random.random() < 0.5 else b"") + random.randbytes(random.randrange(1, 5000)))
        self.over.wait(0.01)

    def quick(self):
        self.connect().close()
        self.over.wait(0.001)


def test_a_node_under_attack_serves_streams_and_a_backup(scratch):
    cluster = scratch.cluster("cluster", 3)
    records = harness.random_records(2000, 400, 5)
    cluster.put_lines(records)
    ports = listening(cluster.pids["n1"])
    data = [port for port in ports if speaks_tcp_driver(port)]
    control = [port for port in ports if port not in data]
    check(data and control, f"ports of n1: {ports}")
    with Strangers(data[0]) as strangers, Strangers(control[0]):
        began = time.monotonic()
        for i in range(5):
            cluster.run("record", "put", f"under-attack-{i}", "yes")
            check_equal(cluster.run("record", "get", f"under-attack-{i}").stdout, b"yes", "what was just written")
        cluster.json("backup", "create", "--name", "nightly")
        verified = cluster.json("backup", "verify", "nightly")
        check_equal(verified.get("bad", []), [], "damage in the backup")
        # Its streams end at n1 as well.
        cluster.json("restore", "nightly")
        took = time.monotonic() - began
        check(took < 120, f"it took {took:.0f} s")
        print(f"  {took:.1f} s, connections: {strangers.made}")
    check(os.path.exists(f"/proc/{cluster.pids['n1']}"), "n1 ended")
    check_equal(cluster.json("record", "count")["count"], 2005, "records afterwards")


if __name__ == "__main__":
    harness.main(globals())
