"""Little memory and few descriptors: a node says so and ends or refuses, the others go on, and what was acknowledged is
there."""

import os
import resource
import subprocess
from pathlib import Path

import harness
from harness import check, check_equal, step


def limit(pid, which, value):
    """The soft limit, so that it can be raised again."""
    resource.prlimit(pid, which, (value, resource.prlimit(pid, which)[1]))


def status(pid, field):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def is_alive(pid):
    try:
        return status(pid, "VmSize") > 0
    except OSError:
        return False


def test_a_node_without_address_space(scratch):
    """What one node cannot allocate costs the cluster nothing that was acknowledged."""
    cluster = scratch.cluster("c", 3, "--slots", "64")
    known = harness.random_records(300, 20_000, 1)
    cluster.put_lines(known)
    ended = 0
    for number, more in enumerate((0, 1 << 20, 8 << 20, 32 << 20)):
        pid = cluster.pids["n2"]
        limit(pid, resource.RLIMIT_AS, status(pid, "VmSize") * 1024 + more)
        new = harness.random_records(400, 60_000, number + 2, prefix=f"more{number}")
        done = cluster.put_lines(new, expect=(0, 1))
        if done.get("code"):
            step(f"import: {done['error'][:300]}")
            cluster.put_lines(new)
        known.update(new)
        name = f"b{number}"
        backup = cluster.json("backup", "create", "--name", name, expect=None)
        alive = is_alive(pid)
        step(f"{more >> 20} MiB more: {backup.get('state')} {backup.get('error', '')[:300]} {'' if alive else '(n2 ended)'}")
        if not alive:
            ended += 1
            log = (cluster.folder / "n2.log").read_text()
            reasons = ("out of memory", "Cannot allocate", "the system gives no further thread")
            check(any(reason in log for reason in reasons), f"n2 ended without a reason: {log[-3000:]}")
        harness.run("local", "kill", "--dir", cluster.folder, "n2", expect=(0, 1))
        if backup.get("state") != "completed":
            check(backup.get("error"), f"no error: {backup}")
            cluster.serves()
        cluster.start("n2")
        if backup.get("state") != "completed" and cluster.json("backup", "show", name, expect=None).get("state") == "failed":
            check_equal(cluster.json("backup", "resume", name)["state"], "completed", "resumed with memory")
        check(cluster.records(scratch.path("found")) == known, "records")
    step(f"n2 ended {ended} times")


def test_a_node_with_few_descriptors(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    known = harness.random_records(300, 20_000, 1)
    cluster.put_lines(known)
    for number, spare in enumerate((0, 4, 16)):
        pid = cluster.pids["n2"]
        limit(pid, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{pid}/fd")) + spare)
        new = harness.random_records(300, 20_000, number + 2, prefix=f"more{number}")
        done = cluster.put_lines(new, expect=(0, 1))
        if done.get("code"):
            step(f"import: {done['error'][:300]}")
        name = f"b{number}"
        backup = cluster.json("backup", "create", "--name", name, expect=None)
        step(f"{spare} descriptors to spare: {backup.get('state')} {backup.get('error', '')[:300]}")
        if is_alive(pid):
            limit(pid, resource.RLIMIT_NOFILE, 1024)
        else:
            cluster.start("n2")
        check_equal(cluster.put_lines(new)["failed"], 0, "failed records")
        known.update(new)

        def live():
            return all(node["state"] == "live" for node in cluster.json("nodes")["nodes"])
        if any(node["state"] == "read-only" for node in cluster.json("nodes")["nodes"]):
            # RocksDB could not open a file: the log says what has to be done.
            log = (cluster.folder / "n2.log").read_text()
            check("takes no writes until the node is started again" in log and "open files" in log, f"n2's log: {log[-3000:]}")
            step("n2 is read-only")
            cluster.kill("n2")
            cluster.start("n2")
        harness.wait_for(live, "n2 takes writes again")
        if backup.get("state") != "completed":
            check(backup.get("error"), f"no error: {backup}")
            if cluster.json("backup", "show", name, expect=None).get("state") == "failed":
                check_equal(cluster.json("backup", "resume", name)["state"], "completed", "resumed with descriptors")
        check_equal(cluster.json("backup", "create", "--name", f"{name}-after")["state"], "completed", "a backup afterwards")
        check(cluster.records(scratch.path("found")) == known, "records")


def test_starting_and_commands_with_few_descriptors(scratch):
    """The limit that a shell sets, of a whole local cluster and its clients."""
    for most in (16, 24, 40, 64, 128):
        folder = scratch.path(f"c{most}")
        script = f'ulimit -n {most}; exec "$0" "$@"'
        up = subprocess.run(["sh", "-c", script, harness.PROGRAM, "--json", "local", "up", "--dir", folder, "--nodes", "2"],
                            capture_output=True, text=True, check=False, timeout=200, env=harness.environment())
        scratch.clusters.append(folder)
        step(f"ulimit -n {most}: exit code {up.returncode} {(up.stdout + up.stderr)[:250]!r}")
        if up.returncode != 0:
            check(up.returncode == 1 and "error" in up.stdout, f"no error: {up.stdout} {up.stderr}")
            check("open files" in up.stdout or "descriptor" in up.stdout, f"the limit is not named: {up.stdout}")
        else:
            cluster = harness.Cluster.__new__(harness.Cluster)
            cluster.folder, cluster.url = folder, harness.json.loads(up.stdout)["cluster"]
            cluster.serves()
            backup = cluster.json("backup", "create", "--name", "b", expect=(0, 1))
            check(backup["state"] == "completed" or "open files" in backup["error"], f"another error: {backup}")
        harness.run("local", "down", "--dir", folder, expect=None)


def test_a_client_without_memory(scratch):
    """It ends with an error, not with a signal, and a file is whole or is not there. With less, gRPC cannot begin its
    threads and waits for them."""
    cluster = scratch.cluster("c", 2, "--slots", "64")
    records = harness.random_records(600, 60_000, 1)
    cluster.put_lines(records)
    right = cluster.export(scratch.path("right"))
    out = scratch.path("out")
    codes = {}
    for most in (400, 600, 800, 1200, 2000):
        script = f'ulimit -v {most << 10}; exec "$0" "$@"'
        done = subprocess.run(["sh", "-c", script, harness.PROGRAM, "--cluster", cluster.url, "record", "export", "--jsonl",
                               out], capture_output=True, text=True, check=False, timeout=200, env=harness.environment())
        codes[most] = done.returncode
        if done.returncode == 0:
            check(out.read_bytes() == right, f"another export with {most} MiB")
            out.unlink()
        else:
            check(not out.exists(), f"a file of a failed export with {most} MiB")
            check(done.stderr, f"no error with {most} MiB")
    step(f"exit codes by MiB of address space: {codes}")
    check(0 in codes.values(), "no export was done")
    cluster.serves()


if __name__ == "__main__":
    harness.main(globals())
