"""The files of backups without restoring them: as an archive for tar, and as a file system (needs root and FUSE)."""

import errno
import os
import random
import shutil
import subprocess
import tarfile

import harness
from harness import check, check_equal, environment, run, run_json, wait_for
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


def damage(part):
    """Flips a byte of every block of a part's first segment; done twice, nothing is damaged."""
    segment = part / "segment-00000"
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


def no_fuse():
    """Why nothing can be mounted here; empty where it can."""
    if not ROOT:
        return "mounting needs root"
    return "" if os.path.exists("/dev/fuse") else "this system has no /dev/fuse"


class Mount:
    """Backups at a directory, while the block runs."""

    def __init__(self, directory, *words, cluster=None):
        self.directory = directory
        directory.mkdir(exist_ok=True)
        command = [harness.PROGRAM, *(["--cluster", cluster] if cluster else []), "backup", "mount", str(directory), *map(str, words)]
        self.server = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment())  # pylint: disable=consider-using-with
        self.said = self.server.stderr.readline()

    def __enter__(self):
        if b"sluice: backups are in " not in self.said:
            check(False, f"what it says first: {self.said + self.server.stderr.read()}")
        return self

    def ended(self, code=0):
        check_equal(self.server.wait(60), code, "exit code of a mount")
        check(not os.path.ismount(self.directory) and os.listdir(self.directory) == [], "it is mounted still")
        self.said += self.server.stderr.read()
        return self.said.decode()

    def __exit__(self, kind, *_):
        if kind is None and self.server.poll() is None:
            self.server.terminate()
            self.ended()
        subprocess.run(["umount", "--lazy", self.directory], stderr=subprocess.DEVNULL, check=False)
        self.server.kill()
        self.server.wait()
        self.server.stderr.close()


def fails_with(number, call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return error.errno == number
    return False


def check_mounted(root, tree):
    """All that is below a backup's directory."""
    differences = compare(tree, root / "tree")
    check(not differences, "mounted:\n" + "\n".join(differences[:40]))
    check_equal(sorted(os.listdir(os.fsencode(root))), [b"plain", b"top", b"tree"], "the root of a backup")
    check_equal(((root / "top").read_bytes(), (root / "plain/deep/b").read_bytes()), (b"a value", b"22"), "records")
    for below in ("links", "attributes"):
        subprocess.run(["diff", "-r", "--no-dereference", tree / below, root / "tree" / below], check=True)
    check(fails_with(errno.EROFS, os.mkdir, root / "new") and fails_with(errno.EROFS, os.unlink, root / "top")
          and fails_with(errno.EROFS, open, root / "top", "ab"), "it can be written to")
    check(fails_with(errno.ENOENT, os.stat, root / "none") and fails_with(errno.ENOTDIR, os.stat, root / "top/none"), "names")
    with open(root / "tree/links/large", "rb") as mounted, open(tree / "links/large", "rb") as file:
        for offset in (2_999_990, 0, 1_500_000, 1_015_807, 1_015_808):
            mounted.seek(offset)
            file.seek(offset)
            check(mounted.read(5000) == file.read(5000), f"content at {offset}")


def test_mounted_backups(scratch):
    if no_fuse():
        print(f"skipped: {no_fuse()}")
        return
    cluster = scratch.cluster("c", 3, "--slots", "64")
    tree = scratch.path("tree")
    hostile_tree(tree)
    cluster.json("record", "import", "--tree", tree, "--prefix", b"tree/")
    cluster.put_lines(PLAIN)
    cluster.json("backup", "create", "--name", "one")
    point = scratch.path("mounted")
    with Mount(point, cluster=cluster.url) as mounted:
        check_equal(os.listdir(point), ["one"], "backups")
        check_mounted(point / "one", tree)
        # Another backup comes, with many names in one directory, and goes.
        names = {b"many/%06d" % i: b"%d" % i for i in range(30_000)}
        cluster.put_lines(names)
        cluster.json("backup", "create", "--name", "two")
        wait_for(lambda: sorted(os.listdir(point)) == ["one", "two"], "another backup")
        listed = sorted(os.listdir(os.fsencode(point / "two/many")))
        check_equal(listed, [name[5:] for name in names], "many names")
        check_equal((point / "two/many/012345").read_bytes(), b"12345", "one of many")
        cluster.json("backup", "delete", "two")
        wait_for(lambda: os.listdir(point) == ["one"], "a backup is gone")
        # A file that is open does not keep it mounted.
        with open(point / "one/top", "rb"):
            mounted.server.terminate()
            said = mounted.ended()
        check("keys are not shown" in said and said.count("backup one: ") == 1, f"what it says: {said}")
    with Mount(point, cluster=cluster.url) as mounted:
        check_equal((point / "one/top").read_bytes(), b"a value", "a record")
        subprocess.run(["umount", point], check=True)
        mounted.ended()
    cluster.json("backup", "create", "--name", "three")
    run("local", "down", "--dir", cluster.folder)
    with Mount(point, "--archive", *archives(cluster, "one"), *archives(cluster, "three")):
        check_equal(sorted(os.listdir(point)), ["one", "three"], "backups of directories")
        check_mounted(point / "one", tree)
        check_equal(len(os.listdir(point / "three/many")), 30_000, "many names")

    missing = archives(cluster, "one")[:2]
    failed = run_json("backup", "mount", point, "--archive", *missing, expect=1)
    check("n3" in failed["error"] and "one" in failed["error"], f"a part that is missing: {failed}")
    for directory, text in ((scratch.path("none"), "No such file"), (tree / "links/first", "not a directory")):
        failed = run_json("backup", "mount", directory, "--archive", *archives(cluster, "one"), expect=1)
        check(f"cannot mount on {directory}" in failed["error"] and text in failed["error"], f"{failed}")
    remove(tree)


def test_damage_in_a_mounted_backup(scratch):
    if no_fuse():
        print(f"skipped: {no_fuse()}")
        return
    cluster = scratch.cluster("c", 2, "--slots", "16")
    tree = scratch.path("tree")
    tree.mkdir()
    source = random.Random(6)
    for i in range(200):
        (tree / f"{i}").write_bytes(source.randbytes(30_000))
    large = source.randbytes(20 << 20)
    (tree / "large").write_bytes(large)
    cluster.json("record", "import", "--tree", tree, "--prefix", "t/")
    cluster.json("backup", "create", "--name", "one")
    parts = archives(cluster, "one")
    place = 10 << 20
    for path in (path for part in parts for path in part.glob("segment-*")):
        content = bytearray(path.read_bytes())
        at = content.find(large[place:place + 64])
        if at >= 0:
            content[at] ^= 1
            path.write_bytes(content)
    point = scratch.path("mounted")
    with Mount(point, cluster=cluster.url) as mounted:
        check_damaged(mounted, tree, large)
    run("local", "down", "--dir", cluster.folder)
    with Mount(point, "--archive", *parts) as mounted:
        check_damaged(mounted, tree, large)


def check_damaged(mounted, tree, large):
    """Of a file one chunk is damaged: each read has the right bytes or fails, and few fail."""
    root = mounted.directory / "one/t"
    wrong, failed = [], []
    for path in sorted(tree.iterdir()):
        try:
            if (root / path.name).read_bytes() != path.read_bytes():
                wrong.append(path.name)
        except OSError as error:
            check_equal(error.errno, errno.EIO, f"error of {path.name}")
            failed.append(path.name)
    check_equal(wrong, [], "files with other bytes")
    check("large" in failed and len(failed) < 60, f"files that fail: {failed}")
    # What is elsewhere in the file is read.
    good = 0
    with open(root / "large", "rb", buffering=0) as file:
        for offset in range(0, len(large), 1 << 20):
            try:
                check(os.pread(file.fileno(), 4096, offset) == large[offset:offset + 4096], f"other bytes at {offset}")
                good += 1
            except OSError as error:
                check_equal(error.errno, errno.EIO, f"error at {offset}")
    check(15 <= good < 20, f"pieces of the file that are read: {good}")
    mounted.server.terminate()
    said = mounted.ended()
    check("segment-0" in said and said.count("one/t/large: ") == 1, f"what it says: {said}")


if __name__ == "__main__":
    harness.main(globals())
