"""The dpdk driver against dpdk-testpmd, kernel TCP (iperf3) and one core's copying, alternating; and what a packet costs.

Two machines (network namespaces) joined by a veth pair, their DPDK devices net_af_packet, receiver on processor 0 and sender
on processor 1, as for testpmd and iperf3; and net_memif between two processes. Loss is made at a bridge between them, and
compared with the same bridge without loss, because it cannot be made on the pair itself before net_af_packet reads it; there
TCP sends packets one by one, as the driver does, since a segment of many packets would be lost whole. Ratios are taken within
a round, medians are reported. What goes through shared memory depends on how near the two processors are to each other, and a
virtual machine's are moved about by its host, with a quarter of the rate between distant ones (the handover limit shows it
too): there, and of the limits, the best of three short runs counts. Needs root, dpdk-testpmd, iperf3, valgrind and, for loss,
clang-14; reserves huge pages while it runs. Sluice's figures are of payload that is checked: by packet always, and by block
too unless the name says otherwise.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from native import built, interposer

ROUNDS = 3
SECONDS = 3
SHORT_SECONDS = 1
TRIES = 3
FRAME = 9014
PACKETS = (1472, 8972)
LOSSES = {"0.1%": 0.001, "1%": 0.01}
HUGE_PAGES = 600
HUGE_FILE = Path("/proc/sys/vm/nr_hugepages")
EAL = ["--no-telemetry", "--no-pci"]
# What the processor does in an endpoint; the rest is the simulation's and the benchmark's.
LAYER = "sluice::packet::PacketEndpoint::progress()"


class HugePages:
    """Reserves them, as a context; there may be fewer than asked for."""

    def __enter__(self):
        self.before = int(HUGE_FILE.read_text())
        if self.before < HUGE_PAGES:
            HUGE_FILE.write_text(str(HUGE_PAGES))
        self.pages = int(HUGE_FILE.read_text())
        return self

    def __exit__(self, *_):
        if self.pages != self.before:
            HUGE_FILE.write_text(str(self.before))

    def eal(self):
        return [*EAL, "--in-memory"] if self.pages >= HUGE_PAGES else [*EAL, "--no-huge", "-m", "512", "--no-shconf"]


def pinned(machine, processor, command):
    base = ["taskset", "-c", str(processor), *map(str, command)]
    return machine.command(*base) if machine else base


def link(program, machines, listen, connect_port, address, checksum=True, seconds=SECONDS, environments=({}, {})):
    """The sender's JSON."""
    receiver_at, sender_at = machines
    receiver = subprocess.Popen(pinned(receiver_at, 0, [program, "--json", "bench", "link", "--driver", "dpdk", "--listen",
                                                        listen, "--idle", "20"]),
                                env=os.environ | environments[0], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = receiver.stderr.readline()
        if "listening" not in line:
            raise RuntimeError(f"bench link does not listen: {line}{receiver.stderr.read()}")
        done = subprocess.run(pinned(sender_at, 1, [program, "--json", "bench", "link", "--driver", "dpdk", "--connect", address,
                                                    "--seconds", seconds, *([] if checksum else ["--no-checksum"])]),
                              env=os.environ | environments[1] | {"SLUICE_DPDK_PORT": connect_port}, capture_output=True,
                              text=True, timeout=120, check=False)
        receiver.communicate(timeout=60)
    finally:
        receiver.kill()
        receiver.wait()
    if done.returncode != 0:
        raise RuntimeError(f"bench link: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def sluice(program, a, b):
    return link(program, (a, b), a.listen(7001), b.listen(0), f"{a.dpdk_ip}:7001")["gbit_s"]


def memif(program, folder, checksum, environments=({}, {}), options=""):
    def device(role):
        return f"net_memif0,role={role},id=0,socket={folder}/memif.sock,socket-abstract=no{options}"
    return link(program, (None, None), f"10.12.0.1:7001%{device('server')}", f"10.12.0.2%{device('client')}", "10.12.0.1:7001",
                checksum, SHORT_SECONDS, environments)


def best(measure):
    return max(measure() for _ in range(TRIES))


def testpmd(eal, a, b):
    """Gbit/s received, of frames of the same size."""
    def command(machine, processor, mode, options):
        device = "net_af_packet0,iface=eth0,framesz=9216,blocksz=36864,framecnt=452,qdisc_bypass=1"
        return machine.command("timeout", "-s", "INT", str(SECONDS + (4 if mode == "rxonly" else 1)), "taskset", "-c",
                               str(processor), "dpdk-testpmd", *eal, "--lcores", f"0@{processor},1@{processor}", "--vdev",
                               device, "--", "--mbuf-size=9600", "--total-num-mbufs=4096", f"--forward-mode={mode}",
                               "--auto-start", "--stats-period", "1", *options)
    mac = subprocess.run(a.command("cat", "/sys/class/net/eth0/address"), capture_output=True, text=True,
                         check=True).stdout.strip()
    receiver = subprocess.Popen(command(a, 0, "rxonly", []), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)
    time.sleep(1.5)
    sender = subprocess.run(command(b, 1, "txonly", [f"--txpkts={FRAME}", f"--eth-peer=0,{mac}"]), stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, check=False)
    out, _ = receiver.communicate(timeout=60)
    # Of each second; in the first and the last it may not have run all the time.
    rates = [int(rate) / 1e9 for rate in re.findall(r"Rx-bps:\s+(\d+)", out) if int(rate) > 0]
    if not rates:
        raise RuntimeError(f"dpdk-testpmd received nothing: {sender.stdout[-500:]}{sender.stderr[-500:]}{out[-500:]}")
    return statistics.median(rates)


def tcp(a, b):
    server = subprocess.Popen(pinned(a, 0, ["iperf3", "-s", "-1"]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        done = subprocess.run(pinned(b, 1, ["iperf3", "-c", a.kernel_ip, "-t", SECONDS, "-J"]), capture_output=True, text=True,
                              timeout=60, check=False)
    finally:
        server.kill()
        server.wait()
    return json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9


class Loss:
    """Drops packets of one machine at the bridge, as a context."""

    def __init__(self, project, folder, lan, machine, share):
        self.port = ["tc", "-n", lan.name]
        self.device = f"p{machine.number}"
        self.program = Path(folder) / "drop.o"
        subprocess.run(["clang-14", "-O2", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu",
                        f"-DDROP_BELOW={int(share * 2**32)}u", "-c", project / "bench/dpdk_drop.c", "-o", self.program],
                       check=True)

    def __enter__(self):
        subprocess.run([*self.port, "qdisc", "add", "dev", self.device, "clsact"], check=True)
        subprocess.run([*self.port, "filter", "add", "dev", self.device, "ingress", "bpf", "direct-action", "obj",
                        self.program, "sec", "classifier"], check=True)

    def __exit__(self, *_):
        subprocess.run([*self.port, "qdisc", "del", "dev", self.device, "clsact"], check=False)


def alternate(rounds, measures):
    samples = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            samples[name].append(measure())
        print(f"round {number + 1}: " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in samples.items()),
              file=sys.stderr, flush=True)
    return samples


def add_losses(project, program, lan, folder, rounds, fields):
    a, b = lan.machines
    measures = {"sluice": lambda: sluice(program, a, b), "tcp": lambda: tcp(a, b)}
    whole = fields["gbit_s"]["on a bridge"] = alternate(rounds, measures)
    for name, share in LOSSES.items():
        with Loss(project, folder, lan, b, share):
            lossy = fields["gbit_s"][f"on a bridge with {name} loss"] = alternate(rounds, measures)
        fields["loss"][name] = statistics.median(lossy["sluice"]) / statistics.median(whole["sluice"])
        fields["tcp_loss"][name] = statistics.median(lossy["tcp"]) / statistics.median(whole["tcp"])


def data_path(project, program, folder):
    """Copies and allocations, from outside the program (bench/interpose/packets.c says how).

    With an MTU of 1500, where the layer's one copy is a call of memcpy; whole cache lines it copies in line, unseen.
    """
    counter = interposer(project, "packets", folder)
    ends = [{"LD_PRELOAD": str(counter), "SLUICE_COUNT_TO": os.path.join(folder, end)} for end in ("receiver", "sender")]
    result = memif(program, folder, checksum=False, environments=ends, options=";mtu=1500")
    receiver, sender = (json.loads(Path(end["SLUICE_COUNT_TO"]).read_text()) for end in ends)
    # The counter must have seen what happened: the arena, and nearly all of the payload.
    for end in (receiver, sender):
        if not (end["arena_bytes"] and 0.5 * result["bytes"] < end["payload_bytes"] < 1.5 * result["bytes"]):
            raise RuntimeError(f"the counter saw {receiver} and {sender} while {result} went over")

    def copies(end):
        return (end["copied_bytes"] + end["kernel_bytes"]) / end["payload_bytes"]
    return {"allocations_per_packet": max(end["allocations"] / end["packets"] for end in (receiver, sender)),
            "copies_per_byte": {"receiver": copies(receiver), "sender": copies(sender)},
            "data_path": {"receiver": receiver, "sender": sender}}


def layer(project, program, folder):
    """The packet layer without a device: its share of a link under incast, and its instructions, counted by callgrind."""
    parts = built(project, program, "packet_bench")

    def measured(name, before=()):
        done = subprocess.run([*before, parts, f"--benchmark_filter={name}", "--benchmark_format=json"], capture_output=True,
                              text=True, check=True)
        found = json.loads(done.stdout)["benchmarks"][0]
        if found.get("error_occurred"):
            raise RuntimeError(f"{name}: {found['error_message']}")
        return found, done.stderr
    incast, _ = measured("BM_Incast/8")
    per_packet, per_block = {}, {}
    for size in PACKETS:
        output = Path(folder) / "callgrind.out"
        found, said = measured(f"BM_Stream/{size}", ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}",
                                                     f"--toggle-collect={LAYER}"])
        instructions = int(re.search(r"Collected : (\d+)", said).group(1))
        per_packet[str(size)] = instructions / found["packets"]
        per_block[str(size)] = instructions / found["blocks"]
    return {"incast": {"rate": incast["rate"], "jain": incast["jain"]}, "instructions_per_packet": per_packet,
            "instructions_per_block_of_64k": per_block}


def run(project, program, options):
    sys.path.insert(0, str(project / "tests/acceptance"))
    import dpdk_net  # pylint: disable=import-outside-toplevel
    if dpdk_net.why_not():
        raise RuntimeError(dpdk_net.why_not())
    rounds = options.rounds or ROUNDS

    def ratio(samples, name, other):
        return statistics.median(a / b for a, b in zip(samples[name], samples[other]))
    with tempfile.TemporaryDirectory(prefix="dpdk-bench-") as folder, HugePages() as huge:
        limit = Path(folder) / "copy_limit"
        subprocess.run(["gcc", "-O2", project / "bench/dpdk_copy_limit.c", "-o", limit, "-lxxhash"], check=True)

        def limited(what):
            return float(subprocess.run(["taskset", "-c", "0,1" if what == "handover" else "0", limit, str(SHORT_SECONDS), what],
                                        check=True, text=True, capture_output=True).stdout)
        with dpdk_net.Cable() as cable:
            a, b = cable.machines
            samples = alternate(rounds, {
                "sluice": lambda: sluice(program, a, b), "testpmd": lambda: testpmd(huge.eal(), a, b), "tcp": lambda: tcp(a, b),
                "copy_limit": lambda: best(lambda: limited("copy")), "handover_limit": lambda: best(lambda: limited("handover")),
                "memif": lambda: best(lambda: memif(program, folder, checksum=False)["gbit_s"]),
                "memif_block_checksums": lambda: best(lambda: memif(program, folder, checksum=True)["gbit_s"])})
        fields = {"rounds": rounds, "huge_pages": huge.pages, "ratio_vs_testpmd": ratio(samples, "sluice", "testpmd"),
                  # As the limit does, every byte is checked once at each end: by packet.
                  "ratio_vs_copy_limit": ratio(samples, "memif", "copy_limit"),
                  "ratio_vs_copy_limit_with_block_checksums": ratio(samples, "memif_block_checksums", "copy_limit"),
                  "ratio_vs_handover_limit": ratio(samples, "memif", "handover_limit"),
                  "ratio_vs_tcp_same_veth": ratio(samples, "sluice", "tcp"), "loss": {}, "tcp_loss": {}, "gbit_s": samples}
        with dpdk_net.Lan(2) as lan:
            for machine in lan.machines:
                dpdk_net.ip("-n", machine.name, "link", "set", "dev", "eth0", "gso_max_segs", "1")
            add_losses(project, program, lan, folder, rounds, fields)
        fields |= data_path(project, program, folder) | layer(project, program, folder)
    return fields
