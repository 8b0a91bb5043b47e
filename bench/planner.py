"""The plan of a backup of 10,000 nodes: weights 1 to 8, 100 racks, three copies of 262,144 slots of which a tenth are divergent.

Peers, loads and the bound of the makespan are counted here, from what was published and from who sends what to whom, not taken from
the plan's own words.
"""

import array
import json
import subprocess
import tempfile
from pathlib import Path

from native import built, say

NODES, RACKS, SLOT_BITS, REPLICAS, DIVERGENT = 10_000, 100, 18, 3, 0.1


def rows(path, width):
    numbers = array.array("Q")
    numbers.frombytes(path.read_bytes())
    return zip(*[iter(numbers)] * width, strict=True)


def read_published(path):
    """Slot to its copies: node to bytes and digest."""
    published = {}
    for slot, node, size, digest in rows(path, 4):
        published.setdefault(slot, {})[node] = (size, digest)
    return published


def read_plan(path):
    """Slot to its senders and its targets, which has to be one."""
    plan = {}
    for slot, sender, target in rows(path, 3):
        senders, targets = plan.setdefault(slot, ([], set()))
        senders.append(sender)
        targets.add(target)
    return plan


def check(published, plan, targets):
    """Each slot goes to one target: an agreed one once, a divergent one from each of its replicas."""
    if plan.keys() != published.keys():
        raise RuntimeError("slots are missing in the plan, or were not published")
    for slot, (senders, to) in plan.items():
        copies = published[slot]
        agreed = len({digest for _, digest in copies.values()}) == 1
        if len(to) != 1 or not to <= targets:
            raise RuntimeError(f"slot {slot} goes to {to}")
        if agreed and (len(senders) != 1 or senders[0] not in copies):
            raise RuntimeError(f"slot {slot}, which is agreed, is sent by {senders}")
        if not agreed and sorted(senders) != sorted(copies):
            raise RuntimeError(f"slot {slot}, which is divergent, is sent by {senders}")


def count(published, plan, nodes):
    """Bytes sent and received, and distinct peers, by node."""
    sent, received = [0] * nodes, [0] * nodes
    heard, spoken_to = [set() for _ in range(nodes)], [set() for _ in range(nodes)]
    for slot, (senders, to) in plan.items():
        target, = to
        for sender in senders:
            size = published[slot][sender][0]
            sent[sender] += size
            received[target] += size
            if sender != target:
                spoken_to[sender].add(target)
                heard[target].add(sender)
    return sent, received, heard, spoken_to


def lower_bound(published, received, rates, targets):
    """No plan ends sooner: everything over all rates, and what each node alone can send, over its own."""
    alone = [0] * len(rates)
    for copies in published.values():
        if len({digest for _, digest in copies.values()}) > 1:
            for node, (size, _) in copies.items():
                alone[node] += size
    total = sum(received)
    return max(total / sum(rates), total / sum(rates[target] for target in targets),
               max(size / rate for size, rate in zip(alone, rates, strict=True)))


def run(project, program, options):
    report = built(project, program, "planner_report")
    nodes = max(int(NODES * min(options.scale, 1)), 10 * REPLICAS)
    seconds = []
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(options.rounds or 3):
            done = subprocess.run([report, "--dir", directory, "--nodes", str(nodes), "--racks", str(RACKS), "--slot-bits",
                                   str(SLOT_BITS), "--replicas", str(REPLICAS), "--divergent", str(DIVERGENT)],
                                  check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            seconds.append(found["seconds"])
        published, plan = read_published(Path(directory) / "published"), read_plan(Path(directory) / "plan")
    rates, targets = found["rates"], set(found["targets"])
    check(published, plan, targets)
    sent, received, heard, spoken_to = count(published, plan, nodes)
    makespan = max(max(sent[node], received[node]) / rates[node] for node in range(nodes))
    bound = lower_bound(published, received, rates, targets)
    say(f"  {nodes} nodes: {sorted(seconds)} s, makespan {makespan:.2f} s, bound {bound:.2f} s")
    return {"nodes": nodes, "racks": RACKS, "slots": len(published), "replicas": REPLICAS, "divergent_share": DIVERGENT,
            "seconds": sorted(seconds)[len(seconds) // 2], "makespan_over_bound": makespan / bound,
            "largest_fan_in": max(map(len, heard)), "largest_fan_out": max(map(len, spoken_to))}
