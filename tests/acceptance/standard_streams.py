"""Standard streams that are closed or full: every verb ends with an exit code of its own, and no file gets the output."""

import fcntl
import itertools
import os
import re
import resource
import signal
import subprocess
import termios

import harness
from harness import check, check_equal


def exit_code(arguments, redirection, cluster):
    """Runs the program with a shell's redirection."""
    command = subprocess.run(["bash", "-c", f'exec "$0" "$@" {redirection}', harness.PROGRAM, "--cluster", cluster,
                              *map(os.fspath, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, timeout=60, env=harness.environment(), check=False)
    return command.returncode


def test_closed_and_full_streams(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    cluster.put_lines(harness.random_records(50, 100, 1))
    before = cluster.export(scratch.path("before"))
    out = scratch.path("out")
    failing = ["record", "get", "absent"]
    verbs = [["doctor"], failing, ["nonsense"], ["record", "export", "--jsonl", "-"],
             ["record", "export", "--jsonl", out], ["record", "put", "key-0", "value"], ["record", "delete", "key-0"],
             ["local", "start", "--dir", cluster.folder, "n1"]]
    redirections = [">&-", "2>&-", "2>/dev/full", ">/dev/full", "<&- >&- 2>&-"]
    for verb, redirection, json in itertools.product(verbs, redirections, ([], ["--json"])):
        code = exit_code(json + verb, redirection, cluster.url)
        what = f"{json + verb} {redirection}"
        check(code in (0, 1, 2), f"{what}: exit code {code}")
        if verb in (failing, ["nonsense"]):
            check(code != 0, f"{what}: a failure became exit code 0")
        if (">/dev/full" in redirection or ">&-" in redirection) and "2>" not in redirection.split()[0] and json:
            check(code != 0, f"{what}: exit code 0 though nothing could be printed")
        if verb[:3] == ["record", "export", "--jsonl"] and verb[3] == out:
            check_equal(out.read_bytes(), before, f"the file of {what}")
    check_equal(cluster.export(scratch.path("after")), before, "the records afterwards")
    cluster.serves()


def test_a_cluster_started_without_streams(scratch):
    folder = scratch.path("c")
    scratch.clusters.append(folder)
    url = f"sqlite:{folder}/cluster.db"
    exit_code(["local", "up", "--dir", folder, "--nodes", "2", "--slots", "64"], "<&- >&- 2>&-", url)
    harness.run("record", "put", "key", "value", cluster=url)
    harness.run("backup", "create", "--name", "b", cluster=url)
    harness.run("backup", "verify", "b", cluster=url)
    # A node that is started without its streams writes its log into none of its files.
    harness.run("local", "kill", "--dir", folder, "n2")
    node = subprocess.Popen(["bash", "-c", f'exec "$0" node --config {folder}/n2.toml <&- >&- 2>&-', harness.PROGRAM],
                            env=harness.environment())
    try:
        harness.wait_for(lambda: all(n["state"] == "live" and n["records"] == 1 for n in
                                     harness.run_json("nodes", cluster=url)["nodes"]), "both nodes serve")
        check(node.poll() is None, "the node ended")
        harness.run("backup", "create", "--name", "b2", cluster=url)
        harness.run("backup", "verify", "b2", cluster=url)
    finally:
        node.terminate()
        node.wait(30)


def test_a_node_whose_log_nobody_reads(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    cluster.kill("n2")
    reader, writer = pipe(1)
    os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with subprocess.Popen([harness.PROGRAM, "node", "--config", cluster.folder / "n2.toml"], stdout=writer, stderr=writer,
                          env=harness.environment()) as node:
        try:
            harness.wait_for(lambda: all(n["state"] == "live" for n in cluster.json("nodes")["nodes"]), "both are live")
            cluster.serves()
        finally:
            node.kill()
            node.wait(30)
            os.close(reader)
            os.close(writer)


def test_a_reader_that_goes(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    cluster.put_lines(harness.random_records(300, 20000, 1))
    process = subprocess.Popen([harness.PROGRAM, "--cluster", cluster.url, "record", "export", "--jsonl", "-"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.environment())
    process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read()
    check_equal((process.wait(60), said), (1, b""), "exit code and stderr when the reader of stdout went away")


def pipe(non_blocking, size=4096):
    """A pipe whose end `non_blocking` (0: reading, 1: writing) does not block, as a shell or ssh may leave it."""
    ends = os.pipe()
    fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, size)
    fcntl.fcntl(ends[non_blocking], fcntl.F_SETFL, os.O_NONBLOCK)
    return ends


def test_streams_that_do_not_block(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    cluster.put_lines(harness.random_records(300, 2000, 1))
    wanted = cluster.export(scratch.path("all"))
    reader, writer = pipe(1)
    with subprocess.Popen([harness.PROGRAM, "--cluster", cluster.url, "record", "export", "--jsonl", "-"], stdout=writer,
                          stderr=subprocess.PIPE, env=harness.environment()) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as got:
            check(got.read() == wanted, "another export through a pipe that does not block")
        check_equal(process.wait(60), 0, f"exit code of the export: {process.stderr.read()}")
    for arguments in (["put", "by-pipe", "--file", "-"], ["import", "--jsonl", "-"]):
        reader, writer = pipe(0)
        with subprocess.Popen([harness.PROGRAM, "--cluster", cluster.url, "record", *arguments], stdin=reader,
                              stderr=subprocess.PIPE, env=harness.environment()) as process:
            os.close(reader)
            # It finds nothing there yet, and is to wait.
            harness.wait_for(lambda child=process: child.poll() is not None or sleeps(child.pid),
                             "the program waits for its input")
            os.write(writer, harness.json_line(b"by-line", b"1"))
            os.close(writer)
            check_equal(process.wait(60), 0, f"exit code of {arguments}: {process.stderr.read()}")
    check_equal(cluster.run("record", "get", "by-pipe").stdout, harness.json_line(b"by-line", b"1"), "a value by pipe")
    check_equal(cluster.run("record", "get", "by-line").stdout, b"1", "a line by pipe")


def sleeps(pid):
    """Whether the program has started and its first thread sleeps, as it does only to wait for its input."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        state = stat.read().rsplit(")", 1)[1].split()[0]
    return state == "S" and handles_signal(pid, signal.SIGINT)


def handles_signal(pid, number):
    blocked = re.compile(r"^SigBlk:\s*(\w+)$", re.MULTILINE)
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return int(blocked.search(status.read())[1], 16) >> (number - 1) & 1


def test_a_terminal_that_goes(scratch):
    cluster = scratch.cluster("c", 1, "--slots", "64")
    reader, writer = os.pipe()
    master, slave = os.openpty()

    def enter():
        os.setsid()
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    with subprocess.Popen([harness.PROGRAM, "--cluster", cluster.url, "record", "import", "--jsonl", "-"], stdin=reader,
                          stdout=slave, stderr=slave, preexec_fn=enter, env=harness.environment()) as process:
        os.close(slave)
        os.close(reader)
        os.write(writer, harness.json_line(b"a", b"1"))
        harness.wait_for(lambda: handles_signal(process.pid, signal.SIGHUP), "the program handles SIGHUP")
        os.close(master)
        check_equal(process.wait(60), 1, "exit code once the terminal is gone")
        os.close(writer)
    cluster.serves()


def test_files_that_may_not_grow(scratch):
    cluster = scratch.cluster("c", 1, "--slots", "64")
    cluster.put_lines(harness.random_records(100, 20000, 1))
    tree = scratch.path("tree")
    harness.small_tree(tree, 10, 100_000, 3_000_000)
    cluster.json("record", "import", "--tree", tree, "--prefix", "t/")
    out = scratch.path("out")
    out.mkdir()
    for arguments in (["--jsonl", out / "file"], ["--tree", out / "tree", "--prefix", "t/"]):
        done = subprocess.run([harness.PROGRAM, "--cluster", cluster.url, "record", "export", *map(os.fspath, arguments)],
                              capture_output=True, env=harness.environment(), timeout=60, check=False,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)))
        check_equal(done.returncode, 1, f"exit code of {arguments}: {done.stderr}")
        check(b"File too large" in done.stderr, f"the error does not say why: {done.stderr}")
    left = [path for path in out.rglob("*") if path.name.startswith(".sluice")]
    check_equal((left, (out / "file").exists()), ([], False), "what is left of the exports")


if __name__ == "__main__":
    harness.main(globals())
