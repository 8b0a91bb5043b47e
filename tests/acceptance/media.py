"""Disks for tests: file systems that are full, small, failing, or lose their power. Needs root and FUSE.

Mounts are made in a mount namespace of the test program's own, so that they go with it however it ends.
"""

import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path

import harness

SKIPPED = 77
PAGE = 4096
WRITE, FLUSH, MARK = range(3)  # kinds of entries in the log of tests/media/tools/log_disk.cc


def require_own_mounts():
    """Runs the program again in a mount namespace of its own; skips the test where that is not permitted."""
    if os.environ.get("SLUICE_OWN_MOUNTS"):
        return
    unshare = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0 or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
        print("skipped: mounts need root")
        sys.exit(SKIPPED)
    os.environ["SLUICE_OWN_MOUNTS"] = "1"
    os.execvp("unshare", [*unshare, sys.executable, *sys.argv])


def tool(name):
    """The path of a helper program that is built beside the tests."""
    path = Path(harness.PROGRAM).parent / "tests" / "media" / "tools" / name
    if not path.exists() or not os.path.exists("/dev/fuse"):
        print(f"skipped: {path} was not built (it needs libfuse3-dev), or this system has no FUSE")
        sys.exit(SKIPPED)
    return path


def await_server(server, condition, what):
    """Waits for a file system that a helper program serves."""
    def ready():
        harness.check(server.poll() is None, f"{server.args[0]} has ended with {server.returncode}")
        return condition()
    harness.wait_for(ready, what)


def mount(*arguments):
    done = subprocess.run(["mount", *map(os.fspath, arguments)], check=False, capture_output=True, text=True)
    harness.check(done.returncode == 0, f"mount {' '.join(map(str, arguments))}: {done.stderr}")


def unmount(directory):
    """Waits for processes that were killed a moment ago to let go of it."""
    harness.wait_for(lambda: subprocess.run(["umount", directory], check=False, capture_output=True).returncode == 0,
                     f"{directory} can be unmounted")


def tmpfs(scratch, directory, size):
    """Mounts an empty tmpfs of a size like 48M."""
    directory.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory)
    scratch.closers.append(lambda: subprocess.run(["umount", "--lazy", directory], check=False, capture_output=True))


def resize(directory, size):
    mount("-o", f"remount,size={size}", directory)


def fill(directory, leave=0):
    """Takes all room of a file system but `leave` bytes, in a file that is returned."""
    filler = Path(directory) / "filler"
    with open(filler, "wb", buffering=0) as file:
        state = os.statvfs(directory)
        free = state.f_bavail * state.f_frsize - leave
        try:
            while free > 0:
                free -= file.write(bytes(min(free, 1 << 20)))
        except OSError:
            pass
    return filler


class LoggedDisk:
    """A file system on a disk whose writes and flushes are logged, mounted at `directory`."""

    def __init__(self, scratch, kind, size=3 << 30):
        self.work = scratch.path("logged")
        self.directory = scratch.path("disk")
        self.image, self.log, self.fuse = self.work / "image", self.work / "log", self.work / "fuse"
        for directory in (self.fuse, self.directory):
            directory.mkdir(parents=True)
        with open(self.image, "wb") as file:
            file.truncate(size)
        options = {"ext4": ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"], "xfs": ["-q"]}[kind]
        subprocess.run([f"mkfs.{kind}", *options, self.image], check=True)
        self.base = self.work / "base"
        copy_sparse(self.image, self.base)
        self.server = subprocess.Popen([tool("log_disk"), self.fuse, self.image, self.log])
        scratch.closers.append(self.close)
        await_server(self.server, (self.fuse / "disk").exists, "the logged disk is there")
        mount("-o", "loop", self.fuse / "disk", self.directory)

    def mark(self, name):
        with open(self.fuse / "mark", "wb", buffering=0) as file:
            file.write(name.encode())

    def close(self):
        if self.server is None:
            return
        for directory in (self.directory, self.fuse):
            subprocess.run(["umount", directory], check=False, capture_output=True)
        self.server.terminate()
        self.server.wait()
        self.server = None

    def entries(self):
        """(kind, offset, length, where its bytes are in the log) of each entry."""
        found = []
        with open(self.log, "rb") as file:
            while head := file.read(24):
                kind, offset, length = struct.unpack("<QQQ", head)
                found.append((kind, offset, length, file.tell()))
                file.seek(length, os.SEEK_CUR)
        return found


def copy_sparse(source, to):
    subprocess.run(["cp", "--sparse=always", source, to], check=True)


class Medium:
    """What a logged disk holds after power failures at ever later moments."""

    def __init__(self, disk):
        self.disk = disk
        self.entries = disk.entries()
        self.applied = 0
        self.durable = os.open(disk.base, os.O_RDWR)
        self.log = os.open(disk.log, os.O_RDONLY)

    def marks(self):
        """(name, index of its entry), in order."""
        return [(os.pread(self.log, length, at).decode(), index)
                for index, (kind, _, length, at) in enumerate(self.entries) if kind == MARK]

    def apply(self, entry, image, kept=lambda: True):
        _, offset, length, at = entry
        data = os.pread(self.log, length, at)
        for begin in range(0, length, PAGE):
            if kept():
                os.pwrite(image, data[begin:begin + PAGE], offset + begin)

    def after_failure(self, moment, image, seed):
        """Makes `image` what the disk holds when its power fails before entry `moment`: everything that was flushed,
        and of the later writes a share of their pages, which may be none or all."""
        source = random.Random(seed)
        flushed = max((i for i in range(self.applied, moment) if self.entries[i][0] == FLUSH), default=self.applied)
        for entry in self.entries[self.applied:flushed]:
            if entry[0] == WRITE:
                self.apply(entry, self.durable)
        self.applied = max(self.applied, flushed)
        copy_sparse(self.disk.base, image)
        share = source.choice((0, 0, 0.1, 0.5, 0.9, 1))
        file = os.open(image, os.O_RDWR)
        for entry in self.entries[self.applied:moment]:
            if entry[0] == WRITE:
                self.apply(entry, file, lambda: source.random() < share)
        os.close(file)
        return share


class Faults:
    """A directory whose files pass through tests/media/tools/fault_files.cc, which fails calls on request."""

    def __init__(self, scratch, directory):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.behind = scratch.path(f"behind-{self.directory.name}")
        self.behind.mkdir(exist_ok=True)
        self.server = subprocess.Popen([tool("fault_files"), self.directory, self.behind])
        scratch.closers.append(self.close)
        await_server(self.server, lambda: os.path.ismount(self.directory), "the failing directory is there")

    def rule(self, calls="none", path="", first=1, error="EIO", for_good=False):
        """From now on the `first` call of that kind on a path with this text in it fails, and all later ones if so."""
        number = {"EIO": 5, "ENOSPC": 28, "EROFS": 30, "short": 0, "lost": -1}[error]
        os.setxattr(self.directory, "user.fault", f"{calls} {path or '/'} {first} {number} {int(for_good)}".encode())

    def counts(self):
        """Calls that the rule was for, and how many of them failed."""
        return tuple(map(int, os.getxattr(self.directory, "user.counts").split()))

    def close(self):
        subprocess.run(["umount", "--lazy", self.directory], check=False, capture_output=True)
        self.server.terminate()
        self.server.wait()


def rounds(usual):
    """How often a test repeats what it draws at random: more with SLUICE_ROUNDS."""
    return int(os.environ.get("SLUICE_ROUNDS", usual))


def seed():
    """SLUICE_SEED, or one that is printed."""
    number = int(os.environ.get("SLUICE_SEED", time.time_ns() % 1_000_000))
    print(f"  SLUICE_SEED={number}", flush=True)
    return number
