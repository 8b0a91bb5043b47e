"""Memory, by valgrind's memcheck: a serving node from its start to its end by SIGTERM, and the client's commands. No invalid
access, no decision on memory that was never written, and nothing lost at the end.

The node is one of two, so that it coordinates, sends to and hears another one. Ends with 77, which ctest counts as skipped,
where valgrind is not installed.
"""

import re
import shutil
import signal
import subprocess
import sys

import harness
from harness import Failed, check, check_equal, environment, wait_for

# A program under memcheck is some thirty times slower, on a machine that may be busy.
SECONDS = 400
LEASE_MS = 60_000
FOUND = 99
RECORDS = 300


def memcheck(report, *arguments):
    """The program under memcheck, which ends with FOUND when something is wrong."""
    return ["valgrind", f"--error-exitcode={FOUND}", "--leak-check=full", "--show-leak-kinds=definite",
            "--errors-for-leak-kinds=definite", "--num-callers=30", f"--log-file={report}", harness.PROGRAM, *arguments]


def check_report(report, code, what, stderr=b""):
    """Not the exit code alone: a program that memcheck cannot run may end with any."""
    text = report.read_text(errors="replace") if report.exists() else "valgrind did not start"
    good = code == 0 and re.search(r"ERROR SUMMARY: 0 errors", text) and re.search(
        r"definitely lost: 0 bytes|All heap blocks were freed", text)
    check(good, f"{what} ended with {code}: {stderr[-2000:].decode(errors='replace')}\nmemcheck: {text[-8000:]}")


class CheckedNode:
    """A node of a local cluster, killed and started again under memcheck."""

    def __init__(self, cluster, name, scratch):
        self.report = scratch.path(f"{name}.memcheck")
        cluster.kill(name)
        config = cluster.folder / f"{name}.toml"
        config.write_text(f"lease_ms = {LEASE_MS}\n{config.read_text()}")
        self.process = subprocess.Popen(memcheck(self.report, "node", "--config", config), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
        scratch.closers.append(self.close)

    def wait_until_serving(self, cluster):
        def serving():
            if self.process.poll() is not None:
                check_report(self.report, self.process.returncode, "the node")
                raise Failed("the node ended before it was stopped")
            nodes = cluster.json("nodes")["nodes"]
            return all(node["state"] == "live" and node["reached"] for node in nodes)
        wait_for(serving, "both nodes serve", SECONDS)

    def stop(self):
        """As a service manager stops it."""
        self.process.send_signal(signal.SIGTERM)
        check_report(self.report, self.process.wait(SECONDS), "the node")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class CheckedClient:
    def __init__(self, cluster, scratch):
        self.url = cluster.url
        self.scratch = scratch
        self.commands = 0

    def run(self, *arguments, stdin=b""):
        self.commands += 1
        report = self.scratch.path(f"client{self.commands}.memcheck")
        done = subprocess.run(memcheck(report, "--json", "--cluster", self.url, *map(str, arguments)), input=stdin,
                              capture_output=True, timeout=SECONDS, env=environment(), check=False)
        check_report(report, done.returncode, " ".join(map(str, arguments)), done.stderr)


def test_nothing_is_lost_or_read_wrongly(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "16")
    node = CheckedNode(cluster, "n1", scratch)
    node.wait_until_serving(cluster)
    client = CheckedClient(cluster, scratch)
    lines = b"".join(harness.json_line(b"key%d" % i, b"v" * (7 * i % 2000)) for i in range(RECORDS))
    client.run("record", "import", "--jsonl", "-", stdin=lines)
    client.run("backup", "create", "--name", "b1", "--target", "n1", "--target", "n2")
    client.run("backup", "verify", "b1")
    cluster.run("record", "put", "key1", "newer")
    client.run("restore", "b1")
    exported = scratch.path("records.jsonl")
    client.run("record", "export", "--jsonl", exported)
    check_equal(exported.read_bytes().count(b"\n"), RECORDS, "records exported")
    node.stop()


if __name__ == "__main__":
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed (scripts/install-dependencies installs it)")
        sys.exit(77)
    harness.main(globals())
