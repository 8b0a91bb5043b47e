"""The part of bench/rdma.py that runs where the RDMA device is: in the guest. Prints one JSON object."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import link

SIZES = (4096, 65536, 1048576)
SECONDS = 1.5
# About as long as SECONDS at the rates an emulated processor reaches.
PERFTEST_BYTES = {4096: 32 << 20, 65536: 96 << 20, 1048576: 96 << 20}
PERFTEST_PORT = 18515
BUFFER_BYTES = (1 << 20) + 4096  # of an arena
PAGE = 4096
WARM = 64  # blocks before the counter begins, at each end


class Device:
    """The RDMA device that is measured: the first with an active port and an IPv4 address."""

    def __init__(self):
        for port in sorted(Path("/sys/class/infiniband").glob("*/ports/*")):
            for gid in sorted((port / "gids").iterdir(), key=lambda path: int(path.name)):
                text = gid.read_text().strip()
                kind = port / "gid_attrs/types" / gid.name
                if text.startswith("0000:0000:0000:0000:0000:ffff:") and "v2" in kind.read_text():
                    self.name = port.parent.parent.name
                    self.gid = gid.name
                    self.address = ".".join(str(b) for b in bytes.fromhex(text[-9:].replace(":", "")))
                    return
        raise RuntimeError("no RDMA device has a RoCE v2 address")


def perftest(tool, device, size):
    """Gbit/s of one run, as the client reports it; perftest's own depths."""
    command = [tool, "-d", device.name, "-x", device.gid, "-s", str(size), "-n", str(max(PERFTEST_BYTES[size] // size, 16)), "-F",
               "--report_gbits", "-p", str(PERFTEST_PORT)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_listening(PERFTEST_PORT, server)
            done = subprocess.run(command + [device.address], capture_output=True, text=True, timeout=120, check=False)
            server.wait(60)
        finally:
            server.kill()
    for line in done.stdout.splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0] == str(size):
            return float(fields[3])
    raise RuntimeError(f"{' '.join(command)} {device.address}: {done.stdout}{done.stderr}")


def wait_until_listening(port, process):
    wanted = f":{port:04X}"
    deadline = time.monotonic() + 60
    while True:
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[1].endswith(wanted) and fields[3] == "0A":
                    return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the perftest server does not listen")
        time.sleep(0.02)


def sluice(program, device, size, checksum):
    return link.run_pair(program, "rdma", device.address, size, SECONDS, checksum)["gbit_s"]


def alternate(program, device, size, rounds):
    samples = {"sluice": [], "ib_write_bw": [], "ib_send_bw": [], "sluice_with_checksums": []}
    for number in range(rounds):
        samples["sluice"].append(sluice(program, device, size, False))
        samples["ib_write_bw"].append(perftest("ib_write_bw", device, size))
        samples["ib_send_bw"].append(perftest("ib_send_bw", device, size))
        samples["sluice_with_checksums"].append(sluice(program, device, size, True))
        print(f"{size} bytes, round {number + 1}: " + ", ".join(f"{name} {values[-1]:.3f}" for name, values in samples.items()),
              file=sys.stderr, flush=True)
    return samples


def counted(program, counter, device, size, seconds, checksum):
    """Both ends' counts together, and the blocks that arrived."""
    with tempfile.TemporaryDirectory() as folder:
        ends = [{"LD_PRELOAD": str(counter), "SLUICE_COUNT_TO": os.path.join(folder, end),
                 "SLUICE_COUNT_BUFFER": str(BUFFER_BYTES), "SLUICE_COUNT_PROTECT": "1"} for end in ("receiver", "sender")]
        result = link.run_pair(program, "rdma", device.address, size, seconds, checksum, *ends)
        receiver, sender = (json.loads(Path(end["SLUICE_COUNT_TO"]).read_text()) for end in ends)
    # The counter must have seen what happened: an arena, each block's post, all bytes.
    if not (receiver["arena_bytes"] and sender["arena_bytes"] and receiver["posted_blocks"] >= result["blocks"] > 2 * WARM and
            result["bytes"] <= sender["sent_bytes"] <= 1.1 * result["bytes"] + 65536):
        raise RuntimeError(f"the counter saw {sender} and {receiver} while {result} went over")
    return {name: receiver[name] + sender[name] for name in receiver} | {"blocks": result["blocks"], "bytes": result["bytes"]}


def data_path(program, counter, device):
    """Registrations, copies and allocations, from outside the program (bench/interpose/rdma.c says how)."""
    found = {}
    for size, seconds in ((65536, 4), (1048576, 10)):
        plain = counted(program, counter, device, size, seconds, checksum=False)
        # Control: checksums read all of the payload, at both ends.
        control = counted(program, counter, device, size, seconds, checksum=True)
        if control["touched_pages"] < size // PAGE:
            raise RuntimeError(f"the counter does not see checksums touch the payload: {control}")
        found[str(size)] = plain | {"touched_pages_with_checksums": control["touched_pages"]}
    return {
        "registrations_after_start": sum(run["registrations_after"] for run in found.values()),
        # The larger of the two ways: calls, and the share of the payload's pages that the processor touched.
        "copies_per_byte": max(max((run["copied_bytes"] + run["kernel_bytes"]) / run["bytes"],
                                   run["touched_pages"] / run["touched_pages_with_checksums"]) for run in found.values()),
        "allocations_per_block": max(run["allocations"] / run["blocks"] for run in found.values()),
        "data_path": found,
    }


def main():
    program, counter, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    device = Device()
    fields = {"device": device.name, "rounds": rounds} | data_path(program, counter, device)
    write, send, cost, samples = {}, {}, {}, {}
    for size in SIZES:
        taken = alternate(program, device, size, rounds)
        samples[str(size)] = taken

        def ratio(name, other, taken=taken):
            return statistics.median(a / b for a, b in zip(taken[name], taken[other]))
        write[str(size)] = ratio("sluice", "ib_write_bw")
        send[str(size)] = ratio("sluice", "ib_send_bw")
        cost[str(size)] = 1 - ratio("sluice_with_checksums", "sluice")
    fields |= {"ratio_vs_ib_write_bw": write, "ratio_vs_ib_send_bw": send, "checksum_cost": cost, "gbit_s": samples}
    print(json.dumps(fields))


if __name__ == "__main__":
    main()
