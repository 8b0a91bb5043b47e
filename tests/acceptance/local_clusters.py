"""Whose process and whose data: clusters on one machine whose directories are copied, moved, or hold stale files."""

import os
import shutil
import subprocess

import harness
from harness import check, check_equal, run, run_json


def alive(pid):
    return os.path.exists(f"/proc/{pid}/exe")


def test_a_copy_of_a_running_cluster(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    cluster.run("record", "put", "kept", "yes")
    copy = scratch.path("copy")
    shutil.copytree(cluster.folder, copy)
    run("local", "down", "--dir", copy)
    run("local", "kill", "--dir", copy, "n1", expect=1)
    value = run_json("local", "up", "--dir", copy, "--nodes", "2", expect=1)
    check(str(cluster.folder) in value["error"] and "copy" in value["error"], value["error"])
    run("local", "start", "--dir", copy, "n1", expect=1)
    check(all(alive(pid) for pid in cluster.pids.values()), "a command on the copy ended nodes of the original")
    cluster.serves()

    # Stopped, the original still owns what the copied configuration names.
    run("local", "down", "--dir", cluster.folder)
    run("local", "up", "--dir", copy, "--nodes", "2", expect=1)
    shutil.rmtree(cluster.folder)
    run("local", "up", "--dir", copy, "--nodes", "2")
    scratch.clusters.append(copy)
    check(not cluster.folder.exists(), "the directory that was removed was made again")
    check_equal(run("record", "get", "kept", cluster=f"sqlite:{copy}/cluster.db").stdout, b"yes", "a record in the copy")


def test_stale_pid_files_and_a_move(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    cluster.run("record", "put", "kept", "yes")
    cluster.json("backup", "create", "--name", "b")
    cluster.kill("n1")
    with subprocess.Popen(["sleep", "100"]) as stranger:
        with open(f"/proc/{stranger.pid}/stat", encoding="utf-8") as stat:
            ticks = stat.read().split()[21]
        (cluster.folder / "n1.pid").write_text(f"{stranger.pid} {ticks}\n")
        run("local", "kill", "--dir", cluster.folder, "n1", expect=1)
        (cluster.folder / "n2.pid").write_text("garbage")
        run("local", "down", "--dir", cluster.folder)
        check(not alive(cluster.pids["n2"]), "a node is not found behind a garbled pid file")
        check(stranger.poll() is None, "a process that is not a node was ended")
        stranger.kill()
    moved = scratch.path("moved")
    cluster.folder.rename(moved)
    scratch.clusters.append(moved)
    run("local", "up", "--dir", moved, "--nodes", "2")
    check(not cluster.folder.exists(), "the old directory was made again")
    url = f"sqlite:{moved}/cluster.db"
    check_equal(run("record", "get", "kept", cluster=url).stdout, b"yes", "a record after the move")
    run("backup", "verify", "b", cluster=url)

    # Moved while it runs: its nodes are still found, and only stopping them is possible.
    again = scratch.path("again")
    moved.rename(again)
    run("local", "kill", "--dir", again, "n1")
    value = run_json("local", "start", "--dir", again, "n1", expect=1)
    check("moved" in value["error"], value["error"])
    run("local", "down", "--dir", again)
    scratch.clusters.append(again)
    run("local", "up", "--dir", again, "--nodes", "2")
    check_equal(run("record", "get", "kept", cluster=f"sqlite:{again}/cluster.db").stdout, b"yes", "a record at last")


def test_a_node_without_its_pid_file_is_found(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    for name in cluster.names:
        (cluster.folder / f"{name}.pid").unlink()
    run("local", "up", "--dir", cluster.folder, "--nodes", "2", expect=1)
    second = subprocess.run([harness.PROGRAM, "node", "--config", cluster.folder / "n1.toml"], capture_output=True,
                            timeout=60, check=False)
    check(second.returncode == 1 and str(cluster.pids["n1"]).encode() in second.stderr, second.stderr.decode())
    cluster.serves()
    run("local", "down", "--dir", cluster.folder)
    check(not any(alive(pid) for pid in cluster.pids.values()), "nodes without pid files are not stopped")


def test_odd_directories(scratch):
    bytes_of = os.fsencode(scratch.path("b")) + b"\xff"
    value = run_json("local", "up", "--dir", bytes_of, "--nodes", "1", expect=1)
    check("UTF-8" in value["error"], value["error"])
    check_equal(os.listdir(bytes_of), [], "what a refused 'local up' made")
    scratch.cluster("delete \x7f", 1, "--slots", "16").serves()
    # A cluster that was made there before, of another shape.
    made = scratch.path("made")
    made.mkdir()
    run("cluster", "init", "--slots", "64", "--replicas", "1", cluster=f"sqlite:{made}/cluster.db")
    value = run_json("local", "up", "--dir", made, "--nodes", "2", "--slots", "128", expect=1)
    check("64 slots" in value["error"], value["error"])


def test_other_options_than_the_cluster_has(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64", "--racks", "a,b")
    run("local", "down", "--dir", cluster.folder)
    for option, other in (("--slots", "128"), ("--racks", "a,c"), ("--weights", "1,2"), ("--replicas", "1")):
        value = run_json("local", "up", "--dir", cluster.folder, "--nodes", "2", option, other, expect=1)
        check(option in value["error"], value["error"])
    run("local", "up", "--dir", cluster.folder, "--nodes", "2", "--slots", "64", "--racks", "a,b")


def test_a_pid_file_that_cannot_be_written(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    run("local", "down", "--dir", cluster.folder)
    for name in cluster.names:
        (cluster.folder / f"{name}.pid").mkdir()
    up = run_json("local", "up", "--dir", cluster.folder, "--nodes", "2")
    cluster.serves()
    run("local", "down", "--dir", cluster.folder)
    check(not any(alive(node["pid"]) for node in up["nodes"]), "nodes without pid files are not stopped")


def test_a_directory_that_became_read_only(scratch):
    cluster = scratch.cluster("c", 2, "--slots", "64")
    folder = cluster.folder
    if os.geteuid() != 0 or subprocess.run(["mount", "--bind", folder, folder], check=False,
                                           capture_output=True).returncode != 0:
        print("  skipped: mounting is not permitted here")
        return
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        run("local", "kill", "--dir", folder, "n1")
        run("local", "down", "--dir", folder)
        check(not any(alive(pid) for pid in cluster.pids.values()), "nodes of a read-only directory are not stopped")
    finally:
        subprocess.run(["umount", folder], check=False)


if __name__ == "__main__":
    harness.main(globals())
