"""Compares two directory trees by everything that a file system keeps of them.

Types, modes, owners, times of modification, sizes, content, holes, links' targets, device numbers, extended attributes (access
control lists and capabilities among them), and which names are names of one file. Walks by handles, so paths may be longer than
PATH_MAX, and follows no link. As a program: tree_compare.py LEFT RIGHT prints differences and exits with 1 if there are any.
"""

import errno
import hashlib
import os
import stat
import sys

KINDS = ("type", "mode", "owner", "time", "size", "content", "holes", "target", "device", "attributes", "names")


def attributes_of(directory, name):
    """Names and values, never those of a link's target."""
    path = f"/proc/self/fd/{directory}/{name}"
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return {attribute: os.getxattr(path, attribute, follow_symlinks=False) for attribute in names}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise


def data_of(fd, size):
    """Where the data is, and a digest of it: what a hole has need not be read."""
    extents, at, digest = [], 0, hashlib.blake2b()
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        end = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        extents.append((begin, end))
        for place in range(begin, end, 1 << 20):
            digest.update(os.pread(fd, min(1 << 20, end - place), place))
        at = end
    return extents, digest.hexdigest()


class Entry:
    """One name of a tree."""

    def __init__(self, directory, name):
        info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        self.info = info
        self.facts = {
            "type": stat.S_IFMT(info.st_mode),
            "mode": None if stat.S_ISLNK(info.st_mode) else stat.S_IMODE(info.st_mode),
            "owner": (info.st_uid, info.st_gid),
            "time": info.st_mtime_ns,
            "attributes": attributes_of(directory, name),
        }
        if stat.S_ISLNK(info.st_mode):
            self.facts["target"] = os.readlink(name, dir_fd=directory)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            self.facts["device"] = info.st_rdev
        elif stat.S_ISREG(info.st_mode):
            self.facts["size"] = info.st_size
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
            try:
                self.facts["holes"], self.facts["content"] = data_of(fd, info.st_size)
            finally:
                os.close(fd)


def entries_of(root):
    """All names below a directory, sockets left out; values are Entry objects."""
    found = {}

    def walk(directory, path):
        for name in sorted(os.listdir(directory)):
            entry = Entry(directory, name)
            if stat.S_ISSOCK(entry.info.st_mode):
                continue
            found[path + name] = entry
            if stat.S_ISDIR(entry.info.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                try:
                    walk(below, path + name + "/")
                finally:
                    os.close(below)
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found["."] = Entry(top, ".")
        walk(top, "")
    finally:
        os.close(top)
    return found


def names_together(entries):
    """For each name of a file with several, all of its names."""
    groups = {}
    for path, entry in entries.items():
        if entry.info.st_nlink > 1 and not stat.S_ISDIR(entry.info.st_mode):
            groups.setdefault((entry.info.st_dev, entry.info.st_ino), []).append(path)
    return {path: sorted(group) for group in groups.values() for path in group if len(group) > 1}


def compare(left, right, without=()):
    """Differences, one line each; `without` are kinds that are not compared."""
    a, b = entries_of(left), entries_of(right)
    problems = []
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            problems.append(f"{path!r} is only in {left if path in a else right}")
            continue
        one, two = a[path].facts, b[path].facts
        for kind in KINDS:
            if kind not in without and one.get(kind) != two.get(kind):
                problems.append(f"{path!r}: {kind} {str(one.get(kind))[:200]} became {str(two.get(kind))[:200]}")
    if "names" not in without:
        one, two = names_together(a), names_together(b)
        problems += [f"{path!r}: names {one.get(path)} became {two.get(path)}" for path in sorted(one.keys() | two.keys())
                     if one.get(path) != two.get(path)]
    return problems


if __name__ == "__main__":
    differences = compare(sys.argv[1], sys.argv[2])
    print("\n".join(differences))
    sys.exit(1 if differences else 0)
