"""File systems without room, below each of a cluster's places: what was acknowledged stays, the error names the place,
and with room again everything goes on."""

import os
import shutil

import harness
import media
from harness import check, check_equal, step

RECORDS, LARGEST = 400, 24 << 10


def filled(scratch, nodes, *small):
    """A cluster with records; `small` directories of it are file systems of their own, of 64 MiB."""
    folder = scratch.path("c")
    for name in small:
        media.tmpfs(scratch, folder / name, "64M")
    cluster = scratch.cluster("c", nodes, "--slots", "64")
    records = harness.random_records(RECORDS, LARGEST, 1)
    check_equal(cluster.put_lines(records)["failed"], 0, "failed records")
    return cluster, records


def named(place, error):
    check(str(place) in error, f"{place} is not named: {error}")
    check("full" in error or "space" in error, f"the reason is not named: {error}")


def test_archives(scratch):
    cluster, records = filled(scratch, 2, "n1-archive", "n2-archive")
    place = cluster.folder / "n1-archive"
    for leave in (0, 4096, 1 << 20):
        name = f"b{leave}"
        filler = media.fill(place, leave)
        # Or its node's own copies fail to arrive there first: then the backup does without that node.
        made = cluster.json("backup", "create", "--name", name, expect=(0, 1))
        if made.get("state") != "completed":
            named(place, made["error"])
        shown = cluster.json("backup", "show", name, expect=None)
        filler.unlink()
        if shown.get("state") is None:
            cluster.json("backup", "create", "--name", name)
        elif made.get("state") != "completed":
            check_equal(shown["state"], "failed", f"with {leave} bytes of room")
            resumed = cluster.json("backup", "resume", name)
            check_equal((resumed["state"], resumed["records"]), ("completed", RECORDS), "resumed")
        check_equal(cluster.json("backup", "verify", name)["bad"], [], f"verification of {name}")
        cluster.json("backup", "delete", name)
        step(f"archive with {leave} bytes of room")
    check(cluster.records(scratch.path("found")) == records, "the records changed")


def test_archives_are_deleted_without_room(scratch):
    cluster, _ = filled(scratch, 2, "n1-archive")
    cluster.json("backup", "create", "--name", "b")
    media.fill(cluster.folder / "n1-archive")
    check_equal(cluster.json("backup", "verify", "b")["bad"], [], "verification without room")
    cluster.json("backup", "delete", "b")
    check_equal(os.listdir(cluster.folder / "n1-archive"), ["filler"], "what is left of the archive")


def test_records_of_all_nodes(scratch):
    """All replicas at once, so that nobody can take over: an import fails, and what it acknowledged is there."""
    cluster, records = filled(scratch, 2, "n1", "n2")
    fillers = [media.fill(cluster.folder / name, 2 << 20) for name in cluster.names]
    more = harness.random_records(2000, LARGEST, 2, prefix="more")
    failed = cluster.put_lines(more, expect=1)
    step(f"import without room: {failed['error'][:300]}")
    check("disk" in failed["error"] or "space" in failed["error"], f"the reason is not named: {failed}")
    check(any(name in failed["error"] for name in cluster.names), f"no node is named: {failed}")
    found = cluster.records(scratch.path("found"))
    check(all(found.get(key) == value for key, value in records.items()), "acknowledged records are missing")
    check(all(value in (more.get(key), records.get(key)) for key, value in found.items()), "records of nobody")
    backup = cluster.json("backup", "create", "--name", "full", expect=None)
    check(backup.get("state") == "completed" or backup.get("error"), f"a backup without room: {backup}")
    if backup.get("state") != "completed":
        check(any(name in backup["error"] for name in cluster.names), f"no node is named: {backup}")
    for filler in fillers:
        filler.unlink()
    for name in cluster.names:
        media.resize(cluster.folder / name, "512M")
    harness.wait_for(lambda: all(n["state"] == "live" for n in cluster.json("nodes")["nodes"]), "all take writes again", 120)
    check_equal(cluster.put_lines(more)["failed"], 0, "failed records with room again")
    check(cluster.records(scratch.path("found")) == {**records, **more}, "the records afterwards")
    if backup.get("state") != "completed":
        cluster.json("backup", "resume", "full", expect=None)
    check_equal(cluster.json("backup", "create", "--name", "after")["records"], len(records) + len(more), "a backup")


def test_a_restore(scratch):
    source, records = filled(scratch, 2)
    source.json("backup", "create", "--name", "b")
    for name in ("n1", "n2"):
        media.tmpfs(scratch, scratch.path("to") / name, "64M")
    target = scratch.cluster("to", 2, "--slots", "64")
    fillers = [media.fill(target.folder / name, 2 << 20) for name in target.names]
    failed = target.json("restore", "b", "--from", source.url, expect=(1, 4))
    step(f"restore without room: exit code {failed.get('code')}, {failed.get('error', '')[:300]}")
    check(failed.get("state") != "completed", f"completed without room: {failed}")
    listed = target.json("restore", "failed", expect=None)
    text = str(failed) + str(listed)
    check(any(name in text for name in target.names), f"no node is named: {text[:2000]}")
    check("disk" in text or "space" in text, f"the reason is not named: {text[:2000]}")
    for filler in fillers:
        filler.unlink()
    harness.wait_for(lambda: all(n["state"] == "live" for n in target.json("nodes")["nodes"]), "both take writes again", 120)
    restored = target.json("restore", "b", "--from", source.url)
    check_equal((restored["state"], restored["failed"]), ("completed", 0), "a restore with room again")
    check(target.records(scratch.path("found")) == records, "the restored records")


def test_the_cluster_block(scratch):
    folder = scratch.path("c")
    media.tmpfs(scratch, folder, "256M")
    cluster = scratch.cluster("c", 2, "--slots", "64")
    records = harness.random_records(RECORDS, 2000, 1)
    cluster.put_lines(records)
    cluster.json("backup", "create", "--name", "before")
    # Records and archives elsewhere, so that the cluster block alone has no room.
    harness.run("local", "down", "--dir", folder)
    for name in ("n1", "n2", "n1-archive", "n2-archive"):
        shutil.move(folder / name, scratch.path(name))
        os.symlink(scratch.path(name), folder / name)
    harness.run("local", "up", "--dir", folder, "--nodes", "2")
    for leave in (0, 4096, 16384, 65536):
        filler = media.fill(folder, leave)
        done = cluster.json("backup", "create", "--name", f"b{leave}", expect=None, timeout=300)
        step(f"cluster block with {leave} bytes of room: {done.get('state')} {done.get('error', '')[:200]}")
        check_equal(cluster.json("record", "count")["count"], RECORDS, "reads without room")
        if done.get("state") != "completed":
            check(done.get("code") == 1 and done.get("error"), f"no error: {done}")
            check("full" in done["error"] or "space" in done["error"], f"the reason is not named: {done}")
        filler.unlink()
        for name in cluster.names:
            cluster.start(name, expect=(0, 1))
        if done.get("state") != "completed":
            def ended():
                state = cluster.json("backup", "show", f"b{leave}", expect=None).get("state")
                return state in (None, "failed", "completed", "cancelled")
            harness.wait_for(ended, "the end of the backup", 120)
            shown = cluster.json("backup", "show", f"b{leave}", expect=None)
            if shown.get("state") == "failed":
                cluster.json("backup", "resume", f"b{leave}")
            elif shown.get("state") is None:
                cluster.json("backup", "create", "--name", f"b{leave}")
        check_equal(cluster.json("backup", "verify", f"b{leave}")["bad"], [], "verification")
    cluster.serves()
    check(cluster.records(scratch.path("found")) == records, "the records afterwards")


def test_a_clients_output(scratch):
    cluster, _ = filled(scratch, 2)
    right = cluster.export(scratch.path("right"))
    tree = scratch.path("tree")
    harness.small_tree(tree, 40, 60_000, 3 << 20)
    cluster.json("record", "import", "--tree", tree, "--prefix", "tree/")
    out = scratch.path("out")
    media.tmpfs(scratch, out, "64M")
    # Its lines are sorted in a file beside it, so that takes twice the room.
    for leave in (0, 1 << 20, len(right) // 2, len(right) + (1 << 20)):
        filler = media.fill(out, leave)
        done = cluster.json("record", "export", "--jsonl", out / "file", "--prefix", "key", expect=(0, 1))
        if done.get("code") == 1:
            named(out, done["error"])
            check_equal(os.listdir(out), ["filler"], f"what a failed export left ({done['error']})")
        else:
            check((out / "file").read_bytes() == right, "another export")
            (out / "file").unlink()
        filler.unlink()
    filler = media.fill(out, 2 << 20)
    failed = cluster.json("record", "export", "--tree", out / "tree", "--prefix", "tree/", expect=1)
    named(out, failed["error"])
    filler.unlink()
    cluster.json("record", "export", "--tree", out / "tree", "--prefix", "tree/")
    check_equal(harness.same_tree(tree, out / "tree"), [], "the exported tree")


if __name__ == "__main__":
    media.require_own_mounts()
    harness.main(globals())
