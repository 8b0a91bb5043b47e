"""The tcp driver beside iperf3, plain, -Z and -C reno, over loopback, alternating: with few buffers and with many, checksums on.

Sluice sends blocks of 1 MiB, fills each one's header and checksum anew and verifies every one at the receiver; iperf3 sends one
buffer again and again and looks at nothing. Hot: few buffers, which stay in the processor's cache, as iperf3's one does. Cold:
at each end more than four times the last-level cache, as in a backup; what the kernel alone does with memory like that
(limits_bench: write and sendfile, no checksums) is measured beside it. Several streams share as many buffers as one has, or
two each. Plain iperf3 has the system's congestion control; the driver leaves a pacing one out on loopback, as iperf3 does with
-C reno. Ratios are taken within a round, medians are reported.
Processor seconds are user and system time of both processes, from their start to their end.
"""

import json
import os
import socket
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import link
from clusters import children_core_s
from figures import Limits, median_ratio, summary
from native import built, install, measure_limits, say

ROUNDS = 5
SECONDS = 5
BLOCK = 1 << 20
HOT_BUFFERS = 4
STREAMS = (2, 4)
UNPACED = "reno"  # every kernel has it
CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")
CACHES = 5
CACHE = Path("/sys/devices/system/cpu/cpu0/cache/index3/size")
DEFAULT_CACHE = 32 << 20


def last_level_cache():
    """Bytes; where the kernel does not say, as much as a server's processor has."""
    try:
        text = CACHE.read_text().strip()
    except OSError:
        return DEFAULT_CACHE
    return int(text.rstrip("KM")) * (1 << 20 if text.endswith("M") else 1 << 10)


def metered(measure):
    """(bit/s, bits for each core-second), of a function that runs two processes to their end and returns (bytes, seconds)."""
    before = children_core_s()
    size, seconds = measure()
    return size * 8 / seconds, size * 8 / (children_core_s() - before)


def sluice(program, seconds, buffers, streams=1):
    found = link.run_pair(program, "tcp", "127.0.0.1", BLOCK, seconds, checksum=True,
                          options=["--buffers", str(buffers), "--streams", str(streams)])
    return found["bytes"], found["seconds"]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def iperf3(seconds, *options):
    port = free_port()
    server = subprocess.Popen(["iperf3", "-s", "-1", "--forceflush", "-B", "127.0.0.1", "-p", port], stdout=subprocess.PIPE, text=True)
    try:
        for line in server.stdout:
            if "listening" in line:
                break
        done = subprocess.run(["iperf3", "-c", "127.0.0.1", "-p", port, "-t", str(seconds), "-J", *options],
                              capture_output=True, text=True, timeout=seconds + 60, check=False)
        server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    found = json.loads(done.stdout)
    if done.returncode != 0 or "error" in found:
        raise RuntimeError(f"iperf3: {found.get('error', done.stderr)}")
    received = found["end"]["sum_received"]
    return received["bytes"], received["seconds"]


def run(project, program, options):
    install(project, "iperf3")
    rounds = options.rounds or ROUNDS
    seconds = max(1, round(SECONDS * options.scale))
    cold_buffers = max(CACHES * last_level_cache() // BLOCK, 16)
    limits_bench = built(project, program, "limits_bench")
    cores = len(os.sched_getaffinity(0))
    measures = {"sluice_hot": lambda: sluice(program, seconds, HOT_BUFFERS), "iperf3": lambda: iperf3(seconds),
                "sluice_cold": lambda: sluice(program, seconds, cold_buffers), "iperf3_zerocopy": lambda: iperf3(seconds, "-Z"),
                "iperf3_unpaced": lambda: iperf3(seconds, "-C", UNPACED)}
    for streams in STREAMS:
        measures[f"sluice_hot_{streams}_streams"] = partial(sluice, program, seconds, max(HOT_BUFFERS, 2 * streams), streams)
        measures[f"iperf3_{streams}_streams"] = partial(iperf3, seconds, "-P", str(streams))
    rates = {name: [] for name in [*measures, "write_cold_limit", "sendfile_cold_limit"]}
    per_core_s = {name: [] for name in measures}
    with tempfile.TemporaryDirectory(prefix="tcp-") as directory:
        for number in range(rounds):
            for name, measure in measures.items():
                rate, efficiency = metered(measure)
                rates[name].append(rate / 1e9)
                per_core_s[name].append(efficiency / 1e9)
            limits = Limits(measure_limits(limits_bench, directory, min(cores, 2), options.scale, only=["loopback"]))
            rates["write_cold_limit"].append(limits.rate("tcp_write") * 8 / 1e9)
            rates["sendfile_cold_limit"].append(limits.rate("tcp_sendfile") * 8 / 1e9)
            say(f"round {number + 1} of {rounds}: " + ", ".join(f"{name} {found[-1]:.1f}" for name, found in rates.items()))
    return {"rounds": rounds, "scale": options.scale, "seconds": seconds,
            "congestion_control": CONGESTION_CONTROL.read_text().strip(), "buffers": {"hot": HOT_BUFFERS, "cold": cold_buffers},
            "ratio_vs_iperf3_hot": median_ratio(rates, "sluice_hot", "iperf3"),
            "ratio_vs_iperf3_cold": median_ratio(rates, "sluice_cold", "iperf3"),
            "ratio_per_cpu_second": median_ratio(per_core_s, "sluice_hot", "iperf3"),
            "ratio_per_cpu_second_cold": median_ratio(per_core_s, "sluice_cold", "iperf3"),
            "ratio_vs_iperf3_zerocopy": {"hot": median_ratio(rates, "sluice_hot", "iperf3_zerocopy"),
                                         "cold": median_ratio(rates, "sluice_cold", "iperf3_zerocopy")},
            "ratio_vs_iperf3_unpaced": {"hot": median_ratio(rates, "sluice_hot", "iperf3_unpaced"),
                                        "cold": median_ratio(rates, "sluice_cold", "iperf3_unpaced")},
            "ratio_vs_iperf3_streams_hot": {
                str(streams): median_ratio(rates, f"sluice_hot_{streams}_streams", f"iperf3_{streams}_streams") for streams in STREAMS},
            "streams_over_one_hot": {
                str(streams): median_ratio(rates, f"sluice_hot_{streams}_streams", "sluice_hot") for streams in STREAMS},
            "ratio_vs_sendfile_cold": median_ratio(rates, "sluice_cold", "sendfile_cold_limit"),
            "gbit_s": {name: summary(found) for name, found in rates.items()},
            "gbit_per_core_s": {name: summary(found) for name, found in per_core_s.items()}}
