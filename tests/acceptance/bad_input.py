"""Everything that people get wrong or disks damage: an exit code, an error that names it, and a cluster that goes on."""

import os
import re
import shutil
import socket
import sqlite3
import subprocess
from pathlib import Path

import harness
from harness import check, check_equal, run_json


def test_wrong_names(scratch):
    cluster = scratch.cluster("c", 3)
    cluster.put_lines(harness.random_records(20, 100, 1))
    cluster.json("backup", "create", "--name", "b")
    for arguments, named in ((["backup", "show", "absent"], "absent"), (["backup", "verify", "absent"], "absent"),
                             (["backup", "resume", "absent"], "absent"), (["backup", "cancel", "absent"], "absent"),
                             (["backup", "delete", "absent"], "absent"), (["schedule", "show", "absent"], "absent"),
                             (["restore", "absent"], "absent"),
                             (["backup", "create", "--target", "n9"], "n9"),
                             (["backup", "create", "--name", "b"], "b"),
                             (["backup", "create", "--name", "../evil"], "evil"),
                             (["restore", "--archive", str(scratch.path("nowhere"))], "nowhere"),
                             (["backup", "verify", "--archive", str(scratch.path("nowhere"))], "nowhere")):
        value = cluster.json(*arguments, expect=(1, 2))
        check(named in value["error"], f"{arguments}: the error does not name it: {value['error']}")
    cluster.serves()
    cluster.json("backup", "delete", "b")
    check_equal(cluster.json("backup", "list")["backups"], [], "backups after deleting the only one")


def test_records_that_are_refused(scratch):
    cluster = scratch.cluster("c", 3)
    good = harness.json_line(b"good", b"1")
    value = cluster.json("record", "import", "--jsonl", "-", stdin=good + b"{not json\n" + harness.json_line(b"late", b"2"),
                         expect=1)
    check("line 2" in value["error"] and value["records"] == 1, str(value))
    check_equal(cluster.records(scratch.path("a.jsonl")), {b"good": b"1"}, "records after a malformed line")
    large = scratch.path("large")
    with open(large, "wb") as file:
        file.truncate((64 << 20) + 1)
    value = cluster.json("record", "put", "key", "--file", large, expect=(1, 2))
    check("67108864" in value["error"], value["error"])
    value = cluster.json("record", "put", "key", "--file", scratch.path("absent"), expect=1)
    check("absent" in value["error"], value["error"])
    cluster.json("record", "export", "--jsonl", scratch.path("no/such/folder/x"), expect=1)
    cluster.serves()


def test_too_few_nodes(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    cluster.put_lines(harness.random_records(100, 100, 1))
    cluster.kill("n2")
    cluster.serves()
    cluster.kill("n3")
    value = cluster.json("record", "put", "key", "value", expect=1)
    check(value["error"], "no error")
    value = cluster.json("backup", "create", "--name", "b", expect=1)
    check("slot" in value["error"] or "n2" in value["error"] or "n3" in value["error"], value["error"])
    cluster.start("n2")
    cluster.serves()
    # The write that failed may have reached a replica, or not.
    backup = cluster.json("backup", "create", "--name", "b2")
    check(backup["records"] in (100, 101), f"{backup['records']} records with one node missing")


def test_taken_port(scratch):
    cluster = scratch.cluster("c", 2)
    harness.run("local", "down", "--dir", cluster.folder)
    up = run_json("local", "up", "--dir", cluster.folder, "--nodes", "2")
    address = up["nodes"][0]["address"]
    harness.run("local", "down", "--dir", cluster.folder)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((address.split(":")[0], int(address.split(":")[1])))
        taken.listen()
        value = run_json("local", "up", "--dir", cluster.folder, "--nodes", "2", expect=1)
        check(address.split(":")[1] in value["error"], f"the error does not name {address}: {value['error']}")
    run_json("local", "up", "--dir", cluster.folder, "--nodes", "2")
    cluster.serves()


def damaged(folders, scratch, name, change):
    """A copy of an archive with one file changed."""
    copies = []
    for i, folder in enumerate(folders):
        copies.append(scratch.path(f"{name}-{i}"))
        shutil.copytree(folder, copies[-1])
    change(copies)
    return copies


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def largest(folders):
    return max((path for folder in folders for path in Path(folder).iterdir()), key=lambda path: path.stat().st_size)


def manifest(folder):
    return next(path for path in Path(folder).iterdir() if path.name.startswith("manifest"))


def set_version(path):
    """Another format version behind the magic bytes, wherever that is: every byte of the first 16 is tried by the caller."""
    content = bytearray(path.read_bytes())
    content[4] = 0x7f
    path.write_bytes(content)


def test_damaged_archives(scratch):
    cluster = scratch.cluster("c", 3)
    cluster.put_lines(harness.random_records(300, 4000, 1))
    backup = cluster.json("backup", "create", "--name", "b")
    folders = [a["path"] for a in backup["archives"]]
    check_equal(run_json("backup", "verify", "--archive", *folders)["bad"], [], "the archive as it is")
    changes = {
        "flipped": lambda copies: flip(largest(copies), 5000),
        "truncated": lambda copies: os.truncate(largest(copies), 4096),
        "removed": lambda copies: os.unlink(largest(copies)),
        "index": lambda copies: flip(next(p for p in copies[0].iterdir() if p.name.startswith("index")), 20),
        "manifest": lambda copies: flip(manifest(copies[0]), 100),
        "extra": lambda copies: (copies[0] / "segment-09999").write_bytes(b"x" * 4096),
    }
    empty = scratch.cluster("empty", 3)
    for name, change in changes.items():
        copies = damaged(folders, scratch, name, change)
        value = run_json("backup", "verify", "--archive", *copies, expect=3)
        check(value.get("bad") or value.get("error"), f"{name}: {value}")
        if name != "extra":
            empty.json("restore", "--archive", *copies, expect=3)
    future = damaged(folders, scratch, "future", lambda copies: [set_version(manifest(c)) for c in copies])
    value = run_json("backup", "verify", "--archive", *future, expect=(1, 3))
    check("version" in value["error"] or "damaged" in value["error"] or value.get("bad"), value["error"])

    # Damage on the nodes themselves is found through the cluster, and a restore never says that all is well.
    flip(largest(folders), 5000)
    value = cluster.json("backup", "verify", "b", expect=3)
    check(value["bad"], f"no bad block in {value}")
    cluster.json("restore", "b", expect=3)
    os.truncate(largest(folders), 4096)
    cluster.json("restore", "b", expect=3)
    os.unlink(largest(folders))
    cluster.json("restore", "b", expect=3)
    cluster.serves()
    empty.serves()


def test_two_backups_at_once(scratch):
    """Each ends well or is refused with a reason; afterwards both names can be had."""
    cluster = scratch.cluster("c", 3)
    cluster.put_lines(harness.random_records(500, 20_000, 1))
    processes = [cluster.background("backup", "create", "--name", f"b{i}") for i in range(2)]
    states = []
    for i, process in enumerate(processes):
        out, _ = process.communicate(timeout=200)
        value = harness.json.loads(out)
        check(value.get("state") == "completed" or value.get("error"), f"backup {i}: {value}")
        states.append(value.get("state"))
    check("completed" in states, f"neither backup was completed: {states}")
    for i, state in enumerate(states):
        if state != "completed":
            check_equal(cluster.json("backup", "create", "--name", f"again{i}")["state"], "completed", "the second try")
    cluster.serves()


def cluster_block_rows(database):
    """The table and columns of the cluster block's documents, found by what is in them."""
    for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
        columns = [row[1] for row in database.execute(f"pragma table_info({table})")]
        if "key" in columns and "value" in columns:
            return table
    raise harness.Failed("no table with key and value in the cluster block")


def test_garbage_documents(scratch):
    """A schedule document that is garbage spoils that backup, not the cluster."""
    cluster = scratch.cluster("c", 3)
    records = harness.random_records(50, 100, 1)
    cluster.put_lines(records)
    cluster.json("backup", "create", "--name", "good")
    cluster.json("backup", "create", "--name", "bad")
    uuid = cluster.json("backup", "show", "bad")["uuid"]
    database = sqlite3.connect(cluster.folder / "cluster.db", timeout=20)
    table = cluster_block_rows(database)
    changed = database.execute(f"update {table} set value = ? where key = ?", (b"\x00garbage{", f"backups/{uuid}")).rowcount
    if changed == 0:
        changed = database.execute(f"update {table} set value = ? where key = ?",
                                   (b"\x00garbage{", f"backups/{uuid}".encode())).rowcount
    database.commit()
    database.close()
    check_equal(changed, 1, "documents changed")
    value = cluster.json("backup", "show", "bad", expect=(1, 3))
    check(value["error"], "no error")
    listed = cluster.json("backup", "list", expect=None)
    check({b["backup"] for b in listed.get("backups", [])} == {"good", "bad"}, f"not both are listed: {listed}")
    check_equal(cluster.json("backup", "verify", "good")["bad"], [], "the good backup")
    cluster.json("backup", "delete", "bad")
    check_equal([b["backup"] for b in cluster.json("backup", "list")["backups"]], ["good"], "the backups that are left")
    check_equal(cluster.json("backup", "create", "--name", "after")["state"], "completed", "a backup afterwards")
    check(cluster.records(scratch.path("r.jsonl")) == records, "records")
    cluster.serves()


def test_interrupt(scratch):
    """SIGINT ends a command with exit code 1 and one JSON object."""
    cluster = scratch.cluster("c", 3)
    process = subprocess.Popen([harness.PROGRAM, "--json", "--cluster", cluster.url, "record", "import", "--jsonl", "-"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(harness.json_line(b"a", b"1"))
    process.stdin.flush()
    blocked = re.compile(r"^SigBlk:\s*(\w+)$", re.MULTILINE)
    status = Path(f"/proc/{process.pid}/status")
    harness.wait_for(lambda: int(blocked.search(status.read_text())[1], 16) & 2, "the program handles SIGINT")
    process.send_signal(2)
    process.wait(timeout=60)
    out, err = process.communicate()
    value = harness.json.loads(out)
    check_equal((process.returncode, value["code"]), (1, 1), err.decode())
    cluster.serves()


if __name__ == "__main__":
    harness.main(globals())
