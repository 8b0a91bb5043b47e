"""The command line itself: help, usage errors, records, imports and exports, trees, doctor, one link."""

import base64
import json
import os
import re
import socket
import subprocess

import harness
from harness import check, check_equal, run, run_json, same_tree


def test_help_teaches(_):
    text = run("--help").stdout.decode()
    for word in ("local", "record", "backup", "restore", "table", "doctor", "Exit codes"):
        check(word in text, f"--help does not mention {word}")
    for command in ("local up", "local down", "local kill", "local start", "node", "nodes", "cluster init", "record put",
                    "record get", "record delete", "record count", "record import", "record export", "backup create",
                    "backup list", "backup show", "backup verify", "backup resume", "backup cancel", "backup delete",
                    "restore", "restore failed", "schedule show", "table show", "table plan", "bench link", "doctor",
                    "version"):
        text = run(*command.split(), "--help").stdout.decode()
        check("sluice " + command.split()[0] in text, f"{command} --help has no example:\n{text}")


def test_usage_errors(scratch):
    unused = scratch.path("unused")
    for arguments in ([], ["nonsense"], ["--nonsense"], ["local", "up"], ["local", "up", "--dir", unused],
                      ["local", "up", "--dir", unused, "--nodes", "0"],
                      ["local", "up", "--dir", unused, "--nodes", "-1"],
                      ["local", "up", "--dir", unused, "--nodes", "many"],
                      ["local", "up", "--dir", unused, "--nodes", "2", "--replicas", "3"],
                      ["local", "up", "--dir", unused, "--nodes", "2", "--replicas", "0"],
                      ["local", "up", "--dir", unused, "--nodes", "2", "--slots", "1000"],
                      ["local", "up", "--dir", unused, "--nodes", "2", "--weights", "1"],
                      ["local", "up", "--dir", unused, "--nodes", "2", "--weights", "1,0"],
                      ["local", "up", "--dir", unused, "--nodes", "2", "--weights", "1,x"],
                      ["local", "up", "--dir", unused, "--nodes", "2", "--racks", "a,b,c"],
                      ["nodes"], ["nodes", "--cluster", "mysql:x"], ["record", "put", "key"],
                      ["record", "put", "", "value"], ["record", "put", "k" * 4097, "value"],
                      ["record", "put", "a", "b", "--file", "c"], ["record", "import"],
                      ["record", "import", "--tree", "a", "--jsonl", "b"], ["record", "export"],
                      ["backup", "verify"], ["backup", "create", "--what"], ["restore"], ["bench", "link"],
                      ["bench", "link", "--connect", "127.0.0.1:1", "--block", "0"],
                      ["bench", "link", "--connect", "127.0.0.1:1", "--streams", "0"],
                      ["bench", "link", "--connect", "127.0.0.1:1", "--streams", "8", "--buffers", "15"],
                      ["table", "plan", "--add", "n9"]):
        result = run(*arguments, expect=2)
        check(result.stdout == b"" and result.stderr.startswith(b"sluice: "), str(result))
        value = run_json(*arguments, expect=2)
        check_equal(value["code"], 2, "code")
    check(not unused.exists(), "a refused command made a folder")


def test_no_cluster_there(scratch):
    for command in (["nodes"], ["record", "count"], ["backup", "list"], ["restore", "x"], ["table", "show"]):
        value = run_json(*command, "--cluster", f"sqlite:{scratch.path('absent.db')}", expect=1)
        check("absent.db" in value["error"], f"the error does not name the cluster: {value['error']}")
    check(not scratch.path("absent.db").exists(), "asking made a cluster")
    garbage = scratch.path("garbage.db")
    garbage.write_bytes(b"this is no database" * 1000)
    value = run_json("nodes", "--cluster", f"sqlite:{garbage}", expect=(1, 3))
    check("garbage.db" in value["error"], value["error"])


def test_records(scratch):
    cluster = scratch.cluster("c", 3)
    nasty = [b"plain", b"nodes", "ä€😀".encode(), b"with space", b"--", b"-x", b"[a,b]", b"a\nb", b"\xff\xfe", b"{}"]
    for i, key in enumerate(nasty):
        value = bytes([i]) * i if i % 2 == 0 else b"text"
        cluster.run("record", "put", "--file", "-", "--", os.fsdecode(key), stdin=value)
        check_equal(cluster.run("record", "get", "--", os.fsdecode(key)).stdout, value, f"value of {key!r}")
    check_equal(cluster.json("record", "count")["count"], len(nasty), "count")
    cluster.run("record", "put", "empty", "")
    check_equal(cluster.run("record", "get", "empty").stdout, b"", "an empty value")
    cluster.run("record", "put", "--", "plain", "-dash")
    shown = cluster.json("record", "get", "plain")
    check_equal((shown["key"], base64.b64decode(shown["value_b64"])), ("plain", b"-dash"), "get --json")
    cluster.json("record", "get", "absent", expect=1)
    check_equal(cluster.run("record", "get", "absent", expect=1).stdout, b"", "stdout of a missing key")
    cluster.run("record", "delete", "plain")
    cluster.run("record", "get", "plain", expect=1)
    cluster.run("record", "delete", "never-there")
    check_equal(cluster.json("record", "count")["count"], len(nasty), "count after deleting one and adding one")
    check_equal(cluster.json("record", "count", "--prefix", "with")["count"], 1, "count of a prefix")

    large = os.urandom(3_000_000)
    cluster.run("record", "put", "large", "--file", "-", stdin=large)
    check(cluster.run("record", "get", "large").stdout == large, "a value of 3 MB came back changed")
    lines = cluster.export(scratch.path("all.jsonl")).splitlines()
    keys = [harness.parse_line(line)[0] for line in lines]
    check_equal(keys, sorted(keys), "order of the export")
    check_equal(len(keys), len(nasty) + 1, "records exported")
    check_equal(cluster.run("record", "export", "--jsonl", "-").stdout, scratch.path("all.jsonl").read_bytes(),
                "the export to stdout")
    cluster.run("--json", "record", "export", "--jsonl", "-", expect=2)
    check(not [p for p in scratch.folder.iterdir() if p.name.endswith(".tmp")], "an export left a temporary file")


def test_local_life(scratch):
    cluster = scratch.cluster("c", 2)
    value = run_json("local", "up", "--dir", cluster.folder, "--nodes", "2", expect=1)
    check("already" in value["error"], value["error"])
    cluster.run("record", "put", "kept", "yes")
    run("local", "down", "--dir", cluster.folder)
    for pid in cluster.pids.values():
        check(not os.path.exists(f"/proc/{pid}/exe"), f"process {pid} is there")
    run("local", "down", "--dir", cluster.folder)
    run("local", "up", "--dir", cluster.folder, "--nodes", "3", expect=1)
    before = {n["name"]: n["address"] for n in run_json("local", "up", "--dir", cluster.folder, "--nodes", "2")["nodes"]}
    check_equal(cluster.run("record", "get", "kept").stdout, b"yes", "a record after a restart")
    run("local", "start", "--dir", cluster.folder, "n1", expect=1)
    run("local", "kill", "--dir", cluster.folder, "n9", expect=1)
    cluster.kill("n2")
    run("local", "kill", "--dir", cluster.folder, "n2", expect=1)
    harness.wait_for(lambda: {n["name"]: n["state"] for n in cluster.json("nodes")["nodes"]}["n2"] != "live",
                     "the killed node is seen as dead")
    started = run_json("local", "start", "--dir", cluster.folder, "n2")
    check_equal(started["nodes"][0]["address"], before["n2"], "the address after a start")
    cluster.serves()
    run("local", "down", "--dir", scratch.path("nowhere"), expect=1)


def test_trees(scratch):
    tree = scratch.path("tree")
    (tree / "deep/er").mkdir(parents=True)
    (tree / "empty-folder").mkdir()
    (tree / "empty").write_bytes(b"")
    (tree / "large").write_bytes(os.urandom(2_500_000))
    (tree / "deep/er/text").write_text("text")
    os.symlink("deep/er", tree / "link")
    os.symlink("nowhere", tree / "dangling")
    (tree / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"x")
    os.chmod(tree / "deep/er/text", 0o4750)
    os.utime(tree / "deep/er/text", ns=(1, 1_234_567_890_123_456_789))
    os.utime(tree / "deep", ns=(1, 987_654_321_123_456_789))
    os.mkfifo(tree / "pipe")
    cluster = scratch.cluster("c", 3)
    done = cluster.json("record", "import", "--tree", tree, "--prefix", "t/")
    check_equal((done["failed"], done["skipped"], done["specials"]), (0, 0, 1), "failed, skipped, and pipes and devices")
    check_equal(done["records"], cluster.json("record", "count")["count"], "records imported and counted")
    cluster.run("record", "put", "other", "no entry of a tree")
    cluster.json("record", "import", "--tree", tree, "--prefix", "t/")
    back = cluster.json("record", "export", "--tree", scratch.path("back"), "--prefix", "t/")
    check_equal(back["records"], done["records"], "records exported")
    check_equal(same_tree(tree, scratch.path("back")), [], "differences of the trees")
    whole = cluster.json("record", "export", "--tree", scratch.path("whole"))
    check_equal(whole["skipped"], 1, "records that are no entries")
    check_equal(same_tree(tree, scratch.path("whole/t")), [], "differences below the prefix")
    cluster.json("record", "import", "--tree", scratch.path("absent"), expect=1)

    chunks = sorted(key for key in cluster.records(scratch.path("all.jsonl")) if key.startswith(b"t/large\0"))
    check_equal(len(chunks), 3, "chunks of a file of 2.5 MB that was imported twice")
    cluster.put_lines({chunks[1]: b"not the chunk"})
    value = cluster.json("record", "export", "--tree", scratch.path("damaged"), expect=3)
    check("large" in value["error"], value["error"])
    check(not scratch.path("damaged/t/large").exists(), "a damaged file was exported")


def test_doctor_and_version(_):
    value = run_json("doctor")
    drivers = {driver["name"]: driver for driver in value["drivers"]}
    check(drivers["tcp"]["usable"] is True, "tcp is not usable")
    for driver in drivers.values():
        check(set(driver) >= {"name", "usable", "reason", "fix"}, str(driver))
        check(driver["usable"] or driver["fix"], f"nothing to do about {driver}")
    check(re.match(rb"sluice \d+\.\d+\.\d+\n$", run("version").stdout), "version")
    check_equal(run_json("version")["version"], run("--version").stdout.split()[-1].decode(), "both versions")


def test_link(_):
    receiver = subprocess.Popen([harness.PROGRAM, "--json", "bench", "link", "--driver", "tcp", "--listen", "127.0.0.1:0"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        address = receiver.stderr.readline().decode().split()[-1]
        sent = run_json("bench", "link", "--driver", "tcp", "--connect", address, "--seconds", "0.5", "--block", "65536")
        got = json.loads(receiver.communicate(timeout=30)[0])
    finally:
        receiver.kill()
    for side in (sent, got):
        check(side["gbit_s"] > 0 and side["blocks"] > 0 and side["bad_blocks"] == 0, str(side))
        check_equal(side["bytes"], side["blocks"] * 65536, "bytes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_json("bench", "link", "--driver", "tcp", "--connect", f"127.0.0.1:{port}", "--seconds", "1", expect=1)
    run_json("bench", "link", "--driver", "warp", "--connect", "127.0.0.1:1", "--seconds", "1", expect=(1, 2))


if __name__ == "__main__":
    harness.main(globals())
