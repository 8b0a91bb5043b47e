"""What the acceptance tests share: running the program, clusters that are always torn down, and checks.

A test is a file with functions called test_*, each given a Scratch. main() runs them all, prints what failed and exits with
1 then. The program's path is the first argument; further arguments choose tests by name.
"""

import base64
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

PROGRAM = None
BEGUN = time.monotonic()


class Failed(AssertionError):
    """A command ended otherwise than the test expects."""


class Result:
    """How one command ended."""

    def __init__(self, arguments, code, stdout, stderr):
        self.arguments = arguments
        self.code = code
        self.stdout = stdout
        self.stderr = stderr

    @property
    def json(self):
        return json.loads(self.stdout)

    def __str__(self):
        return (f"sluice {' '.join(map(str, self.arguments))}\nexit code {self.code}\n"
                f"stdout: {self.stdout[:2000]!r}\nstderr: {self.stderr[-3000:].decode(errors='replace')}")


def environment():
    kept = dict(os.environ)
    kept.pop("SLUICE_CLUSTER", None)
    return kept


def run(*arguments, expect=0, cluster=None, stdin=b"", timeout=180):
    """Runs the program; its exit code must be `expect` (or one of them; None: any)."""
    command = [PROGRAM] + (["--cluster", cluster] if cluster else []) + [os.fspath(a) if isinstance(a, Path) else a
                                                                          for a in arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, env=environment(), check=False)
    result = Result(arguments, done.returncode, done.stdout, done.stderr)
    expected = expect if isinstance(expect, tuple) else (expect,)
    if expect is not None and result.code not in expected:
        raise Failed(f"expected exit code {expect}\n{result}")
    return result


def run_json(*arguments, **options):
    """As run() with --json: the one object on stdout."""
    result = run("--json", *arguments, **options)
    try:
        value = result.json
    except ValueError as error:
        raise Failed(f"stdout is not one JSON object: {error}\n{result}") from error
    check(isinstance(value, dict), f"stdout is not an object\n{result}")
    if result.code != 0:
        check(value.get("code") == result.code and value.get("error"), f"no error and code in the JSON\n{result}")
    return value


def check(condition, message):
    if not condition:
        raise Failed(message)


def check_equal(got, wanted, what):
    check(got == wanted, f"{what}: got {got!r}, wanted {wanted!r}")


def wait_for(condition, what, seconds=60):
    """Polls until condition() is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.02)


class Cluster:
    """A local cluster in a folder."""

    def __init__(self, folder, nodes, *options, block=None):
        self.folder = Path(folder)
        up = run_json("local", "up", "--dir", self.folder, "--nodes", str(nodes), *options, cluster=block)
        self.url = up["cluster"]
        self.names = [node["name"] for node in up["nodes"]]
        self.pids = {node["name"]: node["pid"] for node in up["nodes"]}

    def run(self, *arguments, **options):
        return run(*arguments, cluster=self.url, **options)

    def json(self, *arguments, **options):
        return run_json(*arguments, cluster=self.url, **options)

    def background(self, *arguments):
        return subprocess.Popen([PROGRAM, "--json", "--cluster", self.url, *map(os.fspath, arguments)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=environment())

    def kill(self, name):
        run("local", "kill", "--dir", self.folder, name)

    def start(self, name, *options, expect=0):
        started = run("local", "start", "--dir", self.folder, name, *options, expect=expect)
        if started.code == 0:
            self.pids[name] = int((self.folder / f"{name}.pid").read_text().split()[0])
        return started

    def put_lines(self, records, expect=0):
        """Imports a dict of bytes to bytes."""
        lines = b"".join(json_line(key, value) for key, value in records.items())
        return self.json("record", "import", "--jsonl", "-", stdin=lines, expect=expect)

    def export(self, path, prefix=None):
        """Exports to a file and returns its bytes."""
        self.json("record", "export", "--jsonl", path, *(["--prefix", prefix] if prefix else []))
        return Path(path).read_bytes()

    def records(self, path):
        """All records, as a dict."""
        return dict(parse_line(line) for line in self.export(path).splitlines())

    def settle(self):
        """Waits until every node that is live holds as many records as any other (all nodes hold all slots)."""
        def same():
            nodes = self.json("nodes")["nodes"]
            return len({(n["records"], n["bytes"]) for n in nodes if n["state"] == "live"}) == 1
        wait_for(same, "all nodes hold the same number of records")

    def serves(self):
        """Fails unless a write can be read back."""
        key = f"serves-{random.getrandbits(64):x}"
        self.run("record", "put", key, "yes")
        check_equal(self.run("record", "get", key).stdout, b"yes", "what was just written")
        self.run("record", "delete", key)


class Scratch:
    """A test's own folder, and the clusters in it."""

    def __init__(self, name):
        self.folder = Path(tempfile.mkdtemp(prefix=f"sluice-{name}-"))
        self.clusters = []
        self.closers = []  # called after the clusters are down

    def cluster(self, name, nodes, *options, block=None):
        """`block` is the URL of a cluster block; a file in the cluster's folder otherwise."""
        self.clusters.append(self.folder / name)
        return Cluster(self.folder / name, nodes, *options, block=block)

    def path(self, name):
        return self.folder / name

    def close(self, keep):
        for folder in self.clusters:
            if folder.exists():
                run("local", "down", "--dir", folder, expect=None)
        for closer in self.closers:
            closer()
        if keep:
            print(f"  kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)


def json_line(key, value):
    return json.dumps({"key_b64": base64.b64encode(key).decode(),
                       "value_b64": base64.b64encode(value).decode()}).encode() + b"\n"


def parse_line(line):
    fields = json.loads(line)

    def take(name):
        return fields[name].encode() if name in fields else base64.b64decode(fields[name + "_b64"])
    return take("key"), take("value")


def random_records(count, value_bytes, seed, prefix="key"):
    source = random.Random(seed)
    return {f"{prefix}-{i:07d}".encode(): source.randbytes(source.randrange(1, 2 * value_bytes)) for i in range(count)}


def small_tree(into, files, largest_file, large):
    """A few megabytes: files of many sizes, one of `large` bytes, which is more than a block, a link, an empty folder."""
    source = random.Random(3)
    into.mkdir()
    for i in range(files):
        folder = into / f"folder{i % 7}" / f"deeper{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{i}").write_bytes(source.randbytes(source.choice((0, 1, 100, 4095, 4096, 4097, largest_file))))
    (into / "large").write_bytes(source.randbytes(large))
    (into / "empty").mkdir()
    os.symlink("large", into / "link")


def step(what):
    """Says how far a long test has come."""
    print(f"  {time.monotonic() - BEGUN:6.1f} s  {what}", flush=True)


def same_tree(left, right):
    """Differences between two folder trees: kinds, modes, times, targets and content."""
    problems = []

    def entries(root):
        found = {".": os.lstat(root)}
        for folder, folders, files in os.walk(root):
            for name in folders + files:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, root)] = os.lstat(path)
        return found
    a, b = entries(left), entries(right)
    for path in sorted(a.keys() | b.keys()):
        if path not in a or path not in b:
            problems.append(f"{path} is only in {left if path in a else right}")
            continue
        one, two = os.path.join(left, path), os.path.join(right, path)
        if os.path.islink(one):
            if not os.path.islink(two) or os.readlink(one) != os.readlink(two):
                problems.append(f"{path}: another link")
            continue
        if a[path].st_mode != b[path].st_mode or a[path].st_mtime_ns != b[path].st_mtime_ns:
            problems.append(f"{path}: another mode or time")
        if os.path.isfile(one) and Path(one).read_bytes() != Path(two).read_bytes():
            problems.append(f"{path}: another content")
    return problems


def main(tests):
    """Runs test_* functions of a module's globals()."""
    global PROGRAM
    PROGRAM = os.path.abspath(sys.argv[1])
    chosen = sys.argv[2:]
    failed = []
    for name, test in list(tests.items()):
        if not name.startswith("test_") or (chosen and name not in chosen):
            continue
        begun = time.monotonic()
        scratch = Scratch(name[5:])
        good = False
        try:
            test(scratch)
            good = True
        except Exception:  # pylint: disable=broad-except
            traceback.print_exc()
            failed.append(name)
        finally:
            scratch.close(keep=not good and bool(os.environ.get("SLUICE_KEEP")))
        print(f"{'ok  ' if good else 'FAIL'} {name} ({time.monotonic() - begun:.1f} s)", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
        sys.exit(1)
