"""Directory trees of nodes, backed up where they are: hostile ones, changing ones, and ones that are not there."""

import os
import random
import shutil
import subprocess
import threading

import harness
from harness import check, check_equal, run
from tree_compare import compare
from tree_round_trips import hostile_tree, put, remove


def trees_of(done):
    return {(tree["name"], tree["node"]): tree for tree in done["trees"]}


def test_a_hostile_tree(scratch):
    """Each node its own; the records beside them are what they were."""
    for node in ("n1", "n2", "n3"):
        (scratch.path("trees") / node).mkdir(parents=True)
        put(scratch.path("trees") / node / "whose", node.encode())
    hostile_tree(scratch.path("trees") / "n2" / "hostile")
    cluster = scratch.cluster("c", 3, "--slots", "64", "--tree", f"work={scratch.path('trees')}/%n")
    cluster.put_lines({b"key/%d" % i: b"value %d" % i for i in range(200)})
    done = cluster.json("backup", "create", "--name", "b")
    check_equal((done["records"], done["state"]), (200, "completed"), "records and state")
    trees = trees_of(done)
    check_equal(sorted(trees), [("work", "n1"), ("work", "n2"), ("work", "n3")], "trees")
    hostile = trees["work", "n2"]
    check_equal((hostile["failed"], hostile["changed_while_read"], hostile["skipped"]), (0, [], 1), "failed, changed, sockets")
    check(hostile["sent_bytes"] < 20_000_000, f"holes cost: {hostile['sent_bytes']} bytes")
    check_equal(cluster.json("backup", "verify", "b")["bad"], [], "bad")
    archives = [cluster.folder / f"{node}-archive/b" for node in cluster.names]

    source = scratch.path("trees") / "n2"
    out = scratch.path("out")
    for words in (["b"], ["--archive", *archives]):
        for _ in range(2):  # into an empty directory, and over what is there
            restored = cluster.json("restore", *words, "--tree", "work", "--node", "n2", "--to", out)
            check_equal(restored["failed"], 0, "failed")
            check_equal(compare(source, out), [], f"differences, by {words[0]}")
        remove(out)
    listed = cluster.run("backup", "export", "b", "--tree", "work", "--node", "n2", "--tar", scratch.path("t.tar"))
    check_equal(listed.code, 0, "export")
    unpacked = scratch.path("unpacked")
    unpacked.mkdir()
    subprocess.run(["tar", "--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", scratch.path("t.tar")],
                   cwd=unpacked, check=True)
    check_equal(compare(source, unpacked), [], "differences, unpacked by tar")
    remove(unpacked)

    for path in (b"whose", b"hostile"):
        entry = cluster.json("backup", "ls", "b", path, "--tree", "work", "--node", "n2")
        check(entry["entries"], f"ls {path}: {entry}")
    for node in cluster.names:
        content = cluster.run("backup", "cat", "b", "whose", "--tree", "work", "--node", node).stdout
        check_equal(content, node.encode(), f"cat of {node}'s")
    ambiguous = cluster.json("restore", "b", "--tree", "work", "--to", out, expect=1)["error"]
    check("n1, n2, n3" in ambiguous and "--node" in ambiguous, ambiguous)
    check("work of n1" in cluster.json("backup", "ls", "b", "--tree", "other", expect=1)["error"], "the trees that there are")
    check("nowhere" in cluster.json("restore", "b", "--tree", "work", "--node", "n1", "--path", "nowhere", "--to", out,
                                    expect=1)["error"], "the path that is not there")
    # Whoever restores the records sees nothing of the trees.
    other = scratch.cluster("other", 1)
    done = other.json("restore", "--archive", *archives)
    check_equal((done["state"], done["records"]), ("completed", 200), "restored records")
    remove(scratch.path("trees"))


def test_narrowed(scratch):
    for name in ("one", "two"):
        scratch.path(name).mkdir()
        put(scratch.path(name) / "file", name.encode())
    cluster = scratch.cluster("c", 2, "--tree", f"one={scratch.path('one')}", "--tree", f"two={scratch.path('two')}")
    cluster.put_lines({b"key": b"value"})
    done = cluster.json("backup", "create", "--name", "all")
    check_equal(len(done["trees"]), 4, "trees of two nodes")
    done = cluster.json("backup", "create", "--name", "one", "--tree", "one", "--no-records")
    check_equal({name for name, _ in trees_of(done)}, {"one"}, "trees")
    check_equal((done["records"], done["state"]), (0, "completed"), "records")
    done = cluster.json("backup", "create", "--dry-run", "--tree", "two")
    check_equal({name for name, _ in trees_of(done)}, {"two"}, "trees of a plan")
    refused = cluster.json("backup", "create", "--name", "none", "--tree", "three", expect=1)
    check("three" in refused["error"], f"a tree that nobody has: {refused}")
    names = {backup["backup"] for backup in cluster.json("backup", "list")["backups"]}
    check_equal(names, {"all", "one"}, "backups")
    for name in ("all", "one"):
        cluster.json("backup", "delete", name)


def test_what_changes(scratch):
    """What changed since is what the next backup has; a file that never stays as it is is named, others are not."""
    tree = scratch.path("tree")
    tree.mkdir()
    source = random.Random(3)
    for i in range(50):
        (tree / f"d{i % 5}").mkdir(exist_ok=True)
        put(tree / f"d{i % 5}" / f"f{i}", source.randbytes(20_000))
    busy = tree / "busy"
    put(busy, source.randbytes(3_000_000))
    cluster = scratch.cluster("c", 2, "--slots", "64", "--tree", f"t={tree}")
    stop = threading.Event()

    def rewrite():
        with open(busy, "r+b", buffering=0) as file:
            while not stop.is_set():
                file.seek(source.randrange(2_900_000))
                file.write(source.randbytes(64))

    writer = threading.Thread(target=rewrite)
    writer.start()
    done = cluster.json("backup", "create", "--name", "first", "--no-records")
    stop.set()
    writer.join()
    for tree_of in done["trees"]:
        check_equal(tree_of["changed_while_read"], ["busy"], f"changed while they were read, of {tree_of['node']}")
    restored = cluster.json("restore", "first", "--tree", "t", "--node", "n1", "--to", scratch.path("out"))
    check_equal(restored["changed_while_read"], 1, "restored files that had changed")
    check_equal(os.path.getsize(scratch.path("out") / "busy"), 3_000_000, "size of the busy one")
    put(tree / "d1/f1", b"changed")
    (tree / "d2/f2").unlink()
    put(tree / "d3/new", b"new")
    done = cluster.json("backup", "create", "--name", "second", "--no-records")
    for tree_of in done["trees"]:
        check_equal((tree_of["changed_while_read"], tree_of["failed"], tree_of["vanished"]), ([], 0, 0), "changed and failed")
    shutil.rmtree(scratch.path("out"))
    cluster.json("restore", "second", "--tree", "t", "--node", "n2", "--to", scratch.path("out"))
    check_equal(compare(tree, scratch.path("out")), [], "differences")
    changes = cluster.json("backup", "diff", "first", "second", "--tree", "t", "--node", "n2")
    check_equal(len(changes["added"]), 1, f"added: {changes['added']}")
    check_equal(len(changes["removed"]), 1, f"removed: {changes['removed']}")


def test_a_node_that_dies(scratch):
    """Its tree is in the backup once it is back."""
    tree = scratch.path("tree")
    source = random.Random(4)
    for node in ("n1", "n2", "n3"):
        (tree / node).mkdir(parents=True)
        for i in range(30):
            put(tree / node / f"f{i}", source.randbytes(2_000_000))
    cluster = scratch.cluster("c", 3, "--slots", "16", "--tree", f"t={tree}/%n", "--limit", "n2=4MiB/s")
    running = cluster.background("backup", "create", "--name", "b")
    harness.wait_for(lambda: any(b["state"] == "enabled" for b in cluster.json("backup", "list")["backups"]), "a plan")
    cluster.kill("n2")
    cluster.start("n2")
    running.communicate(timeout=300)
    if running.returncode != 0:
        cluster.json("backup", "resume", "b")
    check_equal(cluster.json("backup", "verify", "b")["bad"], [], "bad")
    for node in cluster.names:
        out = scratch.path("out")
        cluster.json("restore", "b", "--tree", "t", "--node", node, "--to", out)
        check_equal(compare(tree / node, out), [], f"differences of {node}")
        shutil.rmtree(out)


def test_bad_trees(scratch):
    gone = scratch.path("gone")
    gone.mkdir()
    cluster = scratch.cluster("c", 1, "--tree", f"t={gone}")
    gone.rmdir()
    refused = cluster.json("backup", "create", "--name", "b", expect=1)
    check("tree t" in refused["error"] and str(gone) in refused["error"], f"a tree that is not there: {refused}")
    put(gone, b"a file")
    refused = cluster.json("backup", "create", "--name", "c", expect=1)
    check("tree t" in refused["error"], f"a tree that is a file: {refused}")
    check_equal(cluster.json("backup", "create", "--name", "d", "--tree", "t", "--dry-run", expect=1)["error"] != "", True, "said")
    gone.unlink()
    gone.mkdir()
    cluster.json("backup", "resume", "b")
    for words, said in ((["--tree", "t"], "NAME=DIR"), (["--tree", ".t=/x"], "name"),
                        (["--tree", "t=/x", "--tree", "t=/y"], "twice")):
        refused = run("local", "up", "--dir", scratch.path("d"), "--nodes", "1", *words, expect=2)
        check(said in refused.stderr.decode(), f"{words}: {refused}")
    inside = run("local", "up", "--dir", scratch.path("d"), "--nodes", "1", "--tree", f"t={scratch.path('d')}", expect=1)
    check("must be apart" in inside.stderr.decode(), f"a tree that holds the archive: {inside}")


if __name__ == "__main__":
    harness.main(globals())
