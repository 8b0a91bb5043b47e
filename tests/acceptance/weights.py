"""Nodes that differ in speed: they find it out, a restore gives each its share, and invalid weights and limits are refused."""

import os

import harness
from harness import check, check_equal, run, run_json

NODES = 8
SLOW = ("n2", "n5")
FAST_MB, SLOW_MB = 16, 4
LIMITS = ",".join(f"n{i}={SLOW_MB if f'n{i}' in SLOW else FAST_MB}MB/s" for i in range(1, NODES + 1))
SLOTS = 1024


def archives_of_some_records(scratch):
    """Part directories of a backup of 50 MB, and its records."""
    source = scratch.cluster("source", 2, "--replicas", "1")
    records = harness.random_records(500, 100_000, 5)
    source.put_lines(records)
    backup = source.json("backup", "create", "--name", "b")
    return [archive["path"] for archive in backup["archives"]], records


def restored(scratch, name, archives, records, *options):
    """Restores into a new cluster of limited nodes; the cluster, and how long that took."""
    cluster = scratch.cluster(name, NODES, "--replicas", "2", "--slots", str(SLOTS), "--limit", LIMITS, *options)
    nodes = {node["name"]: node for node in cluster.json("nodes")["nodes"]}
    result = cluster.json("restore", "--archive", *archives)
    check_equal((result["state"], result["written"], result["retried"]), ("completed", len(records), 0), "restore")
    check_equal((result["proof"]["differing"], result["proof"]["equal"]), (0, 2 * SLOTS), "the proof")
    check(cluster.records(scratch.path("out.jsonl")) == records, "other records than the archive's")
    return nodes, {node["name"]: node for node in result["nodes"]}, result["seconds"]


def test_slow_nodes_are_found_and_get_their_share(scratch):
    archives, records = archives_of_some_records(scratch)
    nodes, shares, seconds = restored(scratch, "measured", archives, records, "--weights", "measured")
    for name, node in nodes.items():
        slow = name in SLOW
        check_equal((node["weight_from"], node["bounded_by"]), ("probe", "limit"), f"where the weight of {name} is from")
        check_equal(node["rates"]["limit"], (SLOW_MB if slow else FAST_MB) * 1e6, f"limit of {name}")
        check(node["rates"]["disk_write"] > 0 and node["rates"]["from"]["disk_write"] == "probe", f"rates of {name}")
        # Copies of slots, of which a node has whole ones.
        due = 2 * SLOTS * (SLOW_MB if slow else FAST_MB) / (len(SLOW) * SLOW_MB + (NODES - len(SLOW)) * FAST_MB)
        check(abs(node["slots"] - due) <= 1, f"{name} holds {node['slots']} slots, {due} are due")
    weights = {name: node["weight"] for name, node in nodes.items()}
    check(all(abs(4 * weights[name] / weights["n1"] - 1) < 1e-9 for name in SLOW), f"weights {weights}")
    slow_bytes = sum(shares[name]["bytes"] for name in SLOW) / len(SLOW)
    fast_bytes = sum(node["bytes"] for name, node in shares.items() if name not in SLOW) / (NODES - len(SLOW))
    check(0.15 < slow_bytes / fast_bytes < 0.37, f"a slow node got {slow_bytes} bytes, a fast one {fast_bytes}")

    equal, equal_shares, equal_seconds = restored(scratch, "equal", archives, records, "--weights", ",".join("1" * NODES))
    check_equal({(node["weight"], node["weight_from"]) for node in equal.values()}, {(1, "operator")}, "an operator's weights")
    check_equal({node["slots"] for node in equal.values()}, {2 * SLOTS // NODES}, "equal shares")
    # A slow node's limit bounds the one, and hardly the other: by limits alone about 2.5 times.
    least = max(equal_shares[name]["bytes"] for name in SLOW) / (SLOW_MB * 1e6)
    print(f"  measured {seconds:.1f} s, equal {equal_seconds:.1f} s, of which {least:.1f} s are a slow node's limit")
    check(seconds < equal_seconds, f"measured weights took {seconds} s, equal ones {equal_seconds} s")


def test_a_backup_of_limited_nodes(scratch):
    cluster = scratch.cluster("c", 3, "--weights", "measured", "--limit", "n1=4MB/s,n2=16MB/s,n3=16MB/s")
    records = harness.random_records(100, 100_000, 6)
    cluster.put_lines(records)
    cluster.settle()
    backup = cluster.json("backup", "create", "--name", "b")
    check_equal((backup["state"], backup["records"]), ("completed", len(records)), "backup")
    taken = {node["name"]: node["receive_bytes"] for node in backup["plan"]["nodes"]}
    check(taken["n1"] < 0.5 * taken["n2"], f"targets take {taken}")
    # Each node has a copy of everything, so nothing leaves its node: that is limited all the same.
    least = taken["n1"] / 4e6 - 0.5
    check(backup["seconds"] >= least, f"{taken['n1']} bytes at 4 MB/s in {backup['seconds']} s")
    run("local", "down", "--dir", cluster.folder)
    run_json("local", "up", "--dir", cluster.folder, "--nodes", "3", "--weights", "1,1,1", expect=1)
    run_json("local", "up", "--dir", cluster.folder, "--nodes", "3", "--limit", "n1=5MB/s", expect=1)
    again = harness.Cluster(cluster.folder, 3, "--weights", "measured", "--limit", "n1=4MB/s")
    check(again.records(scratch.path("again.jsonl")) == records, "records after a restart")


def test_what_is_no_weight_or_limit_is_refused(scratch):
    unused = scratch.path("unused")
    for option, value in [("--weights", value) for value in ("1,0", "1,-1", "1,inf", "1,nan", "1,x", "1,measured", "measured,1")] + [
            ("--limit", value) for value in ("n1=0", "n1=-5MB/s", "n1=inf", "n1=nan", "n1=1kB/s", "n1=5XB/s", "n1", "n3=5MB/s",
                                             "n1=5MB/s,n1=6MB/s")]:
        result = run_json("local", "up", "--dir", unused, "--nodes", "2", option, value, expect=2)
        check(option in result["error"] and any(part in result["error"] for part in (value, *value.split(","))) or
              "twice" in result["error"] or "no node 'n3'" in result["error"], f"{option} {value}: {result['error']}")
        check(not os.path.exists(unused), f"{option} {value} made something")
    config = scratch.path("n1.toml")
    start = f"name = 'n1'\ncluster = 'sqlite:{scratch.path('c.db')}'\ndata_folder = '{scratch.path('n1')}'\n"
    for line in ("weight = 0", "weight = -1", "weight = inf", "limits.bytes_per_second = 0", "limits.bytes_per_second = -7",
                 "limits.bytes_per_second = inf"):
        config.write_text(start + line + "\n")
        error = run("node", "--config", config, expect=1).stderr.decode()
        key, value = line.split(" = ")
        check(f"n1.toml:4: key '{key}'" in error and f"it is {value}" in error, error)
        check(not scratch.path("n1").exists(), f"{line} made something")


if __name__ == "__main__":
    harness.main(globals())
