"""The rdma driver against perftest's ib_write_bw and ib_send_bw; and what its data path does not do.

Everything is measured in one boot of the Soft-RoCE guest (or on this machine's RDMA device where it has one), alternating:
round by round Sluice without checksums, ib_write_bw, ib_send_bw, Sluice with checksums. Ratios are taken within a round; the
medians are reported. The guest's processor is emulated: ratios mean something there, rates do not.
"""

import json
import statistics
import subprocess
import sys
import tempfile

import link
from native import interposer

SIZES = (4096, 65536, 1048576)
ROUNDS = 10
NATIVE_ROUNDS = 5
GUEST_SECONDS = 1500


def native_checksum_cost(program, rounds):
    """Share of throughput that checksums cost over TCP's loopback, on this machine's own processor."""
    costs = {}
    for size in SIZES:
        pairs = []
        for _ in range(rounds):
            with_sums = link.run_pair(program, "tcp", "127.0.0.1", size, 1.0, checksum=True)
            without = link.run_pair(program, "tcp", "127.0.0.1", size, 1.0, checksum=False)
            pairs.append(1 - with_sums["gbit_s"] / without["gbit_s"])
        costs[str(size)] = statistics.median(pairs)
    return costs


def run(project, program, options):
    rounds = options.rounds or ROUNDS
    with tempfile.TemporaryDirectory(prefix="rdma-bench-", dir=project / "build") as folder:
        counter = interposer(project, "rdma", folder)
        seconds = GUEST_SECONDS + 60 * rounds
        done = subprocess.run([project / "scripts/rdma-vm", "--unless-device", "--timeout", str(seconds), sys.executable,
                               project / "bench/rdma_guest.py", program, counter, str(rounds)],
                              stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the measurement on the RDMA device ended with {done.returncode}; its words are above")
        fields = json.loads(done.stdout)
    fields["checksum_cost_native_tcp_loopback"] = native_checksum_cost(program, min(rounds, NATIVE_ROUNDS))
    return fields
