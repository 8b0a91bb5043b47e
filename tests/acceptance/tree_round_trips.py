"""Directory trees with everything that a file system keeps, through import, backup, loss, restore and export."""

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys

import harness
from harness import check, check_equal
from tree_compare import compare

NOBODY = 65534
ROOT = os.geteuid() == 0
# cap_net_raw, effective and permitted.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


def access_list(user_permissions):
    """An access control list with an entry for a user, as the kernel has it."""
    none = 0xFFFFFFFF
    entries = [(1, 6, none), (2, user_permissions, NOBODY), (4, 4, none), (0x10, 6, none), (0x20, 0, none)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def put(path, content=b"x"):
    with open(path, "wb") as file:
        file.write(content)


def names_of_all_bytes(root):
    for byte in range(1, 256):
        if byte not in (0x2F, 0x2E):
            put(root + b"/" + bytes([byte]), bytes([byte]))
    for name in (b"\n", b"a\nb", b"-rf", b"--help", b"...", b"\xff\xfe", b"x" * 255, b".sluice-export-0", b"\\"):
        put(root + b"/n" + name[:254])
    os.mkdir(root + b"/\xff\xfe d")
    put(root + b"/\xff\xfe d/in")


def deep(root):
    """Up to the longest path that a key has room for."""
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for i in range(19):
        name = chr(97 + i % 26) * 200
        os.mkdir(name, dir_fd=directory)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = below
        os.close(os.open("f", os.O_WRONLY | os.O_CREAT, dir_fd=directory))
    os.close(directory)


def holes(root):
    with open(root + b"/terabyte", "wb") as file:
        file.seek(1 << 39)
        file.write(b"data")
        file.truncate(1 << 40)
    with open(root + b"/pieces", "wb") as file:
        for i in range(8):
            file.seek(i * (6 << 20) + 4096)
            file.write(os.urandom(400_000))
        file.truncate(60 << 20)
    with open(root + b"/nothing", "wb") as file:
        file.truncate(3 << 20)


def links(root):
    put(root + b"/first", b"small and linked")
    put(root + b"/large", os.urandom(3_000_000))
    os.mkdir(root + b"/zz")
    for name in (b"first", b"large"):
        os.link(root + b"/" + name, root + b"/zz/" + name)
        os.link(root + b"/" + name, root + b"/a second name of " + name)
    os.symlink(b"\xff\n-x", root + b"/link")
    os.symlink(b".", root + b"/zz/loop")
    os.symlink(b"x" * 4000, root + b"/long link")


def attributes(root):
    put(root + b"/attributes")
    os.setxattr(root + b"/attributes", "user.note", b"kept\0\xff")
    os.setxattr(root + b"/attributes", "user.empty", b"")
    put(root + b"/list")
    os.setxattr(root + b"/list", "system.posix_acl_access", access_list(6))
    os.mkdir(root + b"/lists")
    put(root + b"/lists/has none")
    os.setxattr(root + b"/lists", "system.posix_acl_default", access_list(7))
    os.setxattr(root + b"/lists", "user.note", b"of a directory")


def modes(root):
    for mode in (0o0, 0o400, 0o4755, 0o2755, 0o6711, 0o1644):
        put(root + b"/mode %o" % mode)
        os.chmod(root + b"/mode %o" % mode, mode)
    for mode in (0o3777, 0o500, 0o555):
        os.mkdir(root + b"/directory %o" % mode)
        put(root + b"/directory %o/in" % mode)
        os.chmod(root + b"/directory %o" % mode, mode)
    os.mkfifo(root + b"/pipe", 0o620)
    for name, ns in ((b"old", -10**18), (b"new", 2**33 * 10**9 + 999_999_999)):
        put(root + b"/" + name)
        os.utime(root + b"/" + name, ns=(ns, ns))


def of_root(root):
    """What a user cannot make."""
    put(root + b"/capability")
    os.setxattr(root + b"/capability", "security.capability", CAPABILITY)
    put(root + b"/owned")
    os.chown(root + b"/owned", 12345, 54321)
    os.chmod(root + b"/owned", 0o6755)
    os.symlink("x", root + b"/link")
    os.chown(root + b"/link", 12345, 54321, follow_symlinks=False)
    os.mkdir(root + b"/theirs")
    os.chown(root + b"/theirs", 12345, 54321)
    os.mknod(root + b"/device", 0o20666, os.makedev(1, 3))
    put(root + b"/trusted")
    os.setxattr(root + b"/trusted", "trusted.note", b"of root")


def hostile_tree(path):
    """Everything at once, and a socket, which stays behind."""
    root = os.fsencode(path)
    os.mkdir(root)
    for part in (names_of_all_bytes, deep, holes, links, attributes, modes) + ((of_root,) if ROOT else ()):
        os.mkdir(root + b"/" + part.__name__.encode())
        part(root + b"/" + part.__name__.encode())
    here = os.getcwd()
    os.chdir(root)
    socket.socket(socket.AF_UNIX).bind("socket")
    os.chdir(here)


def remove(path):
    """Also what is below directories that are read-only."""
    subprocess.run(["chmod", "-R", "u+rwX", path], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(path)


def through_backup_and_loss(scratch, cluster):
    """The same records in another cluster, as all of this one is gone."""
    backup = cluster.json("backup", "create", "--name", "b")
    check_equal(backup["state"], "completed", "the backup")
    copies = []
    for i, archive in enumerate(backup["archives"]):
        copies += ["--archive", scratch.path(f"archive{i}")]
        shutil.copytree(archive["path"], scratch.path(f"archive{i}"))
    harness.run("local", "down", "--dir", cluster.folder)
    shutil.rmtree(cluster.folder)
    other = scratch.cluster("other", 2, "--slots", "64")
    restored = other.json("restore", *copies)
    check_equal(restored["state"], "completed", "the restore")
    return other


def as_nobody(scratch, cluster, *arguments, expect=0):
    """Runs the program as a user without privileges."""
    scratch.folder.chmod(0o755)
    subprocess.run(["chmod", "-R", "a+rwX", cluster.folder], check=True)
    command = [harness.PROGRAM, "--json", "--cluster", cluster.url, *map(os.fspath, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=180, env=harness.environment(),
                          user=NOBODY, group=NOBODY, extra_groups=[])
    result = harness.Result(arguments, done.returncode, done.stdout, done.stderr)
    check_equal(result.code, expect, f"exit code\n{result}")
    return result


def test_a_hostile_tree(scratch):
    tree = scratch.path("tree")
    hostile_tree(tree)
    cluster = scratch.cluster("c", 3, "--slots", "64")
    done = cluster.json("record", "import", "--tree", tree, "--prefix", "t/")
    check_equal((done["failed"], done["skipped"]), (0, 1), "failed, and sockets skipped")
    check_equal(done["hard_links"], 4, "names beyond the first")
    check(done["bytes"] < 20_000_000, f"holes cost: {done['bytes']} bytes")
    other = through_backup_and_loss(scratch, cluster)
    for _ in range(2):  # into an empty directory, and over what is there
        done = other.json("record", "export", "--tree", scratch.path("out"), "--prefix", "t/")
        check_equal((done["failed"], done["skipped"]), (0, 0), "failed and skipped")
        check_equal(compare(tree, scratch.path("out")), [], "differences")
    if ROOT:
        check_equal(sum(done["not_set"].values()), 0, f"what was not set {done['not_set']}")
        hostile_tree_as_a_user(scratch, other, tree)
    for path in (tree, scratch.path("out")):
        remove(path)


def hostile_tree_as_a_user(scratch, cluster, tree):
    """What nobody cannot set is counted and said once; all else is as it was."""
    target = scratch.path("user")
    target.mkdir()
    os.chown(target, NOBODY, NOBODY)
    result = as_nobody(scratch, cluster, "record", "export", "--tree", target, "--prefix", "t/")
    done = result.json
    check_equal(done["failed"], 0, "failed")
    not_set = done["not_set"]
    check_equal((not_set["capability"], not_set["device"], not_set["xattr"], not_set["acl"]), (1, 1, 1, 0), "not set")
    check(not_set["owner"] > 300 and not_set["set_id"] == 5, str(not_set))
    lines = sorted(line.split(b": ")[2].split(b" ", 1)[1].rstrip(b"s") for line in result.stderr.splitlines()
                   if b": not set: " in line)
    check_equal(lines, [b"device", b"entry's extended attribute", b"file capability set", b"owner",
                        b"set-user-ID or set-group-ID bit"], "what is said, once for each kind")
    expected = {"'of_root/device' is only in"}
    problems = [p for p in compare(tree, target, without=("owner",)) if not any(p.startswith(e) for e in expected)]
    wrong = [p for p in problems if not any(key in p for key in ("of_root/capability", "of_root/trusted", "mode 4755'",
                                                                  "mode 2755'", "mode 6711'", "of_root/owned",
                                                                  "directory 3777'"))]
    check_equal(wrong, [], "differences that were not counted")
    remove(target)


def test_a_tree_of_a_user(scratch):
    """Imported and exported without privileges, what is unreadable is named."""
    if not ROOT:
        return
    tree = scratch.path("tree")
    tree.mkdir()
    scratch.folder.chmod(0o755)
    put(tree / "file")
    (tree / "locked").mkdir()
    put(tree / "locked/in")
    put(tree / "unreadable")
    os.link(tree / "unreadable", tree / "unreadable too")
    os.setxattr(tree / "file", "user.note", b"kept")
    for path in (tree, tree / "file"):
        os.chown(path, NOBODY, NOBODY)
    (tree / "locked").chmod(0)
    (tree / "unreadable").chmod(0)
    cluster = scratch.cluster("c", 1)
    result = as_nobody(scratch, cluster, "record", "import", "--tree", tree, expect=1)
    check_equal(sorted(f["path"] for f in result.json["failures"]), ["locked", "unreadable", "unreadable too"], "failures")
    target = scratch.path("out")
    target.mkdir()
    os.chown(target, NOBODY, NOBODY)
    done = as_nobody(scratch, cluster, "record", "export", "--tree", target).json
    check_equal(done["failed"], 0, "failed")
    check_equal(os.getxattr(target / "file", "user.note"), b"kept", "an attribute")


def test_etc_of_this_machine(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    copy = scratch.path("etc")  # so that nothing changes meanwhile
    subprocess.run(["cp", "-a", "/etc", copy], check=True, stderr=subprocess.DEVNULL)
    done = cluster.json("record", "import", "--tree", copy, "--prefix", "etc/")
    check_equal(done["failed"], 0, "failed")
    other = through_backup_and_loss(scratch, cluster)
    done = other.json("record", "export", "--tree", scratch.path("out"), "--prefix", "etc/")
    check_equal((done["failed"], sum(done["not_set"].values())), (0, 0), "failed and not set")
    check_equal(compare(copy, scratch.path("out")), [], "differences")


def test_another_import(scratch):
    """With and without --mirror, when directories became files and the reverse."""
    cluster = scratch.cluster("c", 3, "--slots", "64")
    tree = scratch.path("tree")
    (tree / "d/e").mkdir(parents=True)
    for name in ("d/x", "d/e/y", "gone", "kept", "becomes"):
        put(tree / name, name.encode())
    put(tree / "large", os.urandom(3_000_000))
    os.symlink("kept", tree / "link")
    cluster.json("record", "import", "--tree", tree, "--prefix", "p/")
    cluster.json("record", "import", "--tree", tree, "--prefix", "p/other/")
    shutil.rmtree(tree / "d")
    for name in ("gone", "becomes", "link", "large"):
        (tree / name).unlink()
    put(tree / "d", b"now a file")
    for name in ("becomes", "link"):
        (tree / name).mkdir()
        put(tree / name / "z")
    cluster.json("record", "import", "--tree", tree, "--prefix", "p/")
    done = cluster.run("--json", "record", "export", "--tree", scratch.path("merged"), "--prefix", "p/")
    check(b"--mirror" in done.stderr, f"nothing is said of what is below a directory that became a file\n{done}")
    check_equal(done.json["superseded"], 3, "entries below it")
    check((scratch.path("merged") / "gone").exists(), "without --mirror a file of the earlier import is gone")
    done = cluster.json("record", "import", "--tree", tree, "--prefix", "p/", "--mirror")
    check_equal(done["mirrored"], 5, "entries removed: d/x, d/e, d/e/y, gone, large")
    shutil.rmtree(scratch.path("merged"))
    done = cluster.json("record", "export", "--tree", scratch.path("merged"), "--prefix", "p/")
    check_equal((done["failed"], done["superseded"], done["skipped"]), (0, 0, 0), "failed, superseded, skipped")
    check_equal(len(os.listdir(scratch.path("merged/other"))), 6, "what another import put below the prefix")
    shutil.rmtree(scratch.path("merged/other"))
    os.utime(scratch.path("merged"), ns=(tree.stat().st_mtime_ns,) * 2)
    check_equal(compare(tree, scratch.path("merged")), [], "differences")


def test_what_is_left_out(scratch):
    cluster = scratch.cluster("c", 1)
    tree = scratch.path("tree")
    for name in ("build/x", "src/a.c", "src/a.o", "src/keep.o", "mounted/in"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        put(tree / name)
    done = cluster.json("record", "import", "--tree", tree, "--exclude", "*.o", "--exclude", "!keep.o", "--exclude", "/build/")
    check_equal((done["excluded"], done["files"]), (2, 3), "left out, and files")
    keys = {key.decode() for key in cluster.records(scratch.path("lines"))}
    check_equal(keys, {".", "src", "src/a.c", "src/keep.o", "mounted", "mounted/in"}, "keys")
    check_equal(harness.run("record", "import", "--tree", tree, "--exclude", "a//b", cluster=cluster.url, expect=2).stdout, b"",
                "output for a pattern that matches nothing")
    # No mount is to be left behind by a test that ends early.
    unshare = ctypes.CDLL(None).unshare
    done = subprocess.run(
        [sys.executable, "-c", "import sys, ctypes, os, subprocess; ctypes.CDLL(None).unshare(0x20000) and sys.exit(77); "
         "subprocess.run(['mount', '--make-rprivate', '/']).returncode and sys.exit(77); "
         "subprocess.run(['mount', '-t', 'tmpfs', 'none', sys.argv[1] + '/mounted']).returncode and sys.exit(77); "
         "subprocess.run(['mount', '--bind', sys.argv[1], sys.argv[1] + '/build']).returncode and sys.exit(77); "
         "open(sys.argv[1] + '/mounted/other', 'w').close(); os.execv(sys.argv[2], sys.argv[2:])",
         tree, harness.PROGRAM, "--json", "--cluster", cluster.url, "record", "import", "--tree", tree, "--prefix", "m/",
         "--one-file-system"], capture_output=True, check=False) if unshare and ROOT else None
    if done is None or done.returncode == 77:
        return
    value = harness.json.loads(done.stdout)
    check_equal((value["other_file_systems"], value["loops"], value["failed"]), (1, 1, 0), f"places not entered {value}")
    keys = {key.decode() for key in cluster.records(scratch.path("lines")) if key.startswith(b"m/")}
    check_equal(keys, {"m/.", "m/src", "m/src/a.c", "m/src/a.o", "m/src/keep.o", "m/mounted", "m/build"}, "keys")


if __name__ == "__main__":
    harness.main(globals())
