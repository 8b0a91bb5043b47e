"""Looking into backups without restoring them: ls, find, cat and diff, by name and with --archive."""

import base64
import os
import random
import re
import stat
import subprocess

import harness
from harness import check, check_equal, environment, run, run_json

PREFIX = b"tree/"
ODD = b"odd \xff\x80 name\n"
LARGE = 5 << 20
PLAIN = {b"top": b"a value", b"plain/a": b"1", b"plain/deep/b": b"22", b"plain/\xfe": b"\0\xff", b"plain/same": b"same",
         b"plain/large": random.Random(5).randbytes(3 << 20)}
TYPES = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symlink", stat.S_IFIFO: "pipe"}


def write(path, content, mtime=None):
    path = os.fsencode(path)
    with open(path, "wb") as file:
        file.write(content)
    if mtime is not None:
        os.utime(path, ns=(mtime, mtime))


def make_tree(root):
    """Hard links, a symbolic link, a hole, a file of several chunks, a pipe, and names that are not UTF-8."""
    source = random.Random(11)
    for name in (b"", b"/sub", b"/sub/deeper", b"/empty", b"/" + ODD):
        os.mkdir(os.fsencode(root) + name)
    root = os.fsencode(root)
    write(root + b"/small", b"small content", 1_600_000_000_123_456_789)
    write(root + b"/nothing", b"")
    write(root + b"/sub/large", source.randbytes(LARGE))
    write(root + b"/sub/deeper/file", b"deep")
    write(root + b"/" + ODD + b"/\xe9t\xe9", b"in an odd place")
    os.chmod(root + b"/small", 0o4751)
    os.link(root + b"/sub/large", root + b"/another name")
    os.symlink(b"sub/large", root + b"/link")
    os.mkfifo(root + b"/pipe", 0o600)
    with open(root + b"/hole", "wb") as file:
        file.seek(3 << 20)
        file.write(source.randbytes(100_000))
        file.truncate(7 << 20)


def walk(root):
    """All paths below the root, by their keys: the file system's path and what lstat() says."""
    root = os.fsencode(root)
    found = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            found[PREFIX + os.path.relpath(path, root)] = (path, os.lstat(path))
    return found


def entries_of(answer):
    check(answer["truncated"] is False, f"truncated: {answer}")
    entries = {base64.b64decode(entry["path_b64"]): entry for entry in answer["entries"]}
    check_equal(len(entries), len(answer["entries"]), "paths, each once")
    return entries


def paths(entries):
    return {base64.b64decode(entry["path_b64"]) for entry in entries}


class Backup:
    """One backup, asked by name or as directories."""

    def __init__(self, cluster, name, archives=None):
        self.cluster, self.name, self.archives = cluster, name, archives

    def words(self, path):
        if self.archives is None:
            return [self.name] + ([path] if path else [])
        return (["--archive", *self.archives] + (["--", path] if path else []))

    def json(self, command, path=b"", *options, expect=0):
        words = ["backup", command, *options, *self.words(path)]
        if self.archives is None:
            return self.cluster.json(*words, expect=expect)
        return run_json(*words, expect=expect)

    def run(self, command, path=b"", *options, expect=0):
        words = ["backup", command, *options, *self.words(path)]
        return run(*words, expect=expect, cluster=self.cluster.url if self.archives is None else None)


def archives(cluster, name):
    return [cluster.folder / f"{node}-archive" / name for node in cluster.names]


def check_entry(entry, path, info, linked):
    """An entry against lstat(). Of a file's names one is the file and the others are hard links."""
    kind = TYPES[stat.S_IFMT(info.st_mode)]
    if kind == "file" and info.st_nlink > 1:
        linked.setdefault(info.st_ino, []).append(entry["type"])
    else:
        check_equal(entry["type"], kind, f"type of {path}")
    check_equal(entry["mode"], 0o777 if kind == "symlink" else stat.S_IMODE(info.st_mode), f"mode of {path}")
    check_equal(entry["mtime_ns"], info.st_mtime_ns, f"time of {path}")
    check_equal(entry["size"], info.st_size if kind in ("file", "symlink") else 0, f"size of {path}")
    check(entry["node"] in ("n1", "n2", "n3"), f"node of {path}: {entry}")


def check_contents(backup, tree):
    """ls and find of every directory, and cat of every file, against the file system."""
    files = walk(tree)
    linked = {}
    for folder in [b""] + [key[len(PREFIX):] for key, (_, info) in files.items() if stat.S_ISDIR(info.st_mode)]:
        listed = entries_of(backup.json("ls", (PREFIX + folder).rstrip(b"/")))
        base = PREFIX + folder + (b"/" if folder else b"")
        wanted = {key for key in files if key.startswith(base) and b"/" not in key[len(base):]}
        check_equal(set(listed), wanted, f"ls {folder}")
        for key, entry in listed.items():
            check_entry(entry, key, files[key][1], linked)
    check_equal([sorted(types) for types in linked.values()], [["file", "hardlink"]], "names of one file")
    found = entries_of(backup.json("find", PREFIX.rstrip(b"/")))
    check_equal(set(found), set(files) | {b"tree"}, "find tree")
    for key, (_, info) in files.items():
        check_entry(found[key], key, info, {})
    for key, (path, info) in files.items():
        if not stat.S_ISREG(info.st_mode):
            continue
        with open(path, "rb") as file:
            check(backup.run("cat", key).stdout == file.read(), f"cat {key}: another content")


def check_records(backup, plain):
    root = entries_of(backup.json("ls"))
    check_equal({path: entry["type"] for path, entry in root.items()},
                {b"top": "record", b"plain": "prefix", b"tree": "directory"}, "ls")
    below = entries_of(backup.json("ls", b"plain/"))
    check_equal({path: entry["type"] for path, entry in below.items()},
                {path: "record" for path in plain if path.startswith(b"plain/") and path.count(b"/") == 1}
                | {b"plain/deep": "prefix"}, "ls plain/")
    check_equal(below[b"plain/a"] | {"node": ""},
                {"path_b64": base64.b64encode(b"plain/a").decode(), "type": "record", "size": 1, "mode": None,
                 "mtime_ns": None, "node": ""}, "entry of a record")
    check_equal(set(entries_of(backup.json("find", b"", "--type", "record"))), set(plain), "find --type record")
    for key, value in plain.items():
        check(backup.run("cat", key).stdout == value, f"cat {key}: another value")


def check_choices(scratch, backup):
    """Options of find and cat, and how they fail."""
    files = set(entries_of(backup.json("find", b"tree", "--type", "file")))
    check(len(files) == 6 and len(files & {b"tree/sub/large", b"tree/another name"}) == 1, f"find --type: {files}")
    check_equal(set(entries_of(backup.json("find", b"tree", "--type", "file", "--name", "*l*"))),
                {path for path in files if b"l" in path.rsplit(b"/")[-1]}, "find --name --type")
    check_equal(entries_of(backup.json("find", b"tree", "--name", "no such name")), {}, "find --name")
    raw = backup.run("find", b"tree/" + ODD, "--print0").stdout
    check_equal(set(raw.split(b"\0")), {b"tree/" + ODD, b"tree/" + ODD + b"/\xe9t\xe9", b""}, "find --print0")
    some = backup.json("find", b"tree", "--limit", "3")
    check(some["truncated"] is True and len(some["entries"]) == 3, f"find --limit: {some}")
    lines = backup.run("ls", b"tree").stdout.decode().splitlines()
    check(any(line.startswith("symlink ") and line.endswith("  link -> sub/large") for line in lines), f"ls tree: {lines}")
    check(any(line.startswith("directory ") and line.endswith("  sub/") for line in lines), f"ls tree: {lines}")
    itself = backup.json("ls", b"tree/small")
    check_equal(paths(itself["entries"]), {b"tree/small"}, "ls of a file")
    check_equal(entries_of(backup.json("ls", b"tree/empty")), {}, "ls of an empty directory")

    out = scratch.path("out")
    answer = backup.json("cat", b"tree/sub/large", "--out", out)
    check_equal((answer["type"] in ("file", "hardlink"), answer["bytes"], out.stat().st_size), (True, LARGE, LARGE), "cat --out")
    out.unlink()
    for path, text in ((b"tree/link", "a symbolic link to 'sub/large'"), (b"tree/sub", "a directory"), (b"tree", "a directory"),
                       (b"tree/pipe", "a pipe"), (b"tree/none", "'tree/none' is not in backup one")):
        failed = backup.json("cat", path, "--out", out, expect=1)
        check(text in failed["error"] and not out.exists(), f"cat {path}: {failed}")
    for command in ("ls", "find"):
        failed = backup.json(command, b"tree/none", expect=1)
        check("'tree/none' is not in backup one" in failed["error"], f"{command}: {failed}")
    for words in (("ls", b"plain/gone"), ("cat", b"plain/gone", "--out", out)):
        backup.json(*words, expect=1)
    backup.json("cat", b"top", expect=2)
    backup.json("find", b"", "--type", "folder", expect=2)
    backup.json("find", b"", "--name", "a/b", expect=2)


def check_difference(answer, added, removed, changed):
    for name, wanted in (("added", added), ("removed", removed), ("changed", changed)):
        check_equal(paths(answer[name]), wanted, name)
    check(answer["truncated"] is False, f"truncated: {answer}")
    for entry in answer["changed"]:
        check(entry["before"]["path_b64"] == entry["path_b64"], f"what it was before: {entry}")


def damage(folder):
    """Flips a byte of every block of a part's first segment; done twice, nothing is damaged."""
    segment = folder / "segment-00000"
    content = bytearray(segment.read_bytes())
    for place in range(200, len(content), 4096):
        content[place] ^= 1
    segment.write_bytes(content)
    return segment


def test_looking_into_backups(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    tree = scratch.path("tree")
    make_tree(tree)
    cluster.json("record", "import", "--tree", tree, "--prefix", PREFIX)
    cluster.put_lines(PLAIN | {b"plain/gone": b"x", b"gone/away": b"x"})
    cluster.run("record", "delete", b"plain/gone")
    cluster.run("record", "delete", b"gone/away")
    cluster.json("backup", "create", "--name", "one")
    one = Backup(cluster, "one")
    check_contents(one, tree)
    check_records(one, PLAIN)
    check_choices(scratch, one)

    # What was put again as it was is not a difference, and neither is a file that was imported again.
    root = os.fsencode(tree)
    write(root + b"/small", b"other content")
    write(root + b"/sub/new", b"new")
    write(root + b"/sub/large", random.Random(12).randbytes(LARGE))
    os.unlink(root + b"/sub/deeper/file")
    cluster.json("record", "import", "--tree", tree, "--prefix", PREFIX, "--mirror")
    cluster.put_lines({b"plain/same": PLAIN[b"plain/same"], b"plain/a": b"2", b"plain/c": b"3"})
    cluster.run("record", "delete", b"top")
    cluster.json("backup", "create", "--name", "two")
    changed = {b"tree/small", b"tree/sub/large", b"tree/another name", b"tree/sub", b"tree/sub/deeper", b"plain/a"}
    added, removed = {b"tree/sub/new", b"plain/c"}, {b"tree/sub/deeper/file", b"top"}
    difference = cluster.json("backup", "diff", "one", "two")
    check_difference(difference, added, removed, changed)
    check_difference(cluster.json("backup", "diff", "two", "one"), removed, added, changed)
    check_difference(cluster.json("backup", "diff", "one", "two", "--prefix", "plain/"), {b"plain/c"}, set(), {b"plain/a"})
    same = cluster.json("backup", "diff", "one", "one")
    check_difference(same, set(), set(), set())
    check_equal(same["slots_read"], 0, "slots read of equal backups")
    lines = cluster.run("backup", "diff", "one", "two", "--prefix", "plain/").stdout
    check_equal(lines, b"~ plain/a\n+ plain/c\n", "lines of a difference")
    some = cluster.json("backup", "diff", "one", "two", "--limit", "2")
    check(some["truncated"] is True and sum(len(some[name]) for name in ("added", "removed", "changed")) == 2, f"{some}")

    for words in (("ls", "none"), ("find", "none"), ("cat", "none", "top", "--out", scratch.path("out")),
                  ("diff", "one", "none")):
        failed = cluster.json("backup", *words, expect=1)
        check("none" in failed["error"], f"{words}: {failed}")
    check_deleted_backup(cluster)

    # A holder that is gone, and damage, by name.
    cluster.kill("n2")
    failed = cluster.json("backup", "ls", "two", "tree", expect=1)
    check("n2" in failed["error"], f"without n2: {failed}")
    cluster.start("n2")
    node = difference["added"][0]["node"]
    part = cluster.folder / f"{node}-archive" / "two"
    segment = damage(part)
    for words in (("ls", "two", "tree"), ("find", "two"), ("diff", "one", "two")):
        failed = cluster.json("backup", *words, expect=3)
        check(re.search(rf"{node}: {segment} at \d+, slot \d+: ", failed["error"]), f"{words} of a damaged part: {failed}")

    # Without the cluster.
    run("local", "down", "--dir", cluster.folder)
    alone = Backup(cluster, "one", archives(cluster, "one"))
    check_records(alone, PLAIN)
    check_choices(scratch, alone)
    failed = run_json("backup", "ls", "--archive", *archives(cluster, "two"), expect=3)
    check(re.search(rf"{segment} at \d+, slot \d+: ", failed["error"]), f"ls of a damaged part: {failed}")
    damage(part)
    check_contents(Backup(cluster, "two", archives(cluster, "two")), tree)
    check_difference(run_json("backup", "diff", "--archive", *archives(cluster, "one"), "--with", *archives(cluster, "two")),
                     added, removed, changed)
    failed = run_json("backup", "ls", "--archive", archives(cluster, "one")[0], expect=1)
    check("n2" in failed["error"] and "n3" in failed["error"], f"parts that are missing: {failed}")
    for words in (("ls",), ("cat", "--out", "x"), ("cat", "--out", "x", "--archive", *archives(cluster, "one")),
                  ("diff", "one"), ("ls", "one", "path", "--archive", archives(cluster, "one")[0])):
        run_json("backup", *words, expect=2)


def check_deleted_backup(cluster):
    """A backup that is not completed (its deletion has begun) shows nothing."""
    cluster.json("backup", "create", "--name", "half")
    cluster.kill("n3")
    cluster.json("backup", "delete", "half", expect=1)
    for words in (("ls", "half"), ("find", "half"), ("cat", "half", "plain/a", "--out", "x"), ("diff", "half", "one")):
        refused = cluster.json("backup", *words, expect=1)
        check("half" in refused["error"] and "delet" in refused["error"], f"{words} of a deleted backup: {refused}")
    cluster.start("n3")


def test_a_reader_that_goes_away(scratch):
    """Output that nobody reads ends the command without a word."""
    cluster = scratch.cluster("c", 1, "--slots", "16")
    cluster.put_lines({b"key/%06d" % i: b"value" for i in range(20_000)})
    cluster.json("backup", "create", "--name", "many")
    command = [harness.PROGRAM, "--cluster", cluster.url, "backup", "find", "many"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as reading:
        check(reading.stdout.readline().startswith(b"key/"), "the first line")
        reading.stdout.close()
        check_equal(reading.stderr.read(), b"", "what it says")
        check_equal(reading.wait(60), 1, "exit code")
    lines = cluster.run("backup", "find", "many").stdout.splitlines()
    check_equal(sorted(lines), [b"key/%06d" % i for i in range(20_000)], "all lines")
    listed = cluster.run("backup", "ls", "many").stdout.splitlines()
    check(len(listed) == 1 and listed[0].endswith(b"key/"), f"ls of the root: {listed}")
    listed = [line.split()[-1] for line in cluster.run("backup", "ls", "many", "key").stdout.splitlines()]
    check_equal(listed, [b"%06d" % i for i in range(20_000)], "ls, sorted")


if __name__ == "__main__":
    harness.main(globals())
