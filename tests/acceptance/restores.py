"""Restores whose driver stands still, whose cluster block takes no writes, or whose node comes back with another store."""

import json
import os
import shutil
import signal
import sqlite3
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
from harness import check, check_equal, wait_for  # noqa: E402

RECORDS = 12000


def archive_of(scratch):
    """An archive in a folder, and the records it holds."""
    records = harness.random_records(RECORDS, 2500, 11)
    source = scratch.cluster("from", 1)
    source.put_lines(records)
    folder = source.json("backup", "create", "--name", "b")["archives"][0]["path"]
    return folder, records


def holds_some(cluster):
    """Whether a restore into the cluster is under way."""
    return sum(node["records"] for node in cluster.json("nodes")["nodes"]) > RECORDS // 4


def slow_cluster(scratch):
    """Whose nodes take so little at a time that a restore lasts for seconds."""
    return scratch.cluster("c", 3, "--limit", ",".join(f"n{i}=8MB/s" for i in (1, 2, 3)))


def block_of(cluster, timeout):
    return sqlite3.connect(cluster.url.removeprefix("sqlite:"), timeout=timeout, isolation_level=None)


def is_driven(cluster):
    """Whether a restore has stored that it has begun."""
    block = block_of(cluster, 30)
    found = block.execute("select count(*) from kv where key >= ? and key < ?", (b"restores/", b"restores0")).fetchone()
    block.close()
    return found[0] > 0


def stop_outside_a_commit(process, cluster):
    """A process that is stopped while it has the database's lock keeps everybody else out, which is not what is tried."""
    for _ in range(50):
        process.send_signal(signal.SIGSTOP)
        block = block_of(cluster, 0.3)
        try:
            block.execute("BEGIN IMMEDIATE")
            block.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
        finally:
            block.close()
        time.sleep(0.01)
    check(False, "the process was in a commit whenever it was stopped")


def finish(process):
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout.decode(), stderr.decode()


def test_stopped_driver_has_no_say(scratch):
    """A driver that was stopped while another one finished its restore ends without a word in it."""
    folder, records = archive_of(scratch)
    cluster = slow_cluster(scratch)
    stopped = cluster.background("restore", "--archive", folder)
    wait_for(lambda: is_driven(cluster) or stopped.poll() is not None, "the restore is under way")
    stop_outside_a_commit(stopped, cluster)
    check(stopped.poll() is None, "the restore ended before it was stopped")
    outcomes = []

    def restored():
        outcomes.append(cluster.json("restore", "--archive", folder, expect=(0, 1)))
        return outcomes[-1].get("state") == "completed"
    wait_for(restored, "another process takes the restore over")
    check_equal((outcomes[-1]["written"], outcomes[-1]["proof"]["differing"]), (RECORDS, 0), "the second driver's end")
    stopped.send_signal(signal.SIGCONT)
    code, stdout, _ = finish(stopped)
    check_equal(code, 1, f"exit code of the first driver: {stdout}")
    check("superseded" in stdout or "is over" in stdout, f"it does not say why: {stdout}")
    check_equal(cluster.json("restore", "failed")["failed"], [], "the retry list")
    check(cluster.records(scratch.path("new.jsonl")) == records, "the restore does not hold the records")


def test_cluster_block_takes_no_writes(scratch):
    """Slow is not dead: a cluster block that is busy with other work for some seconds ends no restore."""
    folder, _ = archive_of(scratch)
    cluster = slow_cluster(scratch)
    process = cluster.background("restore", "--archive", folder)
    wait_for(lambda: is_driven(cluster) or process.poll() is not None, "the restore is under way")
    block = block_of(cluster, 30)
    block.execute("BEGIN IMMEDIATE")
    time.sleep(5)
    block.execute("ROLLBACK")
    block.close()
    code, stdout, stderr = finish(process)
    check_equal(code, 0, f"exit code: {stdout}{stderr}")


def test_replaced_store_is_filled_again(scratch):
    """What was restored into a store that is gone is restored again."""
    folder, records = archive_of(scratch)
    cluster = scratch.cluster("c", 3)
    process = cluster.background("restore", "--archive", folder)
    wait_for(lambda: holds_some(cluster) or process.poll() is not None, "the restore is under way")
    process.kill()
    finish(process)
    cluster.kill("n2")
    shutil.rmtree(cluster.folder / "n2")
    cluster.start("n2", "--accept-data-loss")
    outcome = {}

    def restored():
        outcome.update(cluster.json("restore", "--archive", folder, expect=(0, 1)))
        return outcome.get("state") == "completed"
    wait_for(restored, "the restore goes on")
    check_equal((outcome["written"], outcome["proof"]["differing"]), (RECORDS, 0), "restored")
    check_equal({node["records"] for node in cluster.json("nodes")["nodes"]}, {RECORDS}, "records of each node")
    check(cluster.records(scratch.path("new.jsonl")) == records, "the restore does not hold the records")


def progress_lines(stderr):
    """The JSON lines of --json-progress that are about bytes."""
    lines = [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("percent") is not None]


def test_restore_is_a_job(scratch):
    """It is seen, cancelled and resumed from another process; its progress never goes back and ends at 100 %."""
    folder, records = archive_of(scratch)
    cluster = slow_cluster(scratch)
    process = cluster.background("--json-progress", "restore", "--archive", folder)

    def under_way():
        views = cluster.json("restore", "list")["restores"]
        return [v for v in views if v["state"] == "running" and 0 < v["bytes_done"] < v["bytes_total"]] or process.poll()
    wait_for(under_way, "the restore is seen under way")
    view = under_way()[0]
    check_equal(view["backup"], "b", "the backup's name")
    shown = cluster.json("restore", "show", view["restore"])
    check("bytes_per_second" in shown and "seconds_left" in shown, f"{shown}")
    check(b"running" in cluster.run("restore", "list").stdout, "the table names the state")
    cluster.json("restore", "resume", "b", expect=1)  # it is driven already
    check_equal(cluster.json("restore", "cancel", "b")["state"], "cancelled", "the state")
    code, stdout, stderr = finish(process)
    check(code == 1 and json.loads(stdout)["state"] == "cancelled", f"{code} {stdout} {stderr}")
    percents = [line["percent"] for line in progress_lines(stderr)]
    check(percents == sorted(percents) and percents[-1] < 100, f"{percents}")
    check_equal(cluster.json("restore", "cancel", "b")["state"], "cancelled", "the state, said again")

    done = cluster.run("--json", "--json-progress", "restore", "resume", view["restore"])
    percents = [line["percent"] for line in progress_lines(done.stderr.decode())]
    check(percents == sorted(percents) and percents[-1] == 100 and percents.count(100) == 1, f"{percents}")
    check_equal((done.json["state"], done.json["proof"]["differing"]), ("completed", 0), "the resumed restore")
    check_equal(cluster.records(scratch.path("all")), records, "the records")
    ended = cluster.json("restore", "list")["restores"]
    check_equal([(v["state"], v["bytes_done"] == v["bytes_total"]) for v in ended], [("completed", True)], "the list")
    cluster.json("restore", "resume", "b", expect=1)
    cluster.json("restore", "cancel", "b", expect=1)
    cluster.json("restore", "show", "nothing", expect=1)


def test_driver_that_dies_or_is_interrupted(scratch):
    """A restore whose process was killed is listed as failed with what to do; an interrupt cancels it; both go on."""
    folder, records = archive_of(scratch)
    cluster = slow_cluster(scratch)
    for number, state in ((signal.SIGKILL, "failed"), (signal.SIGINT, "cancelled")):
        process = cluster.background("restore", "--archive", folder)
        wait_for(lambda: is_driven(cluster) and cluster.json("restore", "list")["restores"][0]["state"] == "running"
                 or process.poll() is not None, "the restore is under way")
        process.send_signal(number)
        process.communicate(timeout=60)

        def ended():
            return cluster.json("restore", "show", "b")
        wait_for(lambda: ended()["state"] == state, f"it is listed as {state}")
        check(state == "cancelled" or "restore resume" in ended()["reason"], f"{ended()}")
    check_equal(cluster.json("restore", "resume", "b")["state"], "completed", "the resumed restore")
    check_equal(cluster.records(scratch.path("all")), records, "the records")


if __name__ == "__main__":
    harness.main(globals())
