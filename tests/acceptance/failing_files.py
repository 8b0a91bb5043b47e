"""File systems whose calls fail one after the other: EIO, ENOSPC, EROFS, writes and reads that end in the middle.

Below archives, records, the cluster block and a client's files, each call of a short command fails in turn, once or with
all that follow. A success is then a success, a failure says what failed, and once the file system is well again what was
begun goes on, and nothing acknowledged is missing. SLUICE_ROUNDS=N: N calls of each kind instead of a few; a large
number: all of them.
"""

import json
import os
import random

import harness
import media
from harness import check, check_equal, step

ERRORS = ("EIO", "ENOSPC", "EROFS", "short")
NEVER = 1 << 60


def which(faults, calls, path, action, source, usual):
    """The calls of one action that are to fail: the counted ones, or some of them."""
    faults.rule(calls, path, NEVER)
    action()
    count, _ = faults.counts()
    faults.rule()
    check(count > 0, f"no {calls} call on {path} to fail")
    return sorted(source.sample(range(1, count + 1), min(count, media.rounds(usual))))


def sweep(faults, calls, path, action, attempt, usual, errors=ERRORS):
    """attempt(what) for each call and error, while the call fails; it ends the fault itself with faults.rule()."""
    source = random.Random(media.seed())
    failed = attempts = 0

    def try_one(number, error, for_good):
        nonlocal failed, attempts
        what = f"{calls} call {number} on {path}{' and all later ones' if for_good else ''}: {error}"
        faults.rule(calls, path, number, error, for_good)
        try:
            attempt(what)
        except (harness.Failed, ValueError) as problem:
            raise harness.Failed(f"{what}: {problem}") from problem
        failed += faults.last_failed
        attempts += 1
        step(what + ("" if faults.last_failed else " (was not reached)"))

    number = 1
    for error in errors:
        for for_good in (False, True) if error != "short" else (False,):
            for number in which(faults, calls, path, action, source, usual):
                try_one(number, error, for_good)
    # All may have made fewer calls than when they were counted: then earlier ones fail.
    while failed == 0 and number > 1:
        number //= 2
        try_one(number, errors[0], False)
    step(f"{attempts} attempts, in {failed} of them calls failed ({calls}, {path})")
    check(failed > 0, "no call failed")


class Faults(media.Faults):
    """Remembers whether calls failed until the fault was ended."""

    last_failed = False

    def heal(self):
        self.last_failed = self.counts()[1] > 0
        self.rule()


def with_failing(scratch, directory, nodes=1, **options):
    faults = Faults(scratch, scratch.path("c") / directory)
    cluster = scratch.cluster("c", nodes, "--slots", "64", **options)
    return faults, cluster


def test_archives(scratch):
    faults, cluster = with_failing(scratch, "n1-archive", nodes=2)
    cluster.put_lines(harness.random_records(200, 20_000, 1))
    number = 0

    def back_up():
        cluster.json("backup", "create", "--name", "counted")
        cluster.json("backup", "delete", "counted")

    def attempt(_):
        nonlocal number
        number += 1
        name = f"b{number}"
        created = cluster.json("backup", "create", "--name", name, expect=None)
        faults.heal()
        if created.get("state") != "completed":
            check(created.get("error"), f"neither completed nor an error: {created}")
            shown = cluster.json("backup", "show", name, expect=None)
            check(shown.get("state") != "completed", f"reported as failed, but completed: {created} {shown}")
            if shown.get("state") is not None:
                reason = shown.get("reason", "") + created["error"]
                check("n1" in reason, f"n1's archive is not named: {reason}")
                resumed = cluster.json("backup", "resume", name)
                check_equal(resumed["state"], "completed", f"resumed: {resumed}")
            else:
                cluster.json("backup", "create", "--name", name)
        verified = cluster.json("backup", "verify", name)
        check_equal((verified["bad"], verified.get("unreadable", [])), ([], []), f"verification of {name}")
        check_equal(cluster.json("backup", "show", name)["records"], 200, f"records of {name}")
        cluster.json("backup", "delete", name)
        check(not (scratch.path("behind-n1-archive") / name).exists(), f"{name} was left behind")

    sweep(faults, "change", "/", back_up, attempt, 1)
    sweep(faults, "sync", "/", back_up, attempt, 1, errors=("EIO",))
    cluster.serves()


def test_reading_archives(scratch):
    faults, cluster = with_failing(scratch, "n1-archive", nodes=2)
    records = harness.random_records(200, 20_000, 1)
    cluster.put_lines(records)
    cluster.json("backup", "create", "--name", "b")
    empty = scratch.cluster("empty", 2, "--slots", "64")

    def verify():
        cluster.json("backup", "verify", "b")

    def attempt_verify(_):
        verified = cluster.json("backup", "verify", "b", expect=(0, 1))
        faults.heal()
        check(not verified.get("bad"), f"an error of reading is called damage: {verified}")
        check(verified["code"] == 1 if verified.get("error") else not verified.get("unreadable"), f"{verified}")

    def restore():
        empty.json("restore", "b", "--from", cluster.url)

    def attempt_restore(_):
        restored = empty.json("restore", "b", "--from", cluster.url, expect=(0, 1, 3, 4))
        faults.heal()
        if restored.get("state") == "completed":
            check_equal(restored["records"], 200, "records of a completed restore")
        else:
            check(restored.get("error"), f"neither completed nor an error: {restored}")
            again = empty.json("restore", "b", "--from", cluster.url)
            check_equal(again["state"], "completed", f"a restore afterwards: {again}")
        check(empty.records(scratch.path("found")) == records, "the restored records are others")
        empty.run("local", "down", "--dir", empty.folder, expect=0)
        harness.run("local", "up", "--dir", empty.folder, "--nodes", "2")

    for calls in ("read", "open"):
        sweep(faults, calls, "/b", verify, attempt_verify, 2, errors=("EIO",))
        sweep(faults, calls, "/b", restore, attempt_restore, 1, errors=("EIO",))


def test_records(scratch):
    """A single node, so that each acknowledgement is its own; it is killed, and has what it acknowledged."""
    faults, cluster = with_failing(scratch, "n1")
    known = harness.random_records(20, 5000, 1)
    cluster.put_lines(known)
    number = 0

    def write(expect=0):
        nonlocal number
        number += 1
        new = harness.random_records(5, 5000, number, prefix=f"r{number % 7}")
        done = cluster.put_lines(new, expect=expect)
        return new, done

    def counted():
        new, _ = write()
        known.update(new)
        cluster.json("backup", "create", "--name", "counted")
        cluster.json("backup", "delete", "counted")

    def attempt(_):
        maybe = {}
        new, done = write(expect=None)
        good = done.get("code", 0) == 0 and done.get("failed") == 0
        (known if good else maybe).update(new)
        created = cluster.json("backup", "create", "--name", "b", expect=None)
        if created.get("state") == "completed":
            check(created["records"] >= len(known), f"{created['records']} records in the backup, not {len(known)}")
        faults.heal()
        if harness.run("local", "kill", "--dir", cluster.folder, "n1", expect=(0, 1)).code == 1:
            ended = (cluster.folder / "n1.log").read_text().splitlines()[-1]
            check("sluice:" in ended or "error" in ended, f"the node ended without a reason: {ended}")
        cluster.start("n1")
        found = cluster.records(scratch.path("found"))
        for key, value in found.items():
            check(value in (known.get(key), maybe.get(key)), f"{key} has a value of its own")
        lost = [key for key in known if key not in found]
        check_equal(lost, [], f"acknowledged records that are lost (import: {done})")
        known.clear()
        known.update(found)
        state = {b["backup"]: b["state"] for b in cluster.json("backup", "list")["backups"]}.get("b")
        if state not in (None, "completed"):
            check_equal(cluster.json("backup", "resume", "b", expect=None).get("state"), "completed", "a resumed backup")
        if state is not None:
            check_equal(cluster.json("backup", "verify", "b")["bad"], [], "verification")
            cluster.json("backup", "delete", "b")

    sweep(faults, "change", "/", counted, attempt, 1)
    sweep(faults, "sync", "/", counted, attempt, 1, errors=("EIO",))


def test_the_cluster_block(scratch):
    """Faults below the SQLite file of a running cluster: commands end with a reason, and work again afterwards."""
    faults = Faults(scratch, scratch.path("c"))
    cluster = scratch.cluster("c", 2, "--slots", "64")
    cluster.put_lines(harness.random_records(100, 5000, 1))
    number = 0

    def back_up():
        cluster.json("backup", "create", "--name", "counted")
        cluster.json("backup", "delete", "counted")

    def attempt(_):
        nonlocal number
        number += 1
        name = f"b{number}"
        created = cluster.json("backup", "create", "--name", name, expect=None, timeout=300)
        faults.heal()
        for node in cluster.names:  # one may have ended, with its reason in its log
            cluster.start(node, expect=(0, 1))
        if created.get("state") != "completed":
            check(created.get("error") and created.get("code") == 1, f"neither completed nor an error: {created}")

            def settled():
                shown = cluster.json("backup", "show", name, expect=None)
                return shown.get("state") in (None, "failed", "completed", "cancelled") and shown
            harness.wait_for(settled, f"the end of backup {name}", 120)
            state = settled().get("state")
            if state == "failed":
                state = cluster.json("backup", "resume", name)["state"]
            if state != "completed":
                again = cluster.json("backup", "create", "--name", f"{name}-again")
                check_equal(again["state"], "completed", f"a backup afterwards: {again}")
                return
        check_equal(cluster.json("backup", "verify", name)["bad"], [], f"verification of {name}")
        check_equal(cluster.json("backup", "show", name)["records"], 100, f"records of {name}")

    sweep(faults, "change", "/cluster.db", back_up, attempt, 1)
    cluster.serves()


def test_a_clients_files(scratch):
    """Exports to a failing file system: the file is whole, or there is none and an error that names it."""
    cluster = scratch.cluster("c", 2, "--slots", "64")
    records = harness.random_records(300, 20_000, 1)
    cluster.put_lines(records)
    right = cluster.export(scratch.path("right"))
    faults = Faults(scratch, scratch.path("out"))
    target = faults.directory / "file"

    def export():
        cluster.json("record", "export", "--jsonl", target)
        target.unlink()

    def attempt(what):
        done = cluster.json("record", "export", "--jsonl", target, expect=(0, 1))
        faults.heal()
        if done.get("code", 0) == 0:
            check(target.read_bytes() == right, "a success, and the file is another one")
            target.unlink()
        else:
            check(str(faults.directory) in done["error"], f"the file system is not named: {done['error']}")
            # It may have been renamed into its place before the directory could not be synced.
            check(not target.exists() or target.read_bytes() == right, "a failure left a partial file")
            target.unlink(missing_ok=True)
        if "later" not in what:  # or else the temporary file cannot be removed
            check_equal(os.listdir(faults.behind), [], "what an export left")
        for left in os.listdir(faults.behind):
            (faults.behind / left).unlink()

    sweep(faults, "change", "/", export, attempt, 2)

    # Reading lines and trees.
    lines = faults.behind / "lines"
    lines.write_bytes(right)

    def imported():
        cluster.json("record", "import", "--jsonl", faults.directory / "lines")

    def attempt_import(_):
        done = cluster.json("record", "import", "--jsonl", faults.directory / "lines", expect=(0, 1))
        faults.heal()
        check(done.get("code", 0) == 1 or (done["records"], done["failed"]) == (300, 0), json.dumps(done))

    sweep(faults, "read", "/lines", imported, attempt_import, 4, errors=("EIO",))


if __name__ == "__main__":
    media.require_own_mounts()
    harness.main(globals())
