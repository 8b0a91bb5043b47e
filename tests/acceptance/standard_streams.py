"""Standard streams that are closed or full: every verb ends with an exit code of its own, and no file gets the output."""

import itertools
import os
import subprocess

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


def test_a_reader_that_goes(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    cluster.put_lines(harness.random_records(300, 20000, 1))
    process = subprocess.Popen([harness.PROGRAM, "--cluster", cluster.url, "record", "export", "--jsonl", "-"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=harness.environment())
    process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read()
    check_equal((process.wait(60), said), (1, b""), "exit code and stderr when the reader of stdout went away")


if __name__ == "__main__":
    harness.main(globals())
