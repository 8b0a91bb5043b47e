"""Machines whose clocks are wrong, and data folders that are copies or earlier states of what a node served from."""

import os
import shutil
import subprocess
import time

import harness
from harness import check, check_equal

# The wall clock of a process and its children, as many milliseconds off as the file named by CLOCK_FILE says now.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *time) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
  int result = real(id, time);
  const char *name = getenv("CLOCK_FILE");
  FILE *file = id == CLOCK_REALTIME && name ? fopen(name, "r") : 0;
  if (!file) return result;
  long long ms = 0;
  if (fscanf(file, "%lld", &ms) != 1) ms = 0;
  fclose(file);
  time->tv_sec += ms / 1000;
  return result;
}
"""
HOUR = 3600 * 1000
DAY = 24 * HOUR


def with_clock(scratch, name, ms):
    """The environment of a process whose clock is set by writing into the file that is returned too."""
    source, shim, clock = scratch.path("shim.c"), scratch.path("shim.so"), scratch.path(f"clock-{name}")
    if not shim.exists():
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    set_clock(clock, ms)
    return dict(harness.environment(), LD_PRELOAD=os.fspath(shim), CLOCK_FILE=os.fspath(clock)), clock


def set_clock(clock, ms):
    fresh = clock.with_suffix(".new")
    fresh.write_text(str(ms))
    fresh.rename(clock)


def start_with_clock(scratch, cluster, name, ms):
    environment, clock = with_clock(scratch, name, ms)
    done = subprocess.run([harness.PROGRAM, "local", "start", "--dir", cluster.folder, name], env=environment,
                          capture_output=True, check=False)
    check_equal(done.returncode, 0, f"starting {name}: {done.stderr.decode(errors='replace')}")
    return clock


def offsets(cluster):
    return {n["name"]: n["clock_offset_ms"] for n in cluster.json("nodes")["nodes"]}


def write_and_back_up(cluster, scratch, what):
    """Every write wins at once, and a backup holds all of it in its usual time."""
    wanted = {f"k{i}".encode(): what.encode() for i in range(60)}
    check_equal(cluster.put_lines(wanted)["records"], 60, f"acknowledged writes, {what}")
    check_equal(cluster.records(scratch.path("export")), wanted, f"what is read back, {what}")
    begun = time.monotonic()
    backup = cluster.json("backup", "create", "--name", what)
    check_equal((backup["state"], backup["records"]), ("completed", 60), f"the backup, {what}")
    check(time.monotonic() - begun < 15, f"the backup took {time.monotonic() - begun:.1f} s, {what}")
    check(backup["seconds"] >= 0, "negative seconds")


def test_one_clock_jumps(scratch):
    if shutil.which("cc") is None:
        print("  no compiler: not tried")
        return
    cluster = scratch.cluster("c", 3, "--slots", "64")
    cluster.kill("n2")
    clock = start_with_clock(scratch, cluster, "n2", 8 * HOUR)
    harness.wait_for(lambda: (offsets(cluster)["n2"] or 0) > 7 * HOUR, "n2 is listed as 8 h ahead")
    check("ahead" in cluster.run("nodes").stdout.decode(), "'nodes' does not say so")
    check("clock" in (cluster.folder / "n2.log").read_text(), "the log does not say so")
    write_and_back_up(cluster, scratch, "8-hours-ahead")
    set_clock(clock, -DAY)
    write_and_back_up(cluster, scratch, "a-day-behind")
    set_clock(clock, 1200)
    harness.wait_for(lambda: abs(offsets(cluster)["n2"]) <= 2000, "n2 is listed as right")
    write_and_back_up(cluster, scratch, "right-again")


def test_all_clocks_were_ahead(scratch):
    if shutil.which("cc") is None:
        print("  no compiler: not tried")
        return
    cluster = scratch.cluster("c", 3, "--slots", "64")
    for name in cluster.names:
        cluster.kill(name)
    clocks = [start_with_clock(scratch, cluster, name, DAY) for name in cluster.names]
    write_and_back_up(cluster, scratch, "a-day-ahead")
    for clock in clocks:
        set_clock(clock, 0)
    harness.wait_for(lambda: all(v == 0 for v in offsets(cluster).values()), "all clocks agree")
    write_and_back_up(cluster, scratch, "set-back")
    # Nodes look at their clocks now and then.
    harness.wait_for(lambda: max(n["stamps_ahead_ms"] for n in cluster.json("nodes")["nodes"]) > 20 * HOUR,
                     "stamps from the future are listed")
    # An archive from the future, into a cluster that never was there.
    other = scratch.cluster("o", 1, "--slots", "64")
    folders = [cluster.folder / f"{name}-archive" / "set-back" for name in cluster.names]
    restored = other.json("restore", *[a for f in folders for a in ("--archive", f)])
    check_equal(restored["state"], "completed", "the restore")
    write_and_back_up(other, scratch, "after-the-restore")


def test_earlier_states_and_copies_of_a_data_folder_are_refused(scratch):
    cluster = scratch.cluster("c", 3, "--slots", "64")
    data, copy = cluster.folder / "n2", scratch.path("copy")
    cluster.put_lines({f"k{i}".encode(): b"before" for i in range(50)})
    shutil.copytree(data, copy)  # while the node runs
    cluster.put_lines({f"k{i}".encode(): b"after" for i in range(50)})

    # A second process, on the copy, while the first one runs.
    config = (cluster.folder / "n2.toml").read_text()
    check(os.fspath(data) in config, f"{data} is not in the configuration")
    second = scratch.path("second.toml")
    lines = [line for line in config.replace(os.fspath(data) + '"', os.fspath(copy) + '"').splitlines()
             if "_listen" not in line]
    second.write_text("\n".join(lines) + "\n")
    refused = harness.run("node", "--config", second, expect=1, timeout=60).stderr.decode()
    check("node 'n2'" in refused and "copy" in refused, refused)
    check_equal({n["state"] for n in cluster.json("nodes")["nodes"]}, {"live"}, "states with a copy beside")
    cluster.serves()

    # Killed at once, and set back.
    cluster.kill("n2")
    kept = scratch.path("kept")
    data.rename(kept)
    shutil.copytree(copy, data)
    for _ in range(3):
        failed = cluster.start("n2", expect=1)
        check("accept_data_loss" in (cluster.folder / "n2.log").read_text(), f"the log does not name what to do\n{failed}")
    shutil.rmtree(data)
    kept.rename(data)
    cluster.start("n2")
    cluster.serves()
    cluster.kill("n2")
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    cluster.start("n2", expect=1)
    cluster.start("n2", "--accept-data-loss")
    cluster.kill("n2")
    cluster.start("n2")
    check_equal(set(cluster.records(scratch.path("x")).values()), {b"after"}, "what is read in the end")


if __name__ == "__main__":
    harness.main(globals())
