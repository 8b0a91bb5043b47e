"""What backups are compared with: rsync, restic and borg, given all values as ONE file, and RocksDB's BackupEngine, given one
database that holds each record once. Each backs up into a directory of its own and restores from it.

Every step ends when what it wrote is on the disk (sync), as Sluice's do. None of them checks, replicates or merges anything that
it is not asked to: this is their best case.
"""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from clusters import Step, process_core_s

STEP_SECONDS = 1800


def run_command(*command, cwd=None, **environment):
    done = subprocess.run([os.fspath(part) for part in command], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          cwd=cwd, env=os.environ | environment, timeout=STEP_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stdout[-1000:]}"
                           f"{done.stderr[-1000:]}")


class Reference:
    """A way to back `source` up into a directory and to restore it from there, as a context."""

    packages = ()

    def __init__(self, directory, source):
        self.directory = Path(directory)
        self.source = Path(source)
        self.copy = self.directory / "copy"

    def __enter__(self):
        self.directory.mkdir()
        self.copy.mkdir()
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.directory, ignore_errors=True)

    def core_s(self):
        """Of processes that live longer than a step."""
        return 0.0

    def prepare(self):
        """What is not measured."""

    def timed(self, work, *arguments):
        with Step(self.core_s) as step:
            work(*arguments)
            os.sync()
        return step

    def backup(self):
        self.prepare()
        return self.timed(self.do_backup)

    def restore(self):
        return self.timed(self.do_restore)

    def restored(self):
        """The restored file, to compare."""
        return self.copy / self.source.name

    def do_backup(self):
        raise NotImplementedError

    def do_restore(self):
        raise NotImplementedError


class Rsync(Reference):
    """A daemon on loopback: pushed, then pulled."""

    packages = ("rsync",)

    def __enter__(self):
        super().__enter__()
        (self.directory / "served").mkdir()
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = one.getsockname()[1]
        configuration = self.directory / "rsyncd.conf"
        configuration.write_text(f"use chroot = no\n[served]\npath = {self.directory / 'served'}\nread only = no\n"
                                 f"uid = {os.getuid()}\ngid = {os.getgid()}\n")
        self.daemon = subprocess.Popen(["rsync", "--daemon", "--no-detach", "--address", "127.0.0.1", "--port", str(self.port),
                                        "--config", configuration, "--log-file", self.directory / "log"],
                                       stdin=subprocess.DEVNULL)
        try:
            self.wait_until_it_listens()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_it_listens(self):
        for _ in range(100):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("the rsync daemon does not listen")

    def __exit__(self, *_):
        self.daemon.terminate()
        self.daemon.wait()
        super().__exit__()

    def core_s(self):
        return process_core_s(self.daemon.pid)

    def url(self, name=""):
        return f"rsync://127.0.0.1:{self.port}/served/{name}"

    def do_backup(self):
        run_command("rsync", "--whole-file", self.source, self.url())

    def do_restore(self):
        run_command("rsync", "--whole-file", self.url(self.source.name), f"{self.copy}/")

    def restore_copies(self, count):
        """As many copies of the file, one after the other."""
        def pull():
            for number in range(count):
                run_command("rsync", "--whole-file", self.url(self.source.name), f"{self.directory}/copy-{number}")
        step = self.timed(pull)
        for number in range(count):
            (self.directory / f"copy-{number}").unlink()
        return step


class Restic(Reference):
    """A local repository, without a cache and without compression."""

    packages = ("restic",)

    def restic(self, *arguments, **options):
        run_command("restic", "-r", self.directory / "repository", "--no-cache", "--quiet", *arguments, RESTIC_PASSWORD="benchmark",
            **options)

    def prepare(self):
        self.restic("init")

    def do_backup(self):
        self.restic("backup", "--compression", "off", self.source.name, cwd=self.source.parent)

    def do_restore(self):
        self.restic("restore", "latest", "--target", self.copy)

    def restored(self):
        return next(self.copy.rglob(self.source.name))


class Borg(Reference):
    """A local repository, neither compressed nor encrypted."""

    packages = ("borgbackup",)

    def borg(self, *arguments, cwd):
        run_command("borg", *arguments, cwd=cwd, BORG_BASE_DIR=str(self.directory), BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes")

    def prepare(self):
        self.borg("init", "--encryption", "none", self.directory / "repository", cwd=self.directory)

    def do_backup(self):
        self.borg("create", "--compression", "none", f"{self.directory / 'repository'}::one", self.source.name,
                  cwd=self.source.parent)

    def do_restore(self):
        self.borg("extract", f"{self.directory / 'repository'}::one", cwd=self.copy)


class BackupEngine(Reference):
    """bench/rocksdb_backup.cc; the source is a database that it loaded."""

    def __init__(self, directory, source, program):
        super().__init__(directory, source)
        self.program = program

    def do_backup(self):
        run_command(self.program, "backup", self.source, self.directory / "backups")

    def do_restore(self):
        run_command(self.program, "restore", self.directory / "backups", self.copy)

    def restored(self):
        return None
