"""One link over DPDK's virtual devices: by shared memory, with a peer that dies, and with a stranger's flood on the same network."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import dpdk_net
import harness
from harness import check, check_equal

# What a stranger sends for some seconds, as fast as it can: packets for the victim's port, from addresses of its own and from
# the peer's, with nothing right inside; cut ones; ARP answers nobody asked for, and questions from all over.
STRANGER = """
import os, socket, struct, sys, time
victim_mac, peer_mac = (bytes.fromhex(text.replace(":", "")) for text in sys.argv[1:3])
victim, peer, seconds = sys.argv[3], sys.argv[4], float(sys.argv[5])
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(("eth0", 0))
def udp(source, mac, inside, port):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(inside), 1, 0x4000, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(victim))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xffff) + (total >> 16)
    total = ~((total & 0xffff) + (total >> 16)) & 0xffff
    head = head[:10] + struct.pack("!H", total) + head[12:]
    return victim_mac + mac + b"\\x08\\x00" + head + struct.pack("!HHHH", port, 7001, 8 + len(inside), 0) + inside
def arp(operation, mac, source):
    return (victim_mac if operation == 2 else b"\\xff" * 6) + mac + struct.pack("!HHHBBH6s4s6s4s", 0x0806, 1, 0x0800, 6, 4, operation, mac,
        socket.inet_aton(source), victim_mac, socket.inet_aton(victim))
end, sent, own = time.monotonic() + seconds, 0, b"\\x02\\0\\0\\0\\0\\x09"
while time.monotonic() < end:
    for i in range(64):
        number = sent % 60000
        inside = bytes(8) + b"\\x01" + bytes([1 + i % 7]) + os.urandom(30 + i * 20)
        stranger = f"10.12.{1 + number // 250 % 250}.{1 + number % 250}"
        link.send((udp(stranger, own, inside, 7002), udp(peer, peer_mac, inside, 7002 + i), udp(stranger, own, inside, 9)[: 20 + i % 40],
                   arp(2, own, peer), arp(1, own, stranger))[i % 5])
        sent += 1
print(sent)
"""


def receiver(listen, machine=None, idle=20):
    command = [harness.PROGRAM, "--json", "bench", "link", "--driver", "dpdk", "--listen", listen, "--idle", str(idle)]
    process = subprocess.Popen(machine.command(*command) if machine else command, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    line = process.stderr.readline()
    if "listening" not in line:
        process.kill()
        raise harness.Failed(f"bench link does not listen: {line}{process.stderr.read()}")
    return process


def sender(device, address, seconds, machine=None):
    command = [harness.PROGRAM, "--json", "bench", "link", "--driver", "dpdk", "--connect", address, "--seconds", str(seconds),
               "--block", "65536"]
    return subprocess.Popen(machine.command(*command) if machine else command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=os.environ | {"SLUICE_DPDK_PORT": device})


def finish(process, seconds=90):
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise harness.Failed(f"still running after {seconds} s: {process.args}") from None
    return process.returncode, out, err


def whole(processes):
    """Both ends' results, which agree and have nothing damaged."""
    ends = [finish(process) for process in processes]
    for code, out, err in ends:
        check(code == 0, f"exit code {code}: {out}{err}")
    results = [json.loads(out) for _, out, _ in ends]
    check_equal(results[0]["blocks"], results[1]["blocks"], "blocks at both ends")
    check_equal([result["bad_blocks"] for result in results], [0, 0], "bad blocks")
    check(results[0]["blocks"] > 100, f"only {results[0]['blocks']} blocks")
    return results[0]


def memif(scratch, role):
    number = 1 if role == "server" else 2
    place = f"10.12.0.{number}:7001" if role == "server" else f"10.12.0.{number}"
    return f"{place}%net_memif0,role={role},id=0,socket={scratch.path('memif.sock')},socket-abstract=no"


def test_blocks_cross_shared_memory_whole(scratch):
    there = receiver(memif(scratch, "server"))
    result = whole([sender(memif(scratch, "client"), "10.12.0.1:7001", 2), there])
    print(f"  {result['blocks']} blocks", flush=True)


def killed_in_transfer(scratch, victim):
    there = receiver(memif(scratch, "server"), idle=10)
    here = sender(memif(scratch, "client"), "10.12.0.1:7001", 60)
    time.sleep(2)
    check(here.poll() is None and there.poll() is None, "an end stopped by itself")
    killed, left = (there, here) if victim == "receiver" else (here, there)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    begun = time.monotonic()
    code, out, err = finish(left)
    # Not by a signal, and with the reason.
    check(code in range(1, 10), f"the one that was left ended with {code}: {out}{err}")
    check(re.search(r"lost|left|nothing happened|nothing was heard", err), f"it said: {err}")
    print(f"  noticed after {time.monotonic() - begun:.1f} s: {err.strip().splitlines()[-1]}", flush=True)


def test_a_receiver_that_dies_is_noticed_over_shared_memory(scratch):
    killed_in_transfer(scratch, "receiver")


def test_a_sender_that_dies_is_noticed_over_shared_memory(scratch):
    killed_in_transfer(scratch, "sender")


def mac(machine):
    return subprocess.run(machine.command("cat", "/sys/class/net/eth0/address"), capture_output=True, text=True,
                          check=True).stdout.strip()


def peak_kilobytes(process):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text()).group(1))


def test_a_strangers_flood_leaves_a_transfer_alone(scratch):
    script = scratch.path("stranger.py")
    script.write_text(STRANGER)
    with dpdk_net.Lan(3) as lan:
        a, b, stranger = lan.machines
        there = receiver(a.listen(7001), a)
        here = sender(b.listen(0), f"{a.dpdk_ip}:7001", 6, b)
        time.sleep(1.5)
        before = peak_kilobytes(there)
        flood = subprocess.run(stranger.command(sys.executable, script, mac(a), mac(b), a.dpdk_ip, b.dpdk_ip, "3"),
                               capture_output=True, text=True, check=True)
        check(here.poll() is None, "the transfer ended under the flood")
        grown = peak_kilobytes(there) - before
        result = whole([here, there])
        check(int(flood.stdout) > 10_000, f"the flood had only {flood.stdout} frames")
        check(grown < 64 << 10, f"memory grew by {grown} KiB")
        print(f"  {result['blocks']} blocks beside {flood.stdout.strip()} frames of a stranger; memory grew by {grown} KiB",
              flush=True)


if __name__ == "__main__":
    dpdk_net.main(globals())
