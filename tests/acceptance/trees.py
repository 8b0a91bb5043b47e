"""Trees imported over earlier imports: each file is the old or the new one, whole, whatever happens meanwhile."""

import os
import random
import threading

import harness
from harness import check, check_equal, same_tree

FILES = 6


def write_version(tree, version):
    """Files of one to four chunks with the content of a version, and some small ones."""
    tree.mkdir(exist_ok=True)
    for i in range(FILES):
        source = random.Random(f"{version} {i}")
        (tree / f"large{i}").write_bytes(source.randbytes(source.randrange(1_100_000, 4_000_000)))
        (tree / f"small{i}").write_text(f"{version} {i}")


def versions_of(tree, versions):
    """Which of the versions each file below a folder is; fails for anything else."""
    found = set()
    for name in (f"{kind}{i}" for kind in ("large", "small") for i in range(FILES)):
        content = (tree / name).read_bytes()
        match = [version for version, folder in versions.items() if (folder / name).read_bytes() == content]
        check(match, f"{name} is none of the versions {list(versions)}")
        found.add(match[0])
    return found


def test_imports_that_are_killed(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    versions = {version: scratch.path(version) for version in ("old", "new")}
    for version, folder in versions.items():
        write_version(folder, version)
    whole = cluster.json("record", "import", "--tree", versions["new"])["records"]
    cluster.json("record", "import", "--tree", versions["old"])
    begun = harness.time.monotonic()
    cluster.json("record", "import", "--tree", versions["old"])
    usual = harness.time.monotonic() - begun
    seen = set()
    for share in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9):
        process = cluster.background("record", "import", "--tree", versions["new"])
        try:
            process.wait(usual * share)
        except harness.subprocess.TimeoutExpired:
            pass
        process.kill()
        process.communicate()
        out = scratch.path(f"out-{share}")
        cluster.json("record", "export", "--tree", out)
        seen |= versions_of(out, versions)
    check(seen, "nothing was exported")
    done = cluster.json("record", "import", "--tree", versions["new"])
    check_equal(done["failed"], 0, "failed")
    check_equal(cluster.json("record", "count")["count"], whole, "records once an import was not killed")
    done = cluster.json("record", "export", "--tree", scratch.path("out"))
    check_equal(same_tree(versions["new"], scratch.path("out")), [], "differences")
    check_equal((done["records"], done["skipped"]), (whole, 0), "records exported and skipped")


def test_a_node_that_dies_during_an_import(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    versions = {version: scratch.path(version) for version in ("old", "new")}
    for version, folder in versions.items():
        write_version(folder, version)
    cluster.json("record", "import", "--tree", versions["old"])
    process = cluster.background("record", "import", "--tree", versions["new"])
    cluster.kill("n2")
    process.communicate(timeout=120)
    cluster.start("n2")
    cluster.json("record", "export", "--tree", scratch.path("out"))
    versions_of(scratch.path("out"), versions)
    cluster.json("record", "import", "--tree", versions["new"])
    cluster.json("record", "export", "--tree", scratch.path("again"))
    check_equal(same_tree(versions["new"], scratch.path("again")), [], "differences")


def test_a_file_that_grows(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    tree = scratch.path("tree")
    write_version(tree, "old")
    # Large enough that it grows while each attempt reads it, however busy the machine is.
    (tree / "large0").write_bytes(os.urandom(32_000_000))
    cluster.json("record", "import", "--tree", tree)
    records = cluster.json("record", "count")["count"]
    before = (tree / "large0").read_bytes()
    stop = threading.Event()

    def grow():
        with open(tree / "large0", "ab") as file:
            while not stop.is_set():
                file.write(b"more")
                file.flush()
    writer = threading.Thread(target=grow)
    writer.start()
    try:
        value = cluster.json("record", "import", "--tree", tree, expect=1)
    finally:
        stop.set()
        writer.join()
    check("large0" in value["error"] and value["failed"] == 1, str(value))
    check_equal(cluster.json("record", "count")["count"], records, "records after the attempts at the file")
    cluster.json("record", "export", "--tree", scratch.path("out"))
    check(scratch.path("out/large0").read_bytes() == before, "the version that was imported before is not exported")


def test_imports_and_exports_at_the_same_time(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    versions = {version: scratch.path(version) for version in ("one", "two")}
    for version, folder in versions.items():
        write_version(folder, version)
    cluster.json("record", "import", "--tree", versions["one"])
    running = [cluster.background("record", "import", "--tree", folder) for folder in versions.values()]
    exports = 0
    while any(process.poll() is None for process in running) or exports == 0:
        out = scratch.path(f"out{exports}")
        cluster.json("record", "export", "--tree", out)
        versions_of(out, versions)
        exports += 1
    for process in running:
        stdout, stderr = process.communicate()
        check_equal(process.returncode, 0, f"an import: {stdout} {stderr}")
    cluster.json("record", "export", "--tree", scratch.path("out"))
    versions_of(scratch.path("out"), versions)


def test_programs_of_other_owners(scratch):
    if os.geteuid() != 0:
        return
    cluster = scratch.cluster("c", 1)
    tree = scratch.path("tree")
    tree.mkdir()
    for name, owner in (("own", 0), ("users", 12345)):
        (tree / name).write_text("program")
        os.chown(tree / name, owner, owner)
        os.chmod(tree / name, 0o6755)
    cluster.json("record", "import", "--tree", tree)
    done = cluster.json("record", "export", "--tree", scratch.path("out"))
    check_equal(done["not_set"]["set_id"], 0, "bits that were not set")
    found = [os.lstat(scratch.path("out") / name) for name in ("own", "users")]
    check_equal([(info.st_uid, info.st_mode & 0o7777) for info in found], [(0, 0o6755), (12345, 0o6755)],
                "owners and modes of a program of root and one of a user")


if __name__ == "__main__":
    harness.main(globals())
