"""Nodes that are killed while a backup or a restore runs. What is chosen at random comes from a printed seed."""

import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import harness
from harness import check, check_equal

SEED = int(os.environ.get("SLUICE_SEED", str(time.time_ns() % 1_000_000)))
RECORDS = 1200
VALUE_BYTES = 32 << 10


def filled_cluster(scratch, name, seed, records=RECORDS):
    cluster = scratch.cluster(name, 4)
    records = harness.random_records(records, VALUE_BYTES, seed)
    done = cluster.put_lines(records)
    check_equal(done["records"], len(records), "records")
    return cluster, records


def finish(process, timeout=300):
    """The JSON object of a background command."""
    out, err = process.communicate(timeout=timeout)
    try:
        return json.loads(out)
    except ValueError as error:
        raise harness.Failed(f"no JSON: {out!r}\n{err.decode(errors='replace')}") from error


def kill_after(cluster, process, delay, name):
    """Kills a node some time into a command; whether the command was still running."""
    time.sleep(delay)
    running = process.poll() is None
    cluster.kill(name)
    return running


def complete_backup(cluster, name, outcome):
    """Resumes until the backup is completed; at most five times."""
    for _ in range(5):
        if outcome.get("state") == "completed":
            return outcome
        shown = cluster.json("backup", "show", name, expect=None)
        if shown.get("state") is None:  # it never began
            outcome = cluster.json("backup", "create", "--name", name, expect=None)
        else:
            outcome = cluster.json("backup", "resume", name, expect=None)
    check_equal(outcome.get("state"), "completed", f"the backup after resuming: {outcome}")
    return outcome


def test_node_killed_during_backup(scratch):
    source = random.Random(SEED)
    print(f"  SLUICE_SEED={SEED}")
    cluster, records = filled_cluster(scratch, "c", SEED)
    caught = 0
    for round_number in range(3):
        name = f"b{round_number}"
        victim = source.choice(cluster.names)
        process = cluster.background("backup", "create", "--name", name)
        caught += kill_after(cluster, process, source.uniform(0.05, 1.0), victim)
        outcome = finish(process)
        cluster.start(victim)
        complete_backup(cluster, name, outcome)
        check_equal(cluster.json("backup", "verify", name)["bad"], [], "bad blocks")
    print(f"  {caught} of 3 kills hit a running backup")
    empty = scratch.cluster("new", 3)
    for round_number in range(3):
        check_equal(empty.json("restore", f"b{round_number}", "--from", cluster.url)["state"], "completed", "restore")
    check(empty.records(scratch.path("new.jsonl")) == records, "the backups do not hold the records")


def test_node_killed_during_restore(scratch):
    source = random.Random(SEED + 1)
    print(f"  SLUICE_SEED={SEED}")
    cluster, records = filled_cluster(scratch, "c", SEED + 1)
    cluster.json("backup", "create", "--name", "b")
    target = scratch.cluster("new", 4)
    victim = source.choice(target.names)
    process = target.background("restore", "b", "--from", cluster.url)
    caught = kill_after(target, process, source.uniform(0.05, 1.0), victim)
    print(f"  the kill {'hit' if caught else 'missed'} the running restore")
    outcome = finish(process)
    check(outcome.get("state") == "completed" or outcome.get("code") in (1, 4), f"outcome {outcome}")
    target.start(victim)
    if outcome.get("state") != "completed":
        for _ in range(5):
            target.json("restore", "failed", "--retry", expect=None)
            outcome = target.json("restore", "b", "--from", cluster.url, expect=None)
            if outcome.get("state") == "completed" and not target.json("restore", "failed", expect=None)["failed"]:
                break
        check_equal(outcome.get("state"), "completed", f"the restore run again: {outcome}")
    check_equal(target.json("restore", "failed")["failed"], [], "the retry list at the end")
    check(target.records(scratch.path("new.jsonl")) == records, "the restore does not hold the records")


def block_takes_writes(cluster):
    """Whether nobody holds the lock of the cluster block's file."""
    connection = sqlite3.connect(cluster.url.removeprefix("sqlite:"), timeout=2, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        return True
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()


def stop(pid):
    """SIGSTOP, until it stands: threads run on until one of them has taken the signal."""
    os.kill(pid, signal.SIGSTOP)
    def stands():
        states = [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]
        return all(state == "T" for state in states)
    harness.wait_for(stands, f"process {pid} is stopped")


def stop_outside_a_commit(cluster, name):
    """Stops a node, but not while it holds the lock of the cluster block, which would stop everybody."""
    stop(cluster.pids[name])
    while not block_takes_writes(cluster):
        os.kill(cluster.pids[name], signal.SIGCONT)
        time.sleep(0.005)
        stop(cluster.pids[name])


def stop_a_coordinator(cluster):
    """Backs up until a coordinator is stopped in the middle: a backup is quick. Its name, client and coordinator."""
    for number in range(30):
        name = f"b{number}"
        process = cluster.background("backup", "create", "--name", name)
        while process.poll() is None:
            shown = cluster.json("backup", "show", name, expect=None)
            if shown.get("state") not in ("enabled", "sent"):
                continue
            stop_outside_a_commit(cluster, shown["coordinator"])
            if cluster.json("backup", "show", name)["state"] not in ("completed", "failed"):
                return name, process, shown["coordinator"]
            os.kill(cluster.pids[shown["coordinator"]], signal.SIGCONT)
        finish(process)
    raise harness.Failed("no backup was under way when its coordinator was stopped")


def test_stopped_coordinator_has_no_say(scratch):
    """Another node completes the backup of a coordinator that stands still; when that goes on, it changes nothing."""
    cluster, records = filled_cluster(scratch, "c", SEED + 3, records=4 * RECORDS)
    name, process, stopped = stop_a_coordinator(cluster)
    shown = {}
    try:
        def taken_over():
            shown.update(cluster.json("backup", "show", name))
            return shown["state"] == "completed" or shown["state"] == "failed"
        harness.wait_for(taken_over, "another node ends the backup")
    finally:
        os.kill(cluster.pids[stopped], signal.SIGCONT)
    check_equal(shown["state"], "completed", f"state: {shown}")
    check(shown["coordinator"] != stopped, f"{stopped} coordinates still")
    check_equal(finish(process).get("state"), "completed", "what the client is told")
    harness.wait_for(lambda: all(n["state"] == "live" for n in cluster.json("nodes")["nodes"]), "all nodes are live")
    check_equal(cluster.json("backup", "verify", name)["bad"], [], "bad blocks")
    check_equal(cluster.json("backup", "show", name)["records"], len(records), "records")
    for backup in cluster.json("backup", "list")["backups"]:
        cluster.run("backup", "delete", backup["backup"])
    left = [p for name in cluster.names for p in (cluster.folder / f"{name}-archive").iterdir()]
    check_equal(left, [], "what the deletion left")


def test_interrupted_backup_is_cancelled(scratch):
    cluster, _ = filled_cluster(scratch, "c", SEED + 2)
    process = cluster.background("backup", "create", "--name", "b")
    while True:
        line = process.stderr.readline()
        check(line, "the backup ended before it was interrupted")
        if b"planning" in line:
            break
    process.send_signal(2)
    outcome = finish(process)
    check_equal(process.returncode, 0 if outcome["state"] == "completed" else 1, f"exit code with {outcome}")
    check(outcome["state"] in ("cancelled", "completed"), f"state {outcome['state']}")
    check_equal(cluster.json("backup", "show", "b")["state"], outcome["state"], "state shown")
    check_equal(cluster.json("backup", "create", "--name", "after")["state"], "completed", "a backup afterwards")


def waits_for_interrupts(process):
    """Whether it has blocked SIGINT, which it waits for on a thread from then on."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        blocked = next(line for line in status if line.startswith("SigBlk:"))
    return int(blocked.split()[1], 16) & 1 << signal.SIGINT - 1


def test_a_backup_is_interrupted_before_it_has_told_its_name(scratch):
    cluster, _ = filled_cluster(scratch, "c", SEED + 3)

    def state_after(interrupts, name):
        process = cluster.background("backup", "create", "--name", name)
        harness.wait_for(lambda: waits_for_interrupts(process), "the program to wait for signals")
        process.send_signal(signal.SIGINT)
        if interrupts == 2:
            # What the backup tells of itself may come before.
            check(any(b"interrupted" in line for line in iter(process.stderr.readline, b"")),
                  "the first interrupt is not told")
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

        def state():
            backups = cluster.json("backup", "list")["backups"]
            return next((backup["state"] for backup in backups if backup["backup"] == name), "none")

        harness.wait_for(lambda: state() in ("none", "cancelled", "completed"), f"the end of backup {name}")
        return state()

    for interrupts in (1, 2):
        # On a busy machine the backup may be faster than its cancellation, but not time and again.
        states = ["completed"]
        while states[-1] == "completed" and len(states) < 6:
            states.append(state_after(interrupts, f"b{interrupts}-{len(states)}"))
        check(states[-1] != "completed", f"interrupted {interrupts} times: {states}")
    check_equal(cluster.json("backup", "create", "--name", "after")["state"], "completed", "a backup afterwards")


def test_what_a_commit_that_was_cut_short_left_is_removed(scratch):
    """A node that is killed after its manifest is stored, and before its journal is removed, has both."""
    cluster, _ = filled_cluster(scratch, "c", SEED + 4, records=50)
    cluster.json("backup", "create", "--name", "b")
    part = cluster.folder / "n1-archive" / "b"
    cluster.kill("n1")
    left = [part / "journal", part / "manifest.4f.tmp"]
    others = [part / "notes", cluster.folder / "n1-archive" / "journal"]  # no archive's
    for path in left + others:
        path.write_bytes(b"what was there")
    cluster.start("n1")
    harness.wait_for(lambda: not any(path.exists() for path in left), "what was left is removed")
    check(all(path.exists() for path in others), "what is not of the archive is gone")
    others[0].unlink()  # which a verification reports
    check_equal(cluster.json("backup", "verify", "b")["bad"], [], "bad blocks")


def test_lost_data_folder_is_noticed(scratch):
    cluster = scratch.cluster("c", 3)
    cluster.put_lines(harness.random_records(50, 100, 5))
    cluster.kill("n1")
    data = cluster.folder / "n1"
    os.rename(data, scratch.path("lost"))
    refused = cluster.start("n1", expect=1)
    check(b"--accept-data-loss" in refused.stderr or b"accept" in refused.stderr, str(refused))
    cluster.start("n1", "--accept-data-loss")
    cluster.serves()
    backup = cluster.json("backup", "create", "--name", "b")
    check_equal(backup["records"], 50, "records although a replica lost all of its")


if __name__ == "__main__":
    harness.main(globals())
