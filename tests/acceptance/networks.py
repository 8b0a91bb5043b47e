"""Networks between nodes that lose packets in one direction or both, reset connections, are slow or hold still: an
import, a backup and a restore end, with success after the network is well again or with an error that names a node, and
the data is right.

Each node has a network namespace on a bridge; the client, its cluster block and all files are on this machine. What goes
to a node whose hardware address is replaced by a wrong one is lost without a word, in that direction alone.
"""

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import harness
import media
from harness import check, check_equal, run, step

NODES = ("n1", "n2", "n3")
LEASE_MS = 2000
RATE = 4 << 20  # of each node, so that commands last long enough to be disturbed
COMMAND_S = 240


def command(*arguments):
    subprocess.run([*map(str, arguments)], check=True, capture_output=True)


class Host:
    """A network namespace that lasts as long as a process in it."""

    def __init__(self, number):
        self.number = number
        self.address = f"10.77.0.{number}"
        self.link = f"p{number}"
        self.holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def attach(self):
        harness.wait_for(lambda: os.readlink(f"/proc/{self.holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"),
                         "a network namespace")
        command("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.holder.pid)
        command("ip", "link", "set", self.link, "master", "br0", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def inside(self, *arguments):
        return ["nsenter", "-t", str(self.holder.pid), "--net", *map(str, arguments)]

    def run(self, *arguments):
        command(*self.inside(*arguments))


def lose(sender, receiver):
    """Packets from one to the other are lost from now on. The sender None: of this machine's client."""
    arguments = ["ip", "neigh", "replace", receiver.address, "lladdr", "02:00:00:00:77:77", "nud", "permanent", "dev"]
    if sender is None:
        command(*arguments, "br0")
    else:
        sender.run(*arguments, "eth0")


def find(sender, receiver):
    arguments = ["ip", "neigh", "del", receiver.address, "dev"]
    if sender is None:
        command(*arguments, "br0")
    else:
        sender.run(*arguments, "eth0")


class Cluster(harness.Cluster):
    """Nodes of one cluster, each on its host."""

    def __init__(self, scratch, name, hosts, port):  # pylint: disable=super-init-not-called
        self.folder = scratch.path(name)
        self.folder.mkdir()
        self.names = list(NODES)
        self.hosts = dict(zip(NODES, hosts))
        self.url = f"sqlite:{self.folder}/cluster.db"
        self.processes = {}
        self.port = port
        run("cluster", "init", "--slots", "64", cluster=self.url)
        for node in NODES:
            self.begin(node)
        scratch.closers.append(self.close)
        run("cluster", "form", "--nodes", str(len(NODES)), cluster=self.url)

    def begin(self, name):
        config = self.folder / f"{name}.toml"
        address = self.hosts[name].address
        config.write_text(f'name = "{name}"\ncluster = "{self.url}"\ndata_folder = "{self.folder}/{name}"\n'
                          f'archive_folder = "{self.folder}/{name}-archive"\nlease_ms = {LEASE_MS}\n'
                          f'control_listen = "{address}:{self.port}"\ndata_listen = "{address}:{self.port + 1}"\n'
                          f'limits.bytes_per_second = {RATE}\n')
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                self.hosts[name].inside(harness.PROGRAM, "node", "--config", config), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=harness.environment())

    def all_live(self):
        """All nodes, those that ended because they had lost their lease among them, started again."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                self.begin(name)
        nodes = self.json("nodes", expect=None).get("nodes", [])
        return {n["name"] for n in nodes if n["state"] == "live"} == set(NODES)

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


class Network:
    """The namespaces, and ways in which the network fails: each returns what ends the failure."""

    def __init__(self, scratch):
        command("ip", "link", "set", "lo", "up")
        command("ip", "link", "add", "br0", "type", "bridge")
        command("ip", "addr", "add", "10.77.0.254/24", "dev", "br0")
        command("ip", "link", "set", "br0", "up")
        self.hosts = []
        scratch.closers.append(self.close)
        for number in range(1, len(NODES) + 1):
            self.hosts.append(Host(number))
            self.hosts[-1].attach()
        self.faults = {
            "partition": self.partition, "one way to": self.one_way_to, "one way from": self.one_way_from,
            "between two": self.between_two, "without the client": self.without_the_client, "resets": self.resets,
            "slow": self.slow, "stopped": self.stopped,
        }

    def close(self):
        for host in self.hosts:
            host.holder.kill()
            host.holder.wait()
            # The kernel removes it with the namespace, but later.
            subprocess.run(["ip", "link", "del", host.link], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", "br0"], check=False)

    def lossy(self, directions):
        for direction in directions:
            lose(*direction)
        return lambda: [find(*direction) for direction in directions]

    def others(self, host):
        return [other for other in self.hosts if other is not host] + [None]

    def partition(self, host, _):
        """Half-open connections to everybody: nothing arrives in either direction."""
        to = [(other, host) for other in self.others(host)]
        return self.lossy(to + [(host, other) for other in self.hosts if other is not host])

    def one_way_to(self, host, _):
        return self.lossy([(other, host) for other in self.others(host)])

    def one_way_from(self, host, _):
        return self.lossy([(host, other) for other in self.hosts if other is not host])

    def between_two(self, host, _):
        other = self.others(host)[0]
        return self.lossy([(host, other), (other, host)])

    def without_the_client(self, host, _):
        return self.lossy([(None, host)])

    def resets(self, host, _):
        for _ in range(5):
            host.run("ss", "-K", "state", "established")
            time.sleep(0.2)
        return lambda: None

    def slow(self, host, _):
        host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "3mbit", "burst", "32k", "latency", "400ms")
        return lambda: host.run("tc", "qdisc", "del", "dev", "eth0", "root")

    def stopped(self, _, process):
        """It reads nothing and answers nothing, and its connections stay."""
        os.kill(process.pid, signal.SIGSTOP)
        return lambda: os.kill(process.pid, signal.SIGCONT)


class Flipper:
    """A proxy before the data port of each node, which flips a bit of what passes now and then."""

    MARK = 7  # of its own connections, which are not sent to it again

    def __init__(self, scratch, network, port, every, seed):
        self.every = every  # bytes between two flips, on average
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.flips = self.bytes = 0
        self.open = True
        self.listeners = []
        scratch.closers.append(self.close)
        for host in network.hosts:
            listener = socket.create_server(("10.77.0.254", 9000 + host.number))
            self.listeners.append(listener)
            threading.Thread(target=self.accept, args=(listener, (host.address, port)), daemon=True).start()
        for host in [None, *network.hosts]:
            for target in network.hosts:
                rule = (f"add table ip flip; add chain ip flip out {{ type nat hook output priority -100; }}; "
                        f"add rule ip flip out meta mark != {self.MARK} ip daddr {target.address} tcp dport {port} "
                        f"dnat to 10.77.0.254:{9000 + target.number}")
                if host is not target:
                    (command if host is None else host.run)("nft", rule)

    def accept(self, listener, target):
        while self.open:
            try:
                near, _ = listener.accept()
                far = socket.socket()
                far.setsockopt(socket.SOL_SOCKET, 36, self.MARK)  # SO_MARK
                far.connect(target)
            except OSError:
                continue
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.pass_on, args=(one, other), daemon=True).start()

    def pass_on(self, one, other):
        try:
            while data := one.recv(1 << 16):
                with self.lock:
                    self.bytes += len(data)
                    if self.random.random() < len(data) / self.every:
                        data = bytearray(data)
                        data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
                        self.flips += 1
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (one, other):
                try:
                    each.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.open = False
        for listener in self.listeners:
            listener.close()


def start_import(cluster, records):
    lines = b"".join(harness.json_line(key, value) for key, value in records.items())
    path = cluster.folder / "lines"
    path.write_bytes(lines)
    return cluster.background("record", "import", "--jsonl", path)


def finish(process, what):
    try:
        stdout, stderr = process.communicate(timeout=COMMAND_S)
    except subprocess.TimeoutExpired as expired:
        process.kill()
        raise harness.Failed(f"{what} has not ended within {COMMAND_S} s") from expired
    value = json.loads(stdout) if stdout else {}
    check(value, f"{what} printed no JSON, exit code {process.returncode}: {stderr.decode()[-2000:]}")
    value["exit"] = process.returncode
    return value


def check_error(value, what):
    """An error says something, and on a failure of one node names a node or an address."""
    text = value.get("error", "") + str(value.get("causes", ""))
    check(text, f"{what}: no error: {value}")
    check(any(name in text for name in NODES) or "10.77.0." in text or "slot" in text, f"{what}: no node is named: {value}")


class Trial:
    """One cluster that is disturbed, and another that is restored into."""

    def __init__(self, scratch, network, source):
        self.scratch, self.network, self.source = scratch, network, source
        self.cluster = Cluster(scratch, "c", network.hosts, 7000)
        self.known = harness.random_records(300, 16_000, 1)
        self.cluster.put_lines(self.known)
        self.number = 0
        self.results = {}

    def disturb(self, fault, begin, what):
        node = self.source.choice(NODES)
        process = begin()
        time.sleep(self.source.uniform(0.02, 0.8))
        heal = self.network.faults[fault](self.cluster.hosts[node], self.cluster.processes[node])
        held = self.source.choice((0.5, 3, 7))
        try:
            time.sleep(held)
        finally:
            heal()
        began = time.monotonic()
        value = finish(process, f"{what} with {fault} of {node} for {held} s")
        took = time.monotonic() - began
        outcome = value.get("state") or ("done" if value["exit"] == 0 else "failed")
        step(f"{what}, {fault} of {node} for {held} s: {outcome} {took:.1f} s later {value.get('error', '')[:160]}")
        self.results[outcome] = self.results.get(outcome, 0) + 1
        harness.wait_for(self.cluster.all_live, f"all nodes are live after {what}, {fault}", 120)
        return value

    def imported(self, fault):
        self.number += 1
        new = harness.random_records(300, 16_000, self.number + 100, prefix=f"p{self.number % 3}")
        value = self.disturb(fault, lambda: start_import(self.cluster, new), "import")
        if value["exit"] != 0:
            check_error(value, fault)
            again = self.cluster.put_lines(new)
            check_equal(again["failed"], 0, "a second import")
        self.known.update(new)
        check(self.cluster.records(self.scratch.path("found")) == self.known, f"records after an import with {fault}")

    def backed_up(self, fault):
        self.number += 1
        name = f"b{self.number}"
        value = self.disturb(fault, lambda: self.cluster.background("backup", "create", "--name", name), "backup")
        if value.get("state") != "completed":
            check_error(value, fault)

            def ended():
                state = self.cluster.json("backup", "show", name, expect=None).get("state")
                return state in (None, "failed", "completed", "cancelled")
            harness.wait_for(ended, f"the end of backup {name}", 120)
            state = self.cluster.json("backup", "show", name, expect=None).get("state")
            if state == "failed":
                check_equal(self.cluster.json("backup", "resume", name)["state"], "completed", "resumed")
            elif state in (None, "cancelled"):
                return
        shown = self.cluster.json("backup", "show", name)
        check_equal(shown["records"], len(self.known), f"records of {name}")
        check_equal(self.cluster.json("backup", "verify", name)["bad"], [], f"verification of {name}")

    def restored(self, fault):
        """Into the same cluster, whose nodes hold other records by then."""
        self.number += 1
        if not any(backup["backup"] == "restored" for backup in self.cluster.json("backup", "list")["backups"]):
            self.cluster.json("backup", "create", "--name", "restored")
        value = self.disturb(fault, lambda: self.cluster.background("restore", "restored"), "restore")
        if value.get("state") != "completed":
            check_error(value, fault)
            again = self.cluster.json("restore", "restored", timeout=COMMAND_S)
            check_equal(again["state"], "completed", f"a second restore: {again}")
        check(self.cluster.records(self.scratch.path("found")) == self.known, f"records after a restore with {fault}")


def test_commands_over_failing_networks(scratch):
    """A few of all pairs of a fault and a command; SLUICE_ROUNDS=24 or more has all of them."""
    number = media.seed()
    source = random.Random(number)
    trial = Trial(scratch, Network(scratch), source)
    pairs = list(itertools.product(trial.network.faults, ("imported", "backed_up", "restored")))
    source.shuffle(pairs)
    count = media.rounds(4)
    for fault, what in itertools.islice(itertools.cycle(pairs), count):
        try:
            getattr(trial, what)(fault)
        except harness.Failed as error:
            logs = "".join(f"\n--- {name}\n{(trial.cluster.folder / f'{name}.log').read_text()[-3000:]}" for name in NODES)
            raise harness.Failed(f"{fault}, {what}: {error}{logs}") from error
    step(f"{count} commands over failing networks: {trial.results}")


def test_flipped_bits_on_the_wire(scratch):
    """Blocks and what is said about them: no bit that flips between two nodes reaches a record or an archive."""
    if shutil.which("nft") is None:
        print("  skipped: it needs nft")
        return
    network = Network(scratch)
    cluster = Cluster(scratch, "c", network.hosts, 7000)
    flipper = Flipper(scratch, network, 7001, 600_000, media.seed())
    known = {}
    outcomes = {}
    for number in range(media.rounds(3)):
        new = harness.random_records(200, 10_000, number, prefix=f"p{number % 4}")
        done = cluster.put_lines(new, expect=(0, 1))
        for _ in range(10):
            if done.get("code", 0) == 0:
                break
            done = cluster.put_lines(new, expect=(0, 1))
        check_equal(done.get("code", 0), 0, f"an import in ten tries: {done}")
        known.update(new)
        check(cluster.records(scratch.path("found")) == known, "records after an import")
        name = f"b{number}"
        done = cluster.json("backup", "create", "--name", name, expect=None, timeout=COMMAND_S)
        outcome = done.get("state", "failed")
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if outcome != "completed":
            check(done.get("error"), f"no error: {done}")
            step(f"backup: {done['error'][:300]}")
        else:
            check_equal(done["records"], len(known), "records of a backup")
            check_equal(cluster.json("backup", "verify", name)["bad"], [], "verification")
            restored = cluster.json("restore", name, expect=(0, 1, 4), timeout=COMMAND_S)
            outcomes[f"restore {restored.get('state')}"] = outcomes.get(f"restore {restored.get('state')}", 0) + 1
        check(cluster.records(scratch.path("found")) == known, "records after a restore")
    step(f"{flipper.flips} bits of {flipper.bytes} bytes flipped: {outcomes}")
    check(flipper.flips > 0, "no bit was flipped")


def main():
    if not os.environ.get("SLUICE_OWN_NETWORK"):
        unshare = ["unshare", "--net"]
        if os.geteuid() != 0 or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
            print("skipped: network namespaces need root")
            sys.exit(media.SKIPPED)
        os.environ["SLUICE_OWN_NETWORK"] = "1"
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    harness.main(globals())


if __name__ == "__main__":
    main()
