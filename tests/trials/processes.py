"""The processes of a trial: clusters, their nodes and etcd, which are killed or stopped by number and brought back."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "acceptance"))

import etcd  # noqa: E402
import harness  # noqa: E402
from harness import Failed  # noqa: E402

START_SECONDS = 120


def has_ended(pid):
    """With all its threads; whether its parent has asked how does not matter."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


class Victim:
    """What a fault meets. kill() and stop() are followed by bring_back()."""

    def __init__(self, name):
        self.name = name
        self.busy = threading.Lock()  # one fault at a time
        self.stopped = False

    def pid(self):
        raise NotImplementedError

    def kill(self):
        os.kill(self.pid(), signal.SIGKILL)

    def stop(self):
        os.kill(self.pid(), signal.SIGSTOP)
        self.stopped = True

    def restart(self):
        """After kill()."""

    def relapse(self, delay):
        """After kill(): is killed once more on its way back. Whether it was: clients are not restarted, for one."""
        return False

    def bring_back(self):
        if self.stopped:
            self.stopped = False
            try:
                os.kill(self.pid(), signal.SIGCONT)
            except ProcessLookupError:
                pass
        else:
            self.restart()


class Node(Victim):
    """A serving node of a local cluster."""

    def __init__(self, cluster, name):
        super().__init__(name)
        self.cluster = cluster

    def pid(self):
        return self.cluster.pids[self.name]

    def kill(self):
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        # The last of its threads closes its files.
        harness.wait_for(lambda: has_ended(pid), f"process {pid} has ended")

    def relapse(self, delay):
        """Starts it, and kills it so long after its process is there: while it recovers, or just after."""
        begun = self.pid()
        with self.cluster.starting:
            start = Command(self.cluster, "local", "start", "--dir", self.cluster.folder, self.name)
            harness.wait_for(lambda: self.written_pid() != begun or not start.running(), f"{self.name} is started")
            time.sleep(delay)
            self.cluster.pids[self.name] = self.written_pid()
            self.kill()
            start.finish(START_SECONDS)
        return True

    def written_pid(self):
        try:
            return int((self.cluster.folder / f"{self.name}.pid").read_text().split()[0])
        except (FileNotFoundError, IndexError):
            return self.pid()

    def restart(self):
        with self.cluster.starting:
            started = harness.run_json("local", "start", "--dir", self.cluster.folder, self.name, timeout=START_SECONDS)
        for node in started["nodes"]:
            self.cluster.pids[node["name"]] = node["pid"]


class Client(Victim):
    """A command under way. Nobody restarts it: its user begins again."""

    def __init__(self, name, process):
        super().__init__(name)
        self.process = process

    def pid(self):
        if self.process.poll() is not None:
            raise ProcessLookupError(self.name)
        return self.process.pid


class Etcd(etcd.Etcd, Victim):
    """One etcd, which loses nothing that it has answered: its data outlives it."""

    def __init__(self, scratch):
        Victim.__init__(self, "etcd")
        etcd.Etcd.__init__(self, scratch)

    def pid(self):
        return self.process.pid

    def kill(self):
        etcd.Etcd.kill(self)

    def restart(self):
        self.start()

    def keys(self, prefix):
        """Without values."""
        done = subprocess.run(["etcdctl", "--endpoints", f"127.0.0.1:{self.clients}", "get", "--prefix", "--keys-only",
                               f"{prefix}/"],
                              env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True, check=True, timeout=60)
        return [line.removeprefix(f"{prefix}/doc/") for line in done.stdout.splitlines() if line.startswith(f"{prefix}/doc/")]


class Command:
    """The program under way, with the lines that it has written to stderr so far."""

    def __init__(self, cluster, *arguments, stdin=b""):
        self.arguments = arguments
        self.lines = []
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [harness.PROGRAM, "--json", "--cluster", cluster.url, *map(os.fspath, arguments)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.environment())
        self.begun = time.monotonic()
        self.out = b""
        self.threads = [threading.Thread(target=work, daemon=True)
                        for work in (lambda: self.write(stdin), self.read_out, self.read_lines)]
        for thread in self.threads:
            thread.start()

    def write(self, data):
        try:
            self.process.stdin.write(data)
            self.process.stdin.close()
        except OSError:
            pass  # it was killed

    def read_out(self):
        self.out = self.process.stdout.read()

    def read_lines(self):
        for line in self.process.stderr:
            self.lines.append(line.decode(errors="replace").rstrip())

    def running(self):
        return self.process.poll() is None

    def seconds(self):
        return time.monotonic() - self.begun

    def says(self, text):
        return any(text in line for line in self.lines)

    def finish(self, timeout):
        """Its exit code and JSON object; {} of one that was killed."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failed(f"stuck: sluice {' '.join(map(str, self.arguments))} has not ended in {timeout} s: "
                         f"{self.lines[-5:]}") from None
        for thread in self.threads:
            thread.join()
        return self.process.returncode, self.value()

    def value(self):
        try:
            return harness.json.loads(self.out)
        except ValueError:
            harness.check(self.process.returncode < 0, f"sluice {' '.join(map(str, self.arguments))} exited with "
                          f"{self.process.returncode} and without JSON: {self.out[:200]!r} {self.lines[-5:]}")
            return {}


class Cluster(harness.Cluster):
    """A local cluster whose nodes are victims."""

    def __init__(self, folder, nodes, *options, block=None):
        super().__init__(folder, nodes, *options, block=block)
        self.nodes = {name: Node(self, name) for name in self.names}
        self.starting = threading.Lock()  # one 'sluice local' at a time works in a directory

    def down(self):
        """Ends its processes, stopped ones too."""
        harness.run("local", "down", "--dir", self.folder, expect=None)
        shutil.rmtree(self.folder, ignore_errors=True)
