"""The files of backups without restoring them: as an archive for tar."""

import os
import random
import shutil
import subprocess
import tarfile

import harness
from harness import check, check_equal, run, run_json
from tree_compare import compare
from tree_round_trips import ROOT, hostile_tree, remove

PLAIN = {b"top": b"a value", b"plain/a": b"1", b"plain/deep/b": b"22", b"../up": b"x", b"plain//twice": b"y"}


def tar(*words, into=None, stdin=None):
    """What GNU tar prints; it must succeed without a word."""
    done = subprocess.run(["tar", "--warning=no-timestamp", *words, *(["-C", into] if into else [])], stdin=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False)
    check(done.returncode == 0 and not done.stderr, f"tar {words}: {done.returncode}, {done.stderr}")
    return done.stdout


def extract(into, *words, stdin=None):
    into.mkdir()
    tar("-x", "-p", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", *words, into=into, stdin=stdin)


def names_in(archive):
    """The names that tar lists, as bytes, in order."""
    listed = tar("-t", "--quoting-style=c", "-f", archive)
    return [line[1:-1].decode("unicode_escape").encode("latin-1").removesuffix(b"/") for line in listed.splitlines()]


def found_in(tree, prefix):
    """What find prints of a tree below the prefix; sockets are not kept."""
    found = subprocess.run(["find", ".", "!", "-type", "s", "-print0"], cwd=tree, stdout=subprocess.PIPE, check=True)
    paths = found.stdout.removesuffix(b"\0").split(b"\0")
    return sorted((prefix + path[1:] if path != b"." else prefix) for path in paths)


def archives(cluster, name):
    return [cluster.folder / f"{node}-archive" / name for node in cluster.names]


def damage(folder):
    """Flips a byte of every block of a part's first segment; done twice, nothing is damaged."""
    segment = folder / "segment-00000"
    content = bytearray(segment.read_bytes())
    for place in range(200, len(content), 4096):
        content[place] ^= 1
    segment.write_bytes(content)


def regular_files(tree):
    """Names of regular files, and the bytes of data of each file once."""
    names, data = 0, {}
    for directory, _, files in os.walk(os.fsencode(tree)):
        for name in files:
            info = os.lstat(os.path.join(directory, name))
            if os.path.isfile(os.path.join(directory, name)) and not os.path.islink(os.path.join(directory, name)):
                names += 1
                data[info.st_ino] = info
    return names, data


def check_archive(scratch, tree, file, prefix):
    """An archive against the tree: names, order, and all that a file system keeps."""
    names = names_in(file)
    check_equal(sorted(names), found_in(tree, prefix), f"names in {file}")
    seen = set()
    for name in names:
        above = os.path.dirname(name)
        check(above in seen or not above or not name.startswith(prefix + b"/"), f"{name} before its directory")
        seen.add(name)
    check(os.path.getsize(file) < 40 << 20, f"holes take room: {os.path.getsize(file)} bytes")
    out = scratch.path("out")
    extract(out, "-f", file)
    without = () if ROOT else ("owner",)
    differences = compare(tree, os.path.join(os.fsencode(out), prefix), without)
    check(not differences, "extracted:\n" + "\n".join(differences[:40]))
    remove(out)


def check_python(tree, file, prefix):
    """Another reader: names, kinds, sizes, and links after their files."""
    files = set()
    with tarfile.open(file, encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            path = os.fsencode(tree) + os.fsencode(member.name)[len(prefix):]
            if len(path) > 4000:
                continue
            info = os.lstat(path)
            if member.islnk():
                check(member.linkname in files, f"{member.name} comes before {member.linkname}")
                continue
            files.add(member.name)
            if member.isfile() or member.issparse():
                check_equal(member.size, info.st_size, f"size of {member.name}")
            check_equal(member.mode, 0o777 if member.issym() else info.st_mode & 0o7777, f"mode of {member.name}")
            check(abs(member.mtime - info.st_mtime) < 1e-3 * max(1, abs(info.st_mtime) / 1e9), f"time of {member.name}")


def test_hostile_tree_as_an_archive(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    tree = scratch.path("tree")
    hostile_tree(tree)
    cluster.json("record", "import", "--tree", tree, "--prefix", b"tree/")
    cluster.put_lines(PLAIN)
    cluster.json("backup", "create", "--name", "one")
    file = scratch.path("one.tar")

    answer = cluster.json("backup", "export", "one", "--tar", file)
    names, _ = regular_files(tree)
    check_equal(answer["files"], names, "files")
    check_equal(answer["records_left_out"], len(PLAIN), "records left out")
    check_equal(answer["superseded"], 0, "superseded")
    check_equal(answer["directories"], sum(1 for _ in os.walk(os.fsencode(tree))), "directories")
    check(answer["links"] > 3 and answer["hard_links"] == 4 and answer["bytes"] > 6_000_000, f"{answer}")
    check_archive(scratch, tree, file, b"tree")
    check_python(tree, file, b"tree")
    whole = file.read_bytes()

    # The same bytes whoever is asked, and to stdout.
    again = cluster.run("backup", "export", "one", "--tar", "-")
    check(again.stdout == whole, "another archive on stdout")
    check(b"left out 5 records that are not entries" in again.stderr, f"what it says: {again.stderr}")
    cluster.json("backup", "export", "one", "--tar", "-", expect=2)

    # A part of it: a name whose file is elsewhere becomes a file.
    part = scratch.path("part.tar")
    cluster.json("backup", "export", "one", "--tar", part, "--path", b"tree/links/zz")
    check_equal(names_in(part), [b"tree/links/zz" + rest for rest in (b"", b"/first", b"/large", b"/loop")], "a part")
    out = scratch.path("out")
    extract(out, "-f", part)
    for name in ("first", "large"):
        check((out / "tree/links/zz" / name).read_bytes() == (tree / "links/zz" / name).read_bytes(), f"content of {name}")
    remove(out)
    failed = cluster.json("backup", "export", "one", "--tar", part, "--path", "tree/none", expect=1)
    check("'tree/none' is not in backup one" in failed["error"], f"a path that is not there: {failed}")
    for words in (("export", "none", "--tar", part), ("export", "--tar", part), ("export", "one"),
                  ("export", "one", "--archive", "x", "--tar", part)):
        cluster.json("backup", *words, expect=1 if "none" in words else 2)

    run("local", "down", "--dir", cluster.folder)
    alone = scratch.path("alone.tar")
    answer = run_json("backup", "export", "--archive", *archives(cluster, "one"), "--tar", alone)
    check(alone.read_bytes() == whole and answer["records_left_out"] == len(PLAIN), "another archive of the directories")
    remove(tree)


def test_trees_without_a_prefix_and_left_overs(scratch):
    """A tree at the root, and entries of earlier imports below what is a file now."""
    cluster = scratch.cluster("c", 1, "--slots", "16")
    tree = scratch.path("tree")
    for name in ("a/b", "z"):
        (tree / name).mkdir(parents=True)
    (tree / "a/b/file").write_bytes(b"old")
    os.link(tree / "a/b/file", tree / "z/name")
    cluster.json("record", "import", "--tree", tree)
    shutil.rmtree(tree / "a/b")
    (tree / "a/b").write_bytes(b"a file now")
    os.link(tree / "a/b", tree / "a/c")
    cluster.json("record", "import", "--tree", tree)
    cluster.json("backup", "create", "--name", "one")
    file = scratch.path("one.tar")
    answer = cluster.json("backup", "export", "one", "--tar", file)
    check_equal(names_in(file), [b".", b"a", b"a/b", b"a/c", b"z", b"z/name"], "names")
    check_equal((answer["superseded"], answer["records_left_out"], answer["files"]), (1, 0, 3), "counts")
    out = scratch.path("out")
    extract(out, "-f", file)
    differences = compare(tree, out)
    check(not differences, "\n".join(differences))


def test_damage_leaves_no_archive(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "16")
    tree = scratch.path("tree")
    tree.mkdir()
    source = random.Random(5)
    for i in range(300):
        (tree / f"{i}").write_bytes(source.randbytes(20_000))
    (tree / "large").write_bytes(source.randbytes(20 << 20))
    cluster.json("record", "import", "--tree", tree, "--prefix", "t/")
    cluster.json("backup", "create", "--name", "one")
    run("local", "down", "--dir", cluster.folder)
    parts = archives(cluster, "one")
    file = scratch.path("dir") / "one.tar"
    file.parent.mkdir()
    file.write_bytes(b"what was there")
    damage(parts[1])
    failed = run_json("backup", "export", "--archive", *parts, "--tar", file, expect=3)
    check("segment-00000" in failed["error"], f"where: {failed}")
    check(file.read_bytes() == b"what was there" and os.listdir(file.parent) == ["one.tar"], "an archive of damage")
    # One chunk of the large file alone: on stdout the archive breaks off.
    damage(parts[1])
    segments = sorted(path for part in parts for path in part.glob("segment-*"))
    needle = (tree / "large").read_bytes()[15 << 20:(15 << 20) + 64]
    for path in segments:
        content = bytearray(path.read_bytes())
        place = content.find(needle)
        if place >= 0:
            content[place] ^= 1
            path.write_bytes(content)
            break
    else:
        check(False, "the chunk is in no segment")
    broken = run("backup", "export", "--archive", *parts, "--tar", "-", expect=3)
    check(not broken.stdout.endswith(bytes(1024)), "an end of the archive")
    run_json("backup", "export", "--archive", *parts, "--tar", file, expect=3)
    check(os.listdir(file.parent) == ["one.tar"], "an archive of damage")


if __name__ == "__main__":
    harness.main(globals())
