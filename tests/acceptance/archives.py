"""What stands in the place of an archive part: swapped, copied, shared, unreadable and half-deleted ones."""

import os
import shutil
import subprocess

import harness
from harness import check, check_equal, run, run_json, wait_for


def part(cluster, node, backup):
    return cluster.folder / f"{node}-archive" / backup


def states(cluster):
    return {b["backup"]: b["state"] for b in cluster.json("backup", "list")["backups"]}


def back_up(cluster, name, *options):
    cluster.put_lines({f"{name}{i}".encode(): name.encode() for i in range(200)})
    cluster.json("backup", "create", "--name", name, *options)


def test_swapped_parts(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    for name in ("a", "b"):
        back_up(cluster, name)
    for node in cluster.names:
        part(cluster, node, "a").rename(scratch.path("aside"))
        part(cluster, node, "b").rename(part(cluster, node, "a"))
        scratch.path("aside").rename(part(cluster, node, "b"))
    verified = cluster.json("backup", "verify", "a", expect=3)
    check(len(verified["bad"]) == 3 and "of backup b" in verified["bad"][0]["reason"], f"verify a: {verified}")
    empty = scratch.cluster("empty", 3, "--slots", "64")
    restored = empty.json("restore", "a", "--from", cluster.url, expect=3)
    check("of backup b" in restored["error"], f"restore a: {restored}")
    check_equal(empty.json("record", "count")["count"], 0, "records of a refused restore")
    cluster.run("backup", "delete", "a", expect=1)
    check_equal(states(cluster), {"a": "completed", "b": "completed"}, "states")
    for node in cluster.names:
        check((part(cluster, node, "a") / "manifest").exists(), f"{node} lost a part")


def test_one_archive_directory_for_all_nodes(scratch):
    """A part in it is its node's alone; two nodes that would write into one part are told."""
    folder = scratch.path("c")
    (folder / "shared").mkdir(parents=True)
    for i in (1, 2, 3):
        os.symlink("shared", folder / f"n{i}-archive")
    cluster = scratch.cluster("c", 3, "--slots", "64")
    back_up(cluster, "one", "--target", "n1")
    failed = cluster.json("backup", "create", "--name", "all", expect=1)
    check("archive directory of its own" in failed["error"], f"no hint: {failed['error']}")
    cluster.json("backup", "delete", "all")
    cluster.kill("n2")
    cluster.start("n2")
    back_up(cluster, "two", "--target", "n2")
    check_equal(cluster.json("backup", "verify", "one")["bad"], [], "the part of n1")
    cluster.json("backup", "delete", "one")
    check_equal(sorted(os.listdir(folder / "shared")), ["two"], "what is left")


def test_deletion_with_a_node_down(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    back_up(cluster, "x")
    cluster.kill("n2")
    unfinished = cluster.json("backup", "delete", "x", expect=1)
    check("n2" in unfinished["error"] and "unfinished" in unfinished["error"], f"not said: {unfinished}")
    check_equal(states(cluster), {"x": "cancelled"}, "a deletion that is unfinished")
    check("n2" in cluster.json("backup", "show", "x")["reason"], "show does not name n2")
    for command in (["backup", "verify", "x"], ["restore", "x"]):
        check("being deleted" in cluster.json(*command, expect=1)["error"], f"{command}")
    cluster.start("n2")
    wait_for(lambda: not states(cluster), "n2 removes its part when it returns")
    for node in cluster.names:
        check(not part(cluster, node, "x").exists(), f"{node} keeps its part")


def test_what_cannot_be_read_is_not_called_damage(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    back_up(cluster, "x")
    copies = []
    for node in cluster.names:
        copies.append(scratch.path(f"copy-{node}"))
        shutil.copytree(part(cluster, node, "x"), copies[-1])
    scratch.folder.chmod(0o755)
    if os.geteuid() != 0:
        print("skipped: another user and mounts, which need root")
        return
    verify = [harness.PROGRAM, "--json", "backup", "verify", "--archive", *map(os.fspath, copies)]
    stranger = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    for path in (copies[0], copies[0] / "segment-00000", copies[0] / "manifest"):
        mode = path.stat().st_mode
        path.chmod(0)
        done = subprocess.run(stranger + verify, capture_output=True, text=True, check=False, timeout=60)
        path.chmod(mode)
        check(done.returncode == 1 and "Permission denied" in done.stdout, f"{path}: exit {done.returncode}\n{done.stdout}")
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, os.fspath(scratch.folder), *verify], capture_output=True,
                          text=True, check=False, timeout=60)
    check(done.returncode == 0, f"a read-only mount: exit {done.returncode}\n{done.stdout}{done.stderr}")
    (copies[0] / "segment-00000").write_bytes(b"")
    run_json("backup", "verify", "--archive", *copies, expect=3)
    run("backup", "verify", "--archive", copies[1], scratch.path("nowhere"), expect=1)


def test_holder_that_is_gone(scratch):
    """A backup is deleted without a holder that is gone for good; what it has is remembered and removed when it returns."""
    cluster = scratch.cluster("c", 3, "--replicas", "2", "--slots", "64")
    cluster.put_lines(harness.random_records(300, 300, 2))
    cluster.json("backup", "create", "--name", "b")
    listed = cluster.json("backup", "list")["backups"]
    check_equal([(b["backup"], b["nodes"]) for b in listed], [("b", ["n1", "n2", "n3"])], "the list")
    check(listed[0]["bytes_stored"] >= listed[0]["bytes"] > 0 and listed[0]["created"] > 1.6e9, f"{listed}")
    cluster.kill("n3")
    wait_for(lambda: [n["state"] for n in cluster.json("nodes")["nodes"]].count("live") == 2, "n3 is down")
    refused = cluster.json("backup", "delete", "b", expect=1)
    check("--force" in refused["error"], refused["error"])
    check_equal(cluster.json("backup", "list", "--orphans")["orphans"], [], "what is left by force")
    cluster.json("backup", "delete", "b", "--force")
    check_equal(cluster.json("backup", "list")["backups"], [], "the list")
    orphans = cluster.json("backup", "list", "--orphans")["orphans"]
    check_equal([(o["backup"], o["node"]) for o in orphans], [("b", "n3")], "what is left")
    part = cluster.folder / "n3-archive" / "b"
    check((part / "manifest").exists(), "the part of the node that is down")
    # The name is free, also while the part is there.
    check_equal(cluster.json("backup", "create", "--name", "b")["state"], "completed", "another backup of that name")
    cluster.start("n3")
    wait_for(lambda: not cluster.json("backup", "list", "--orphans")["orphans"], "n3 has removed its part")
    check(not (part / "manifest").exists(), "the part is gone")
    check_equal(cluster.json("backup", "verify", "b")["bad"], [], "the other backup")


if __name__ == "__main__":
    harness.main(globals())
