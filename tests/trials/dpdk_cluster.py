"""Clusters whose nodes are machines of their own, network namespaces on one bridge, with blocks by DPDK's af_packet device."""

import shutil

import dpdk_net
import dpdk_round_trip
import harness
from harness import check, wait_for
from processes import Victim

START_SECONDS = 180


class DpdkNode(Victim):
    """A node, whose process `ip netns exec` becomes."""

    def __init__(self, cluster, machine):
        super().__init__(f"n{machine.number}")
        self.cluster = cluster
        self.machine = machine

    def process(self):
        return self.cluster.processes[self.cluster.names.index(self.name)]

    def pid(self):
        return self.process().pid

    def kill(self):
        self.process().kill()
        self.process().wait()

    def restart(self):
        self.cluster.start_again(self)


class DpdkCluster(dpdk_round_trip.DpdkCluster):
    """As processes.Cluster, for kills."""

    def __init__(self, network, folder, machines):
        super().__init__(folder, machines)
        self.network = network
        self.names = [f"n{machine.number}" for machine in machines]
        self.nodes = {f"n{machine.number}": DpdkNode(self, machine) for machine in machines}

    def down(self):
        """Ends its processes; others may have its machines."""
        self.close()
        self.network.clusters.remove(self)
        self.network.free += self.machines
        shutil.rmtree(self.folder)

    def start_again(self, node):
        self.start_node(node.machine, 1)
        process = self.processes.pop()
        self.processes[self.names.index(node.name)] = process

        def lives():
            check(process.poll() is None, f"node {node.name} ended after its restart; {node.name}.log says why")
            nodes = harness.run_json("nodes", cluster=self.url, expect=None).get("nodes", [])
            return any(n["name"] == node.name and n["state"] == "live" and n.get("pid") == process.pid for n in nodes)
        wait_for(lives, f"{node.name} is back", START_SECONDS)


class Network:
    """The machines of a world, with one more that all commands run on: the program is changed for the whole process."""

    def __init__(self, scratch, machines):
        missing = dpdk_net.why_not()
        check(not missing, f"dpdk: {missing}")
        self.lan = dpdk_net.Lan(machines + 1)
        self.clusters = []
        self.program = dpdk_round_trip.NODE_PROGRAM = harness.PROGRAM
        scratch.closers.append(self.close)
        self.lan.__enter__()
        *self.free, client = self.lan.machines
        dpdk_round_trip.use_client(client, scratch)

    def cluster(self, folder, nodes):
        machines, self.free = self.free[:nodes], self.free[nodes:]
        self.clusters.append(DpdkCluster(self, folder, machines))
        return self.clusters[-1]

    def close(self):
        for cluster in self.clusters:
            for process in cluster.processes:
                process.kill()
                process.wait()
        self.lan.__exit__()
        harness.PROGRAM = self.program
