#!/usr/bin/env python3
"""Compares two directory trees: paths, kinds, contents, modes, modification times, link targets.

    compare_trees.py SOURCE COPY      exit 0: identical; 1: every difference on a line of its own
"""
import filecmp
import os
import stat
import sys


def entries(root):
    root = os.fsencode(root)
    found = {b".": os.lstat(root)}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
                found[os.path.relpath(path, root)] = info
    return root, found


def differences(source, copy):
    source_root, left = entries(source)
    copy_root, right = entries(copy)
    for path in sorted(left.keys() | right.keys()):
        if path not in left or path not in right:
            yield path, "only in " + (copy if path not in left else source)
            continue
        a, b = left[path], right[path]
        if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
            yield path, "another kind of file"
        elif stat.S_ISLNK(a.st_mode):
            if os.readlink(os.path.join(source_root, path)) != os.readlink(os.path.join(copy_root, path)):
                yield path, "another link target"
        else:
            if stat.S_IMODE(a.st_mode) != stat.S_IMODE(b.st_mode):
                yield path, f"mode {stat.S_IMODE(a.st_mode):o} and {stat.S_IMODE(b.st_mode):o}"
            if a.st_mtime_ns != b.st_mtime_ns:
                yield path, f"mtime {a.st_mtime_ns} and {b.st_mtime_ns}"
            if stat.S_ISREG(a.st_mode) and not filecmp.cmp(os.path.join(source_root, path),
                                                           os.path.join(copy_root, path), shallow=False):
                yield path, "another content"


def main():
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    count = 0
    for path, what in differences(sys.argv[1], sys.argv[2]):
        print(f"{os.fsdecode(path)}: {what}")
        count += 1
    if count:
        print(f"{count} differences", file=sys.stderr)
        return 1
    print(f"   {sys.argv[1]} and {sys.argv[2]} are identical "
          f"({len(entries(sys.argv[1])[1])} files, folders and links)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
