"""Replicas that differ: the backup takes the newest of every record and counts each disagreement."""

import json
import threading

import harness
from harness import check, check_equal


def restored_records(scratch, cluster, backup, name):
    """What a backup holds, as an empty cluster shows it after a restore."""
    empty = scratch.cluster(name, 3)
    check_equal(empty.json("restore", backup, "--from", cluster.url)["state"], "completed", "restore")
    return empty.records(scratch.path(f"{name}.jsonl"))


def test_counts_are_exact(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    old = harness.random_records(300, 300, 1)
    cluster.put_lines(old)
    cluster.settle()
    cluster.kill("n2")
    keys = list(old)
    overwritten = {key: b"newer" for key in keys[:40]}
    fresh = harness.random_records(25, 300, 2, "fresh")
    cluster.put_lines(overwritten | fresh)
    deleted = keys[100:110]
    for key in deleted:
        cluster.run("record", "delete", key.decode())
    cluster.start("n2")
    backup = cluster.json("backup", "create", "--name", "b")
    check_equal(backup["state"], "completed", "state")
    check_equal(backup["divergence"], {"stale": 50, "missing": 25, "conflicting": 0}, "divergence")
    touched = set(overwritten) | set(fresh) | set(deleted)
    check(0 < backup["slots_divergent"] <= min(64, len(touched)), f"{backup['slots_divergent']} slots diverge")
    expected = {k: v for k, v in (old | overwritten | fresh).items() if k not in deleted}
    check_equal(backup["records"], len(expected), "records")
    check(restored_records(scratch, cluster, "b", "new") == expected, "the backup does not hold the newest of every record")


def test_every_acknowledged_write_is_held(scratch):
    """A node dies while several writers write, and comes back; nothing acknowledged before the backup is missing."""
    cluster = scratch.cluster("c", 3)
    acknowledged = {}
    lock = threading.Lock()
    stop = threading.Event()
    trouble = []

    def write(writer):
        number = 0
        while not stop.is_set():
            batch = {f"w{writer}-{number + i:06d}".encode(): f"value {number + i}".encode() * 20 for i in range(50)}
            number += 50
            lines = b"".join(harness.json_line(k, v) for k, v in batch.items())
            result = cluster.json("record", "import", "--jsonl", "-", stdin=lines, expect=(0, 1))
            refused = {failure["path"].encode() for failure in result.get("failures", [])}
            if result["failed"] > len(refused):
                trouble.append(result)
                return
            with lock:
                acknowledged.update({k: v for k, v in batch.items() if k not in refused})

    writers = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for thread in writers:
        thread.start()
    try:
        harness.wait_for(lambda: len(acknowledged) >= 300, "writes before the kill")
        cluster.kill("n3")
        at_kill = len(acknowledged)
        harness.wait_for(lambda: len(acknowledged) >= at_kill + 300, "writes while a node is dead")
        cluster.start("n3")
        at_start = len(acknowledged)
        harness.wait_for(lambda: len(acknowledged) >= at_start + 100, "writes after it is back")
        with lock:
            promised = dict(acknowledged)
        backup = cluster.json("backup", "create", "--name", "b")
    finally:
        stop.set()
        for thread in writers:
            thread.join()
    check(not trouble, json.dumps(trouble)[:2000])
    check_equal(backup["state"], "completed", "state")
    check(backup["divergence"]["missing"] > 0, f"no divergence: {backup['divergence']}")
    held = restored_records(scratch, cluster, "b", "new")
    lost = [key for key, value in promised.items() if held.get(key) != value]
    check(not lost, f"{len(lost)} of {len(promised)} acknowledged writes are not in the backup, such as {lost[:5]}")


if __name__ == "__main__":
    harness.main(globals())
