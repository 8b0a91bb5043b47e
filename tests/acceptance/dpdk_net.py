"""Machines for DPDK tests: network namespaces on a Linux bridge, each with an interface on which DPDK's virtual device
stands. The kernel has 10.13.0.N on it (gRPC), DPDK has 10.12.0.N (blocks). Needs root.
"""

import itertools
import json
import os
import subprocess
import sys

import harness

SKIPPED = 77  # ctest knows it
MTU = 9000
ETHERNET_BYTES = 14
COUNTER = itertools.count(1)


def why_not():
    """What is missing; empty when tests can run."""
    if os.geteuid() != 0:
        return "network namespaces and raw sockets need root"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def ip(*arguments):
    subprocess.run(["ip", *map(str, arguments)], check=True, capture_output=True)


class Machine:
    """One namespace: a machine with one network card."""

    def __init__(self, lan, number):
        self.name = f"{lan.name}-{number}"
        self.number = number
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")
        lan.plug_in(self)
        ip("-n", self.name, "addr", "add", f"{self.kernel_ip}/24", "dev", "eth0")
        ip("-n", self.name, "link", "set", "eth0", "up")

    @property
    def kernel_ip(self):
        return f"10.13.0.{self.number}"

    @property
    def dpdk_ip(self):
        return f"10.12.0.{self.number}"

    def listen(self, port, options=""):
        """The words for a DPDK endpoint here; of one that only connects without a port."""
        place = f"{self.dpdk_ip}:{port}" if port else self.dpdk_ip
        return f"{place}%net_af_packet0,iface=eth0{options}"

    def command(self, *arguments):
        return ["ip", "netns", "exec", self.name, *map(os.fspath, arguments)]

    def dpdk_bytes(self):
        """At least so many bytes were sent by DPDK: what the interface sent, less all that the kernel's IPv4 did."""
        text = subprocess.run(["ip", "-n", self.name, "-s", "-j", "link", "show", "eth0"], check=True,
                              capture_output=True, text=True).stdout
        sent = json.loads(text)[0]["stats64"]["tx"]
        lines = subprocess.run(self.command("cat", "/proc/net/netstat"), check=True, capture_output=True,
                               text=True).stdout.splitlines()
        names, values = [line.split() for line in lines if line.startswith("IpExt:")]
        kernel = int(values[names.index("OutOctets")])
        return sent["bytes"] - ETHERNET_BYTES * sent["packets"] - kernel


class Lan:
    """A bridge and its machines; used as a context, removed at its end."""

    def __init__(self, machines):
        self.name = f"sluice{os.getpid()}x{next(COUNTER)}"
        self.count = machines
        self.machines = []

    def __enter__(self):
        ip("netns", "add", self.name)
        try:
            ip("-n", self.name, "link", "add", "br0", "mtu", MTU, "type", "bridge")
            ip("-n", self.name, "link", "set", "br0", "up")
            for number in range(1, self.count + 1):
                self.machines.append(Machine(self, number))
        except BaseException:
            self.__exit__()
            raise
        return self

    def plug_in(self, machine):
        port = f"p{machine.number}"
        ip("-n", self.name, "link", "add", port, "mtu", MTU, "type", "veth", "peer", "name", "eth0", "mtu", MTU,
           "netns", machine.name)
        ip("-n", self.name, "link", "set", port, "master", "br0", "up")

    def __exit__(self, *_):
        for name in [*(machine.name for machine in self.machines), f"{self.name}-{len(self.machines) + 1}", self.name]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Cable(Lan):
    """Two machines joined by a veth pair alone."""

    def __init__(self):
        super().__init__(2)

    def plug_in(self, machine):
        if not self.machines:
            ip("-n", machine.name, "link", "add", "eth0", "mtu", MTU, "type", "veth", "peer", "name", "far", "mtu", MTU)
        else:
            first = self.machines[0].name
            ip("-n", first, "link", "set", "far", "netns", machine.name)
            ip("-n", machine.name, "link", "set", "far", "name", "eth0")


def main(tests):
    """Runs the tests of a module's globals(), or says why not."""
    missing = why_not()
    if missing:
        print(f"dpdk: skipped: {missing}")
        sys.exit(SKIPPED)
    harness.main(tests)
