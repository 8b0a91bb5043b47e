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


if __name__ == "__main__":
    harness.main(globals())
