"""Restores that undo: what was deleted or overwritten comes back, what was added goes, and writers elsewhere are left alone."""

import concurrent.futures
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import harness  # noqa: E402
from harness import check, check_equal, wait_for  # noqa: E402


def delete(cluster, keys):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: cluster.run("record", "delete", key.decode()), keys))


class Writer:
    """Writes new records with a prefix of its own until it is stopped, and knows what was acknowledged."""

    def __init__(self, cluster, prefix):
        self.cluster, self.prefix, self.written = cluster, prefix, {}
        self.stopping = False
        self.thread = threading.Thread(target=self.work)

    def __enter__(self):
        self.thread.start()
        wait_for(lambda: self.written, "the writer has written")
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.thread.join()

    def work(self):
        number = 0
        while not self.stopping:
            key, value = f"{self.prefix}{number % 40:03d}", f"value {number}"
            if self.cluster.run("record", "put", key, value, expect=None).code == 0:
                self.written[key.encode()] = value.encode()
            number += 1


def after_a_mistake(scratch, *options):
    """1,000 records in a backup; then 40 are deleted, 250 overwritten and 30 added."""
    records = {f"docs/{i:04d}".encode(): b"old" for i in range(1000)}
    cluster = scratch.cluster("c", 3, "--slots", "128", *options)
    cluster.put_lines(records)
    cluster.json("backup", "create", "--name", "b")
    delete(cluster, list(records)[:40])
    cluster.put_lines({key: b"new" for key in list(records)[40:290]})
    cluster.put_lines({f"docs/x{i}".encode(): b"added" for i in range(30)})
    return cluster, records


def test_default_says_what_stays(scratch):
    """Nothing newer is undone unless it is asked for, and both the dry run and the restore say how much that is."""
    cluster, records = after_a_mistake(scratch)
    before = cluster.records(scratch.path("before"))
    dry = cluster.json("restore", "b", "--dry-run")
    check_equal((dry["kept_newer"], dry["kept_deleted"], dry["written"]), (250, 40, 0), "what the dry run says")
    done = cluster.json("restore", "b")
    check_equal((done["kept_newer"], done["kept_deleted"]), (250, 40), "what stays")
    check_equal((done["restored_over"], done["deleted_extra"]), (0, 0), "what is undone")
    check_equal(done["state"], "completed", "the state")
    text = cluster.run("restore", "b").stdout.decode()
    check("40 records were deleted after the backup and stay deleted" in text, text)
    check("--on-conflict archive" in text, text)
    check_equal(cluster.records(scratch.path("after")), before, "the records")
    check(len(before) == len(records) - 40 + 30, "the mistake took place")


def test_archive_wins(scratch):
    """All records are back as they were, on every replica; what others write meanwhile in another prefix is there too."""
    cluster, records = after_a_mistake(scratch)
    dry = cluster.json("restore", "b", "--on-conflict", "archive", "--dry-run")
    check_equal((dry["restored_over"], dry["kept_newer"], dry["deleted_extra"]), (290, 0, 0), "what the dry run says")
    with Writer(cluster, "other/") as writer:
        done = cluster.json("restore", "b", "--on-conflict", "archive")
    check_equal((done["state"], done["written"], done["restored_over"]), ("completed", 1000, 290), "the restore")
    check_equal((done["kept_newer"], done["kept_deleted"], done["deleted_extra"]), (0, 0, 0), "what stays")
    check_equal(done["proof"]["differing"], 0, "copies that lack records")
    added = {f"docs/x{i}".encode(): b"added" for i in range(30)}
    check_equal(cluster.records(scratch.path("one")), records | added | writer.written, "the records")

    # A second mistake; now what the archive does not have goes as well, in its prefix alone.
    delete(cluster, list(records)[500:510])
    dry = cluster.json("restore", "b", "--on-conflict", "archive", "--delete-extra", "--prefix", "docs/", "--dry-run")
    check_equal((dry["restored_over"], dry["deleted_extra"]), (10, 30), "what the dry run says")
    with Writer(cluster, "third/") as third:
        done = cluster.json("restore", "b", "--on-conflict", "archive", "--delete-extra", "--prefix", "docs/")
    check_equal((done["state"], done["deleted_extra"]), ("completed", 30), "the restore")
    check_equal(cluster.records(scratch.path("two")), records | writer.written | third.written, "the records")
    # All replicas say the same, so a backup of it has no slot that differs.
    cluster.settle()
    check_equal(cluster.json("backup", "create", "--name", "later")["slots_divergent"], 0, "slots that differ")
    # What is written afterwards is newer.
    cluster.put_lines({b"docs/0000": b"later"})
    check_equal(cluster.run("record", "get", "docs/0000").stdout, b"later", "a write after the restore")
    # Everything else goes where no prefix is named.
    done = cluster.json("restore", "b", "--on-conflict", "archive", "--delete-extra")
    check_equal(done["state"], "completed", "the restore")
    check_equal(cluster.records(scratch.path("three")), records, "the records")


def test_prefixes(scratch):
    """A prefix that matches nothing is an error and changes nothing; records come back under other names."""
    cluster, records = after_a_mistake(scratch)
    before = cluster.records(scratch.path("before"))
    for arguments in ((), ("--dry-run",), ("--on-conflict", "archive", "--delete-extra")):
        wrong = cluster.json("restore", "b", "--prefix", "dosc/", *arguments, expect=1)
        check("no record" in wrong["error"] and "dosc/" in wrong["error"], f"{wrong}")
    check_equal(cluster.records(scratch.path("same")), before, "the records")
    cluster.json("restore", "b", "--delete-extra", expect=2)
    cluster.json("restore", "b", "--prefix", "docs/=", "--on-conflict", "archive", "--delete-extra", expect=2)

    done = cluster.json("restore", "b", "--prefix", "docs/00=copy/")
    check_equal((done["state"], done["records"], done["written"]), ("completed", 100, 100), "the restore")
    check_equal((done["kept_newer"], done["kept_deleted"], done["proof"]["differing"]), (0, 0, 0), "what stays")
    copies = {key.replace(b"docs/00", b"copy/"): value for key, value in records.items() if key.startswith(b"docs/00")}
    check_equal(cluster.records(scratch.path("after")), before | copies, "the records")
    # Over what has changed there.
    cluster.put_lines({b"copy/00": b"changed", b"copy/x": b"added"})
    done = cluster.json("restore", "b", "--prefix", "docs/00=copy/", "--on-conflict", "archive", "--delete-extra")
    check_equal((done["restored_over"], done["deleted_extra"]), (1, 1), "the restore")
    check_equal(cluster.records(scratch.path("again")), before | copies, "the records")
    # A name that is too long is on the retry list, with its reason.
    long = cluster.json("restore", "b", "--prefix", "docs/00=" + "n" * 4096, expect=4)
    check_equal(long["failed"], 100, "records without a possible name")


def test_other_cluster(scratch):
    """Into a cluster with slots of another width, which has records of its own."""
    cluster, records = after_a_mistake(scratch)
    places = [a["path"] for a in cluster.json("backup", "show", "b")["archives"]]
    other = scratch.cluster("d", 3, "--slots", "32")
    other.put_lines({b"docs/0001": b"newer", b"docs/y": b"added", b"else": b"where"})
    done = other.json("restore", "--archive", *places, "--on-conflict", "archive", "--delete-extra", "--prefix", "docs/")
    check_equal((done["state"], done["restored_over"], done["deleted_extra"]), ("completed", 1, 1), "the restore")
    check_equal(other.records(scratch.path("all")), records | {b"else": b"where"}, "the records")


def test_killed_and_run_again(scratch):
    """A restore that is killed anywhere and run again brings the same; what was written after it began stays if it is resumed."""
    records = harness.random_records(6000, 2500, 5, "docs/")
    cluster = scratch.cluster("c", 3, "--slots", "128", "--limit", "n1=10MB/s,n2=10MB/s,n3=10MB/s")
    cluster.put_lines(records)
    cluster.json("backup", "create", "--name", "b")
    cluster.put_lines({key: b"wrong" for key in records})
    cluster.put_lines({f"docs/x{i}".encode(): b"added" for i in range(100)})
    undo = ("restore", "b", "--on-conflict", "archive", "--delete-extra", "--prefix", "docs/")

    def restored():
        return cluster.run("record", "get", "docs/-0000000").stdout == records[b"docs/-0000000"]
    with Writer(cluster, "other/") as writer:
        for signal_number in (signal.SIGKILL, signal.SIGTERM):
            process = cluster.background(*undo)
            wait_for(lambda: cluster.json("restore", "list")["restores"] or process.poll() is not None, "it has begun")
            time.sleep(0.3)
            process.send_signal(signal_number)
            process.communicate(timeout=60)
        check(process.returncode != 0, "the restore ended before it was stopped")
        done = []

        def again():
            outcome = cluster.run("--json", *undo, expect=None)
            if outcome.code == 0:
                done.append(outcome.json)
            return done
        wait_for(again, "it was run again", 120)
    check_equal(done[0]["state"], "completed", "the restore")
    check(restored(), "the first record is back")
    check_equal(cluster.records(scratch.path("all")), records | writer.written, "the records")


def test_a_node_is_down(scratch):
    """What one node misses is on the retry list, deletions of other keys too, and nothing newer is undone by the retry."""
    cluster, records = after_a_mistake(scratch)
    places = [a["path"] for a in cluster.json("backup", "show", "b")["archives"]]
    cluster.kill("n3")
    wait_for(lambda: [n["state"] for n in cluster.json("nodes")["nodes"]].count("live") == 2, "n3 is down")
    undo = ("restore", "--archive", *places, "--on-conflict", "archive", "--delete-extra")
    done = cluster.json(*undo, expect=4)
    check_equal((done["state"], done["failed"]), ("completed_with_failures", 1000), "the restore")
    cluster.put_lines({b"docs/0001": b"later", b"docs/later": b"too"})
    cluster.start("n3")
    retried = cluster.json("restore", "failed", "--retry")
    check_equal((retried["failed"], retried["deleted_extra"]), ([], 30), "the retry")
    wanted = records | {b"docs/0001": b"later", b"docs/later": b"too"}
    check_equal(cluster.records(scratch.path("all")), wanted, "the records")


if __name__ == "__main__":
    harness.main(globals())
