"""The main job over DPDK: a cluster backed up, wiped, and restored into another one, each node a machine of its own.

The machines are network namespaces on a Linux bridge; blocks go by DPDK's net_af_packet device, gRPC by the kernel. The
other drivers' rounds are in round_trip.py.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dpdk_net
import harness
from harness import check, check_equal, same_tree, small_tree, step, wait_for

WIRE_OVERHEAD = 1.25
CONTROL_PORT = 7000
DATA_PORT = 7001


class DpdkCluster(harness.Cluster):
    """One node on each of some machines; commands run on a further one."""

    def __init__(self, folder, machines, weights=None):
        self.folder = Path(folder)
        self.folder.mkdir()
        self.machines = machines
        self.url = f"sqlite:{self.folder / 'cluster.db'}"
        self.processes = []
        self.run("cluster", "init", "--slots", "64", "--replicas", "3")
        for i, machine in enumerate(machines):
            self.start_node(machine, weights[i] if weights else 1)
        self.run("cluster", "form", "--nodes", str(len(machines)))
        wait_for(lambda: all(n["state"] == "live" for n in self.json("nodes")["nodes"]), "all nodes live")

    def start_node(self, machine, weight):
        name = f"n{machine.number}"
        config = self.folder / f"{name}.toml"
        fields = {"name": name, "cluster": self.url, "data_folder": str(self.folder / name),
                  "archive_folder": str(self.folder / f"{name}-archive"),
                  "control_listen": f"{machine.kernel_ip}:{CONTROL_PORT}", "driver": "dpdk",
                  "data_listen": machine.listen(DATA_PORT)}
        config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items()) +
                          f"weight = {float(weight)}\n")
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes.append(subprocess.Popen(machine.command(NODE_PROGRAM, "node", "--config", config),
                                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def close(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.close()
        if kind is not None:
            for log in sorted(self.folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}")


def use_client(machine, scratch):
    """From now on the program runs on this machine, and connects over its DPDK device."""
    wrapper = scratch.path("sluice-on-client")
    wrapper.write_text(f"#!/bin/sh\nSLUICE_DPDK_PORT='{machine.listen(0)}' exec ip netns exec {machine.name} "
                       f"{NODE_PROGRAM} \"$@\"\n")
    wrapper.chmod(0o755)
    harness.PROGRAM = os.fspath(wrapper)


def sent_bytes(machines):
    return sum(machine.dpdk_bytes() for machine in machines)


def test_backup_wipe_restore_over_dpdk(scratch):
    tree = scratch.path("tree")
    small_tree(tree, 120, 60_000, 2_300_000)
    with dpdk_net.Lan(6) as lan:
        *machines, client = lan.machines
        use_client(client, scratch)
        with DpdkCluster(scratch.path("old"), machines) as cluster:
            step("five nodes serve, each in a network namespace with a DPDK device")
            imported = cluster.json("record", "import", "--tree", tree)
            check_equal(imported["failed"], 0, "failed imports")
            before = cluster.export(scratch.path("before.jsonl"))
            step(f"imported {imported['records']} records, {imported['bytes']} bytes, and exported")
            wire = sent_bytes(machines)
            backup = cluster.json("backup", "create", "--name", "first", "--target", "n1")
            wire = sent_bytes(machines) - wire
            check_equal(backup["state"], "completed", "state")
            check_equal((backup["records"], backup["bytes"]), (imported["records"], imported["bytes"]),
                        "records and bytes")
            check_equal(backup["divergence"]["conflicting"], 0, "conflicting records")
            copies = 1 if backup["slots_divergent"] == 0 else 3
            check(backup["wire_bytes"] <= copies * WIRE_OVERHEAD * backup["bytes"],
                  f"{backup['wire_bytes']} on the wire for {backup['bytes']} bytes")
            sent = backup["wire_bytes"] - backup["local_bytes"]
            # What the target itself holds is on no wire, but a node holds three of five slots only.
            check(sent >= 0.05 * backup["wire_bytes"], f"only {sent} bytes sent to another node")
            # A few bytes of what went before are counted by the stream when they are acknowledged.
            check(wire >= 0.98 * sent, f"only {wire} bytes of {sent} were sent by DPDK")
            step(f"backed up {backup['bytes']} bytes to n1, {backup['wire_bytes']} sent, {wire} bytes by DPDK")
            check_equal(cluster.json("backup", "verify", "first")["bad"], [], "bad blocks")
            archives = [Path(archive["path"]) for archive in backup["archives"]]
        moved = [scratch.path(f"archive-{i}") for i in range(len(archives))]
        for source, target in zip(archives, moved):
            shutil.move(source, target)
        shutil.rmtree(scratch.path("old"))
        step("verified, stopped and wiped")
        with DpdkCluster(scratch.path("new"), machines[:4], weights=(1, 2, 3, 4)) as new:
            step("four other nodes serve")
            restored = new.json("restore", "--archive", *moved)
            check_equal((restored["state"], restored["failed"], restored["records"]),
                        ("completed", 0, backup["records"]), "restore")
            check(restored["proof"]["checked"] and restored["proof"]["differing"] == 0, f"proof {restored['proof']}")
            wire = sent_bytes([client])
            check(wire >= backup["bytes"], f"only {wire} bytes were sent by the restoring machine's DPDK")
            step(f"restored from another machine, which sent {wire} bytes by DPDK")
            check(new.export(scratch.path("after.jsonl")) == before, "the exports differ")
            new.json("record", "export", "--tree", scratch.path("back"))
            check_equal(same_tree(tree, scratch.path("back")), [], "differences of the trees")
            step("exported and compared")


if __name__ == "__main__":
    NODE_PROGRAM = os.path.abspath(sys.argv[1])
    dpdk_net.main(globals())
