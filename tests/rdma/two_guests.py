"""Two guests on one virtual wire: a link between them, and what one of them says when the other's machine is gone.

On the host this boots the guests (scripts/rdma-vm --guests 2), which run this same file, each its rank's part. A guest is
killed by switching its power off, so that nothing of it says good-bye. The ranks meet over TCP on the same wire.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
BLOCK = 65536
PORT = 7001
MEETING = 7000
# From the power cut to the other program's end: the driver's own limit is below 10 s, and the processor is emulated.
NOTICED_WITHIN_S = 30
GUEST_DIED = 125
FLOWING = 2000  # packets: some hundred blocks


def check(condition, message):
    if not condition:
        print(f"FAIL {message}", flush=True)
        sys.exit(1)


# ---- in a guest ----
def packets():
    """Passed through this guest's device so far."""
    counters = Path("/sys/class/infiniband/rxe0/ports/1/hw_counters")
    return sum(int((counters / name).read_text()) for name in ("sent_pkts", "rcvd_pkts"))


def meet():
    """A TCP connection to the other rank."""
    if os.environ["SLUICE_RDMA_RANK"] == "0":
        with socket.create_server(("", MEETING)) as server:
            server.settimeout(60)
            return server.accept()[0]
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((os.environ["SLUICE_RDMA_PEER"], MEETING), timeout=5)
        except OSError:
            check(time.monotonic() < deadline, "the other guest cannot be reached over TCP")
            time.sleep(0.2)


def link(program, *arguments):
    return subprocess.Popen([program, "--json", "bench", "link", "--driver", "rdma", "--block", str(BLOCK), *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def receiver(program, other):
    """Started, and the other rank told that it listens."""
    process = link(program, "--listen", f"{os.environ['SLUICE_RDMA_ADDRESS']}:{PORT}")
    line = process.stderr.readline()
    check("listening" in line, f"the receiver does not listen: {line}{process.stderr.read() if not line else ''}")
    other.sendall(b"l")
    return process


def sender(program, other, seconds):
    other.settimeout(60)
    check(other.recv(1) == b"l", "the other rank has no receiver")
    return link(program, "--connect", f"{os.environ['SLUICE_RDMA_PEER']}:{PORT}", "--seconds", str(seconds))


def scenario_link(program, rank, other):
    """Each rank once the sender; every block checked, none lost."""
    for sending in (1, 0):
        process = sender(program, other, 3) if rank == sending else receiver(program, other)
        out, err = process.communicate(timeout=120)
        check(process.returncode == 0, f"bench link: {process.returncode} {out} {err}")
        result = json.loads(out)
        check(result["bad_blocks"] == 0, f"bad blocks: {result}")
        check(result["blocks"] >= 20 and result["bytes"] == result["blocks"] * BLOCK, f"too little: {result}")
        print(f"{'sent' if rank == sending else 'received'} {result['blocks']} blocks {result['gbit_s']:.3f} Gbit/s", flush=True)


def scenario_death(program, rank, other, dying):
    """The dying rank's power goes while blocks are on their way; rank 1 sends."""
    process = sender(program, other, 300) if rank == 1 else receiver(program, other)
    deadline = time.monotonic() + 60
    while packets() < FLOWING:
        check(process.poll() is None, "the link ended by itself")
        check(time.monotonic() < deadline, "nothing flows")
        time.sleep(0.05)
    if rank == dying:
        other.sendall(b"x")
        time.sleep(0.5)
        Path("/proc/sysrq-trigger").write_text("o")
        time.sleep(60)
    other.settimeout(60)
    check(other.recv(1) == b"x", "the other guest did not say that it dies")
    begun = time.monotonic()
    try:
        out, err = process.communicate(timeout=NOTICED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        check(False, f"no end within {NOTICED_WITHIN_S} s of the other machine's")
    check(process.returncode == 1, f"exit code {process.returncode}: {out} {err}")
    error = json.loads(out)["error"]
    check(" lost: " in error, f"an end for another reason: {out} {err}")
    print(f"noticed {time.monotonic() - begun:.1f} s: {error}", flush=True)


def in_guest(program, scenario):
    rank = int(os.environ["SLUICE_RDMA_RANK"])
    with meet() as other:
        if scenario == "link":
            scenario_link(program, rank, other)
        else:
            scenario_death(program, rank, other, 1 if scenario == "sender_dies" else 0)
    print("passed", flush=True)


# ---- on the host ----
def on_host(program):
    failed = False
    for scenario, passing, status in (("link", (0, 1), 0), ("sender_dies", (0,), GUEST_DIED),
                                      ("receiver_dies", (1,), GUEST_DIED)):
        begun = time.monotonic()
        done = subprocess.run([PROJECT / "scripts/rdma-vm", "--guests", "2", "--memory", "2048", "--timeout", "240",
                               sys.executable, __file__, program, scenario], capture_output=True, text=True, check=False)
        good = done.returncode == status and all(re.search(rf"^\[{rank}\] passed$", done.stdout, re.M) for rank in passing)
        print(done.stdout, end="")
        if not good:
            print(done.stderr)
        print(f"{'ok  ' if good else 'FAIL'} {scenario} ({time.monotonic() - begun:.1f} s)", flush=True)
        failed = failed or not good
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        in_guest(sys.argv[1], sys.argv[2])
    else:
        on_host(sys.argv[1])
