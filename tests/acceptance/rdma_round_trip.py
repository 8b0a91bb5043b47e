"""The main job over RDMA: a cluster backed up, wiped, and restored into another one, on real verbs.

Runs where there is an RDMA device: on this machine's, or in the guest of scripts/rdma-vm. The other drivers' rounds are in
round_trip.py; this one is small because an emulated processor is slow.
"""

import shutil
from pathlib import Path

import harness
from harness import check, check_equal, run, same_tree, small_tree, step

# What the backup may add to the bytes of keys and values on the wire; small records weigh more.
WIRE_OVERHEAD = 1.25
DRIVER = "rdma"
LARGEST_PACKET = 4096


def device_bytes():
    """At most so many bytes were sent by this machine's RDMA devices: their own counters' word."""
    total = 0
    for port in Path("/sys/class/infiniband").glob("*/ports/*"):
        packets = port / "hw_counters/sent_pkts"  # Soft-RoCE counts packets only
        words = port / "counters/port_xmit_data"
        if packets.exists():
            total += int(packets.read_text()) * LARGEST_PACKET
        elif words.exists():
            total += int(words.read_text()) * 4
    return total


def test_backup_wipe_restore_over_rdma(scratch):
    tree = scratch.path("tree")
    small_tree(tree, 50, 20_000, 1_300_000)
    options = ("--driver", DRIVER, "--slots", "64")
    cluster = scratch.cluster("old", 5, *options)
    step("five nodes serve")
    imported = cluster.json("record", "import", "--tree", tree)
    check_equal(imported["failed"], 0, "failed imports")
    before = cluster.export(scratch.path("before.jsonl"))
    step(f"imported {imported['records']} records, {imported['bytes']} bytes, and exported")
    wire = device_bytes()
    backup = cluster.json("backup", "create", "--name", "first", "--target", "n1")  # who does not hold all slots
    wire = device_bytes() - wire
    check_equal(backup["state"], "completed", "state")
    check_equal((backup["records"], backup["bytes"]), (imported["records"], imported["bytes"]), "records and bytes")
    check_equal((backup["slots_divergent"], backup["divergence"]), (0, {"stale": 0, "missing": 0, "conflicting": 0}),
                "divergent slots")
    check(backup["wire_bytes"] <= WIRE_OVERHEAD * backup["bytes"],
          f"{backup['wire_bytes']} on the wire for {backup['bytes']} bytes")
    step(f"backed up {backup['bytes']} bytes, {backup['wire_bytes']} sent, {backup['local_bytes']} of them within a node, at most "
         f"{wire} by the RDMA devices; {backup['slots_divergent']} slots divergent {backup['divergence']}")
    sent = backup["wire_bytes"] - backup["local_bytes"]
    check(sent > 0, "no node sent to another")
    # A few bytes of what went before are counted by the stream when they are acknowledged.
    check(wire >= 0.98 * sent, f"only {wire} bytes of {sent} passed the RDMA devices")
    check_equal(cluster.json("backup", "verify", "first")["bad"], [], "bad blocks")

    archives = [Path(archive["path"]) for archive in backup["archives"]]
    moved = [scratch.path(f"archive-{i}") for i in range(len(archives))]
    run("local", "down", "--dir", cluster.folder)
    for source, target in zip(archives, moved):
        shutil.move(source, target)
    shutil.rmtree(cluster.folder)

    step("verified, stopped and wiped")
    new = scratch.cluster("new", 4, "--weights", "1,2,3,4", *options)
    step("four other nodes serve")
    restored = new.json("restore", "--archive", *moved)
    check_equal((restored["state"], restored["failed"], restored["records"]), ("completed", 0, backup["records"]), "restore")
    check(restored["proof"]["checked"] and restored["proof"]["differing"] == 0, f"proof {restored['proof']}")
    step("restored")
    check(new.export(scratch.path("after.jsonl")) == before, "the exports differ")
    new.json("record", "export", "--tree", scratch.path("back"))
    check_equal(same_tree(tree, scratch.path("back")), [], "differences of the trees")
    step("exported and compared")


if __name__ == "__main__":
    harness.main(globals())
