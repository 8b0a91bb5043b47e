"""Local clusters for benchmarks, and what a step on one costs: wall time, processor time, bytes written."""

import json
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
COMMAND_SECONDS = 3600
QUIET_SECONDS = 90
QUIET_SLICE = 0.5
# Of one core, by all nodes together: heartbeats and watches need less.
QUIET_SHARE = 0.2


def children_core_s():
    """User and system time of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def process_core_s(pid):
    """User and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


class Step:
    """A step's wall time, and the processor time of the commands in it and of the processes that `core_s` counts.

    Nothing of earlier steps is left to be written when it begins.
    """

    def __init__(self, core_s=lambda: 0.0):
        self.others = core_s
        self.seconds = self.core_s = 0.0

    def __enter__(self):
        os.sync()
        self.core_s = -(children_core_s() + self.others())
        self.seconds = -time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds += time.monotonic()
        self.core_s += children_core_s() + self.others()


class Cluster:
    """`sluice local up` in a directory, as a context; its nodes are stopped at the end, its files stay."""

    def __init__(self, program, directory, nodes=5, replicas=3, options=()):
        self.program = program
        self.directory = Path(directory)
        self.options = ["--nodes", str(nodes), "--replicas", str(replicas), *options]
        self.url = None
        self.pids = {}

    def __enter__(self):
        try:
            up = self.command("local", "up", "--dir", self.directory, *self.options)
        except BaseException:
            self.__exit__()
            raise
        self.url = up["cluster"]
        self.pids = {node["name"]: node["pid"] for node in up["nodes"]}
        return self

    def __exit__(self, *_):
        subprocess.run([self.program, "local", "down", "--dir", self.directory], capture_output=True, timeout=120, check=False)

    def command(self, *arguments):
        """The JSON of a command, which must succeed."""
        cluster = ["--cluster", self.url] if self.url else []
        done = subprocess.run([self.program, "--json", *cluster, *map(os.fspath, arguments)], capture_output=True, text=True,
                              timeout=COMMAND_SECONDS, stdin=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"sluice {' '.join(map(str, arguments))} ended with {done.returncode}: "
                               f"{done.stdout[:2000]} {done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def core_s(self):
        return sum(process_core_s(pid) for pid in self.pids.values())

    def written_bytes(self):
        """What the nodes have caused to be written to disk."""
        total = 0
        for pid in self.pids.values():
            fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
            total += int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])
        return total

    def wait_until_quiet(self):
        """Until compactions and the like are over; at most QUIET_SECONDS."""
        deadline = time.monotonic() + QUIET_SECONDS
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            core_s, written = self.core_s(), self.written_bytes()
            time.sleep(QUIET_SLICE)
            busy = self.core_s() - core_s > QUIET_SHARE * QUIET_SLICE or self.written_bytes() - written > 1 << 20
            quiet = 0 if busy else quiet + 1

    def kill(self, name):
        self.command("local", "kill", "--dir", self.directory, name)
        del self.pids[name]

    def start(self, name):
        started = self.command("local", "start", "--dir", self.directory, name)
        self.pids[name] = started["nodes"][0]["pid"]

    # Steps that are measured. Each returns (Step, JSON), after a check that all of the records are in it.
    def load(self, lines, count):
        with Step(self.core_s) as step:
            found = self.command("record", "import", "--jsonl", lines)
        expect(found, records=count, failed=0)
        return step, found

    def backup(self, name, count):
        with Step(self.core_s) as step:
            found = self.command("backup", "create", "--name", name)
        expect(found, state="completed", records=count)
        return step, found

    def restore(self, archives, count):
        """With "written_bytes" in the JSON: what the nodes wrote until they were quiet again."""
        before = self.written_bytes()
        with Step(self.core_s) as step:
            found = self.command("restore", "--archive", *archives)
        expect(found, state="completed", written=count, failed=0)
        self.wait_until_quiet()
        found["written_bytes"] = self.written_bytes() - before
        return step, found

    def remove_stores(self):
        """After its end: the nodes' records; archives stay."""
        for name in self.pids:
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def remove(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def expect(found, **fields):
    for name, value in fields.items():
        if found[name] != value:
            raise RuntimeError(f"{name} is {found[name]}, expected {value}, in {json.dumps(found)[:2000]}")
