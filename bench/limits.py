"""What bounds this machine: memory, checksums, disk, loopback TCP and RocksDB, on one core and on two.

bench/limits_bench.cc measures each once; here it runs round by round with one core and with two in turn. Each figure is the
median of the rounds in MB/s with the lowest and the highest, and core-seconds per GB of user and system time, the threads of
io_uring and RocksDB included; the kernel's own threads (writing back the page cache) are not. One core: everything shares one.
"""

import os
import statistics
import tempfile

from native import built, measure_limits, say

ROUNDS = 5
CORES = (1, 2)
VALUES = (100, 4096, 1 << 20)


def collect(samples):
    """Lists of (bytes a second, core-seconds a byte) by (name, value bytes, cores), as nested fields."""
    fields = {}
    for (name, value_bytes, cores), found in samples.items():
        place = fields.setdefault(name, {})
        if value_bytes:
            place = place.setdefault(str(value_bytes), {})
        rates = [rate / 1e6 for rate, _ in found]
        place[f"{cores}_core" + ("s" if cores > 1 else "")] = {
            "mb_s": statistics.median(rates), "low": min(rates), "high": max(rates),
            "core_s_per_gb": statistics.median(core_s for _, core_s in found) * 1e9}
    return fields


def run(project, program, options):
    rounds = options.rounds or ROUNDS
    limits_bench = built(project, program, "limits_bench")
    usable = len(os.sched_getaffinity(0))
    samples = {}
    with tempfile.TemporaryDirectory(prefix="limits-", dir=options.scratch or project / "build") as directory:
        for number in range(rounds):
            for cores in CORES:
                if cores > usable:
                    continue
                for one in measure_limits(limits_bench, directory, cores, options.scale, VALUES)["limits"]:
                    samples.setdefault((one["name"], one["value_bytes"], cores), []).append(
                        (one["bytes"] / one["seconds"], one["core_s"] / one["bytes"]))
            say(f"round {number + 1} of {rounds}")
    return {"rounds": rounds, "scale": options.scale, **collect(samples)}
