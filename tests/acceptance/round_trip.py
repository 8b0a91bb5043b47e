"""A whole cluster backed up, wiped, and restored into another one of other size and weights."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import harness
from harness import check, check_equal, run, run_json, same_tree

# What the backup may add to the bytes of keys and values on the wire.
WIRE_OVERHEAD = 1.05
# The loopback interface also carries the cluster's calls (digests of all slots, plan, progress) and TCP's headers.
LOOPBACK_MARGIN = 1.05
LOOPBACK_SLACK = 4 << 20


def loopback_bytes():
    """Sent over this network namespace's loopback."""
    fields = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")).split()
    return int(fields[9])


def in_own_network():
    """Runs this file again in a network namespace of its own, where nothing else uses the loopback; returns where that is
    not possible (the counters are then not compared)."""
    if os.environ.get("SLUICE_OWN_NETWORK"):
        return
    unshare = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    try:
        probe = subprocess.run(unshare + ["ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False)
        reason = probe.stderr.strip() if probe.returncode != 0 else ""
    except FileNotFoundError as error:
        reason = str(error)
    if reason:
        print(f"skipped: the comparison with the loopback's counters, which needs a network namespace: {reason}")
        return
    os.environ["SLUICE_OWN_NETWORK"] = "yes"
    os.execvp("unshare", unshare + ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable] + sys.argv)


def small_real_tree(into):
    """Some megabytes of real files."""
    into.mkdir()
    budget = 24 << 20
    for source in ("/usr/include/linux", "/usr/share/doc", "/usr/lib/python3"):
        for folder, _, files in os.walk(source):
            for name in sorted(files):
                path = Path(folder) / name
                if budget <= 0 or path.is_symlink() or not path.is_file():
                    continue
                target = into / path.relative_to("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
                budget -= max(path.stat().st_size, 512)
    (into / "large").write_bytes(os.urandom(5_000_000))
    os.symlink("large", into / "link")


def check_backup(backup, imported, nodes):
    for field in ("backup", "state", "cut", "records", "bytes", "wire_bytes", "local_bytes", "slots", "slots_agreed",
                  "slots_divergent", "divergence", "seconds", "archives", "plan"):
        check(field in backup, f"the backup has no field {field}")
    check_equal(backup["state"], "completed", "state")
    check_equal((backup["records"], backup["bytes"]), (imported["records"], imported["bytes"]), "records and bytes")
    check(backup["cut"] > 0, "no cut")
    check_equal(backup["slots_divergent"], 0, "divergent slots")
    check_equal(backup["divergence"], {"stale": 0, "missing": 0, "conflicting": 0}, "divergence")
    check(backup["slots_agreed"] <= backup["slots"] == 4096, "slots")
    check(backup["wire_bytes"] <= WIRE_OVERHEAD * backup["bytes"],
          f"{backup['wire_bytes']} on the wire for {backup['bytes']} bytes")
    plan = backup["plan"]
    check(plan["makespan_s"] >= plan["lower_bound_s"] > 0, f"plan {plan}")
    check(sum(n["send_bytes"] for n in plan["nodes"]) >= backup["bytes"], "the plan sends less than there is")
    check(set(a["node"] for a in backup["archives"]) <= set(nodes), "archives on unknown nodes")


def test_backup_wipe_restore(scratch):
    tree = scratch.path("tree")
    small_real_tree(tree)
    cluster = scratch.cluster("old", 5, "--replicas", "3")
    imported = cluster.json("record", "import", "--tree", tree)
    check_equal(imported["failed"], 0, "failed imports")
    cluster.run("record", "put", "deleted", "x")
    cluster.run("record", "delete", "deleted")
    before = cluster.export(scratch.path("before.jsonl"))

    dry = cluster.json("backup", "create", "--dry-run")
    check(dry["plan"]["lower_bound_s"] > 0, "a dry run without a plan")
    lo_before = loopback_bytes()
    backup = cluster.json("backup", "create", "--name", "first")
    on_loopback = loopback_bytes() - lo_before
    check_backup(backup, imported, cluster.names)
    print(f"  {backup['bytes']} bytes, {backup['wire_bytes']} on the wire, {on_loopback} over the loopback")
    if os.environ.get("SLUICE_OWN_NETWORK"):
        check(on_loopback <= LOOPBACK_MARGIN * backup["wire_bytes"] + LOOPBACK_SLACK,
              f"{on_loopback} bytes passed the loopback, {backup['wire_bytes']} reported")
        # Every node holds slots and has a part of the archive, so next to nothing has to leave its node.
        check(on_loopback <= 0.5 * backup["bytes"], f"{on_loopback} bytes passed the loopback for {backup['bytes']}")
        check(backup["wire_bytes"] >= backup["bytes"], f"{backup['wire_bytes']} bytes counted as sent")
    listed = cluster.json("backup", "list")["backups"]
    check_equal([(each["backup"], each["state"], each["records"], each["bytes"]) for each in listed],
                [("first", "completed", backup["records"], backup["bytes"])], "backup list")
    check_equal(sorted(listed[0]["nodes"]), sorted(cluster.names), "nodes that hold the backup")
    check(listed[0]["bytes_stored"] >= backup["bytes"], f"bytes on disk: {listed[0]}")
    check_equal(cluster.json("backup", "show", "first")["records"], backup["records"], "backup show")
    schedule = cluster.json("schedule", "show", "first")
    check(all(copy["state"] for copy in schedule["copies"]), "copies without a state")
    check_equal(sorted(node["name"] for node in schedule["nodes"]), sorted(cluster.names), "nodes of the schedule")
    for node in schedule["nodes"]:
        check(node["predicted_s"] > 0 and node["actual_s"] > 0, f"no predicted or actual time: {node}")
        check(node["bottleneck"] in ("disk", "link", "cpu", "waiting"), f"no bottleneck: {node}")
    verified = cluster.json("backup", "verify", "first")
    check_equal(verified["bad"], [], "bad blocks")
    check(verified["blocks"] > 0 and verified["bytes"] >= backup["bytes"], f"verified {verified}")

    archives = [Path(a["path"]) for a in backup["archives"]]
    moved = [scratch.path(f"archive-{i}") for i in range(len(archives))]
    run("local", "down", "--dir", cluster.folder)
    for source, target in zip(archives, moved):
        shutil.move(source, target)
    shutil.rmtree(cluster.folder)
    offline = run_json("backup", "verify", "--archive", *moved)
    check_equal((offline["blocks"], offline["bad"]), (verified["blocks"], []), "verify without a cluster")
    run_json("backup", "verify", "--archive", *moved[1:], expect=3)

    weights = [1, 2, 3, 4]
    new = scratch.cluster("new", 4, "--weights", ",".join(map(str, weights)))
    restored = new.json("restore", "--archive", *moved)
    check_equal((restored["state"], restored["failed"]), ("completed", 0), "restore")
    check_equal((restored["records"], restored["written"] >= restored["records"]), (backup["records"], True), "restored")
    check(restored["proof"]["checked"] and restored["proof"]["differing"] == 0, f"proof {restored['proof']}")
    stages = {stage["stage"] for stage in restored["stages"]}
    check({"read", "wire", "keep", "build"} <= stages, f"the restore says only of {stages} what they did")
    check(restored["bottleneck"], f"nothing bounded the restore: {restored['stages']}")
    read = sum(stage["bytes"] for stage in restored["stages"] if stage["stage"] == "read")
    check(read >= restored["bytes"], f"{read} bytes were read of {restored['bytes']}")
    check(new.export(scratch.path("after.jsonl")) == before, "the exports differ")
    new.run("record", "get", "deleted", expect=1)
    new.json("record", "export", "--tree", scratch.path("back"))
    check_equal(same_tree(tree, scratch.path("back")), [], "differences of the trees")

    table = new.json("table", "show")
    check_equal((table["slots"], table["replicas"]), (4096, 3), "table")
    shares = water_filled(weights, 3)
    for node, share in zip(table["nodes"], shares):
        check(abs(node["slots"] - share * 4096) <= 1, f"{node} should hold {share * 4096} copies")
        check(abs(node["ideal"] - share * 4096) < 1e-6, f"ideal of {node}")
    check(1 <= table["imbalance"] < 1.01, f"imbalance {table['imbalance']}")


def water_filled(weights, replicas):
    """Shares min(1, c * weight) that sum to `replicas`."""
    low, high = 0.0, float(replicas) / min(weights) + 1
    for _ in range(200):
        middle = (low + high) / 2
        if sum(min(1.0, middle * w) for w in weights) < replicas:
            low = middle
        else:
            high = middle
    return [min(1.0, high * w) for w in weights]


def test_restore_into_a_live_cluster(scratch):
    """Newest wins; a prefix restores only itself; restoring twice changes nothing."""
    cluster = scratch.cluster("c", 3)
    records = harness.random_records(400, 500, 1, "a") | harness.random_records(100, 500, 2, "b")
    cluster.put_lines(records)
    cluster.json("backup", "create", "--name", "b1")
    changed = {key: b"changed" for key in list(records)[:50]}
    cluster.put_lines(changed)
    gone = list(records)[100:120]
    for key in gone:
        cluster.run("record", "delete", key.decode())
    expected = {k: v for k, v in (records | changed).items() if k not in gone}
    first = cluster.json("restore", "b1")
    check_equal(first["state"], "completed", "restore into a live cluster")
    check_equal((first["kept_newer"], first["kept_deleted"]), (50, 20), "newer records and deletions that were kept")
    check(cluster.records(scratch.path("1.jsonl")) == expected, "the restore changed newer records")

    empty = scratch.cluster("empty", 3)
    dry = empty.json("restore", "b1", "--from", cluster.url, "--prefix", "b-", "--dry-run")
    check_equal((dry["records"], empty.json("record", "count")["count"]), (100, 0), "a dry run")
    part = empty.json("restore", "b1", "--from", cluster.url, "--prefix", "b-")
    check_equal((part["state"], part["records"]), ("completed", 100), "restore of a prefix")
    check(empty.records(scratch.path("2.jsonl")) == {k: v for k, v in records.items() if k.startswith(b"b-")}, "prefix")
    for _ in range(2):
        check_equal(empty.json("restore", "b1", "--from", cluster.url)["state"], "completed", "restore")
    check(empty.records(scratch.path("3.jsonl")) == records, "the whole restore")
    check_equal(run_json("restore", "failed", cluster=empty.url)["failed"], [], "the retry list")


def test_changing_the_table_is_planned_only(scratch):
    cluster = scratch.cluster("c", 4)
    table = cluster.json("table", "show")
    check_equal([n["slots"] for n in table["nodes"]], [3072] * 4, "copies held")
    plan = cluster.json("table", "plan", "--add", "n5=1", "--weight", "n1=2")
    check_equal(plan["moved"], plan["moved_minimum"], "moved")
    check(plan["moved"] > 0 and len(plan["nodes"]) == 5, f"plan {plan}")
    cluster.json("table", "plan", "--remove", "n1", "--remove", "n2", expect=1)
    cluster.json("table", "plan", "--remove", "n9", expect=2)
    check_equal(cluster.json("table", "show"), table, "the table after planning")


if __name__ == "__main__":
    in_own_network()
    harness.main(globals())
