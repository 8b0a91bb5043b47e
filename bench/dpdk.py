"""The dpdk driver against dpdk-testpmd, kernel TCP (iperf3) and one core's copying, alternating.

Two machines (network namespaces) joined by a veth pair, their DPDK devices net_af_packet, receiver on processor 0 and sender
on processor 1, as for testpmd and iperf3; and net_memif between two processes. Loss is made at a bridge between them, and
compared with the same bridge without loss, because it cannot be made on the pair itself before net_af_packet reads it. Ratios are taken within a round, medians are
reported. Needs root, dpdk-testpmd, iperf3 and, for loss, clang-14. Sluice's figures are of payload that is checked.
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

ROUNDS = 3
SECONDS = 3
FRAME = 9014
LOSSES = {"0.1%": 0.001, "1%": 0.01}
EAL = ["--no-huge", "-m", "512", "--no-shconf", "--no-telemetry", "--no-pci"]


def pinned(machine, processor, command):
    base = ["taskset", "-c", str(processor), *map(str, command)]
    return machine.command(*base) if machine else base


def link(program, machines, listen, connect_port, address):
    receiver_at, sender_at = machines
    receiver = subprocess.Popen(pinned(receiver_at, 0, [program, "--json", "bench", "link", "--driver", "dpdk", "--listen",
                                                        listen, "--idle", "20"]),
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        line = receiver.stderr.readline()
        if "listening" not in line:
            raise RuntimeError(f"bench link does not listen: {line}{receiver.stderr.read()}")
        done = subprocess.run(pinned(sender_at, 1, [program, "--json", "bench", "link", "--driver", "dpdk", "--connect", address,
                                                    "--seconds", SECONDS]),
                              env=os.environ | {"SLUICE_DPDK_PORT": connect_port}, capture_output=True, text=True,
                              timeout=120, check=False)
        receiver.communicate(timeout=60)
    finally:
        receiver.kill()
        receiver.wait()
    if done.returncode != 0:
        raise RuntimeError(f"bench link: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)["gbit_s"]


def sluice(program, a, b):
    return link(program, (a, b), a.listen(7001), b.listen(0), f"{a.dpdk_ip}:7001")


def memif(program, folder):
    def device(role):
        return f"net_memif0,role={role},id=0,socket={folder}/memif.sock,socket-abstract=no"
    return link(program, (None, None), f"10.12.0.1:7001%{device('server')}", f"10.12.0.2%{device('client')}", "10.12.0.1:7001")


def testpmd(a, b):
    """Gbit/s received, of frames of the same size."""
    def command(machine, processor, mode, options):
        device = "net_af_packet0,iface=eth0,framesz=9216,blocksz=36864,framecnt=452,qdisc_bypass=1"
        return machine.command("timeout", "-s", "INT", str(SECONDS + (4 if mode == "rxonly" else 1)), "taskset", "-c",
                               str(processor), "dpdk-testpmd", *EAL, "--lcores", f"0@{processor},1@{processor}", "--vdev",
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
    rates = [int(rate) / 1e9 for rate in re.findall(r"Rx-bps:\s+(\d+)", out) if int(rate) > 0]
    if not rates:
        raise RuntimeError(f"dpdk-testpmd received nothing: {sender.stdout[-500:]}{sender.stderr[-500:]}{out[-500:]}")
    return max(rates)


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


def run(project, program, options):
    sys.path.insert(0, str(project / "tests/acceptance"))
    import dpdk_net  # pylint: disable=import-outside-toplevel
    if dpdk_net.why_not():
        raise RuntimeError(dpdk_net.why_not())
    rounds = options.rounds or ROUNDS

    def ratio(samples, name, other):
        return statistics.median(a / b for a, b in zip(samples[name], samples[other]))
    with tempfile.TemporaryDirectory(prefix="dpdk-bench-") as folder, dpdk_net.Cable() as cable:
        a, b = cable.machines
        limit = Path(folder) / "copy_limit"
        subprocess.run(["gcc", "-O2", project / "bench/dpdk_copy_limit.c", "-o", limit, "-lxxhash"], check=True)
        measures = {"sluice": lambda: sluice(program, a, b), "testpmd": lambda: testpmd(a, b), "tcp": lambda: tcp(a, b),
                    "memif": lambda: memif(program, folder),
                    "copy_limit": lambda: float(subprocess.run(["taskset", "-c", "0", limit, "1"], check=True, text=True,
                                                               capture_output=True).stdout)}
        samples = alternate(rounds, measures)
        fields = {"rounds": rounds, "ratio_vs_testpmd": ratio(samples, "sluice", "testpmd"),
                  "ratio_vs_copy_limit": ratio(samples, "memif", "copy_limit"),
                  "ratio_vs_tcp_same_veth": ratio(samples, "sluice", "tcp"), "loss": {}, "tcp_loss": {}, "gbit_s": samples}
        with dpdk_net.Lan(2) as lan:
            add_losses(project, program, lan, folder, rounds, fields)
    return fields
