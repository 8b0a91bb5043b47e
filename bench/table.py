"""The distribution table of 10,000 nodes beside CRUSH: weights 1 to 8, 100 racks, three copies of 262,144 slots.

Copies, moves and the least that must move are counted here, from the assignments alone, not by the code that made them. Ceph's own
`crushtool --test` places as many objects on the same nodes and racks (straw2 buckets, one copy a rack).
"""

import array
import json
import math
import re
import subprocess
import tempfile
from pathlib import Path

from native import built, install, say

REPLICAS = 3
NODES, RACKS, SLOT_BITS = 10_000, 100, 18


def ideal_shares(weights, replicas):
    """Copies of each slot that a node is due, filled like water: in proportion to its weight, at most one."""
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    left, total = replicas, sum(weights)
    shares = [0.0] * len(weights)
    for i in order:
        shares[i] = min(1.0, left * weights[i] / total)
        left -= shares[i]
        total -= weights[i]
    return shares


def least_moves(before, ideal):
    """The least number of copies that come to nodes that did not have them, when each node ends within one copy of its ideal.

    A flow from copies to nodes without regard to racks, so a bound from below: each node keeps what it has, as far as that lies
    between its ideal rounded down and up; what is missing then has to come from somewhere.
    """
    total = round(sum(ideal.values()))
    kept = {node: min(max(before.get(node, 0), math.floor(due)), math.ceil(due)) for node, due in ideal.items()}
    needed = sum(max(0, count - before.get(node, 0)) for node, count in kept.items())
    return needed + max(0, total - sum(kept.values()))


def moves(before, after):
    """Copies at nodes that had none of their slot before."""
    return sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))


def counts(slots):
    held = {}
    for replicas in slots:
        for node in replicas:
            held[node] = held.get(node, 0) + 1
    return held


def due(members, slots):
    shares = ideal_shares([member["weight"] for member in members], REPLICAS)
    return {member["number"]: share * slots for member, share in zip(members, shares, strict=True)}


def read_table(path):
    numbers = array.array("H")
    numbers.frombytes(path.read_bytes())
    return [tuple(numbers[i:i + REPLICAS]) for i in range(0, len(numbers), REPLICAS)]


def check(slots, members):
    """Distinct nodes in distinct racks."""
    rack = {member["number"]: member["rack"] for member in members}
    for replicas in slots:
        if len({rack[node] for node in replicas}) != REPLICAS:
            raise RuntimeError(f"a slot's copies {replicas} share a rack, or a node")


def crush_map(members):
    """In crushtool's text form: racks of straw2 under a root of straw2, one copy a rack, the tunables of recent releases."""
    lines = ["tunable choose_local_tries 0", "tunable choose_local_fallback_tries 0", "tunable choose_total_tries 50",
             "tunable chooseleaf_descend_once 1", "tunable chooseleaf_vary_r 1", "tunable chooseleaf_stable 1",
             "tunable straw_calc_version 1"]
    lines += [f"device {member['number']} osd.{member['number']}" for member in members]
    lines += ["type 0 osd", "type 1 rack", "type 2 root"]
    racks = {}
    for member in members:
        racks.setdefault(member["rack"], []).append(member)
    for number, (rack, inside) in enumerate(sorted(racks.items()), 2):
        items = [f"item osd.{member['number']} weight {member['weight']:.5f}" for member in inside]
        lines += [f"rack {rack} {{", f"id -{number}", "alg straw2", "hash 0", *items, "}"]
    items = [f"item {rack} weight {sum(member['weight'] for member in inside):.5f}" for rack, inside in sorted(racks.items())]
    lines += ["root default {", "id -1", "alg straw2", "hash 0", *items, "}"]
    lines += ["rule spread {", "id 0", "type replicated", "min_size 1", "max_size 10", "step take default",
              "step chooseleaf firstn 0 type rack", "step emit", "}"]
    return "\n".join(lines) + "\n"


def crush_slots(directory, members, slots):
    text, binary = Path(directory) / "crush.txt", Path(directory) / "crush.map"
    text.write_text(crush_map(members))
    subprocess.run(["crushtool", "-c", text, "-o", binary], check=True, capture_output=True, text=True)
    done = subprocess.run(["crushtool", "-i", binary, "--test", "--rule", "0", "--num-rep", str(REPLICAS), "--min-x", "0",
                           "--max-x", str(slots - 1), "--show-mappings"], check=True, capture_output=True, text=True)
    found = [tuple(map(int, match[1].split(","))) for match in re.finditer(r"x \d+ \[([\d,]+)\]", done.stdout + done.stderr)]
    if len(found) != slots:
        raise RuntimeError(f"crushtool placed {len(found)} of {slots} objects")
    return found


def overload(held, ideal):
    return max(held.get(node, 0) / share for node, share in ideal.items()) - 1


def run(project, program, options):
    install(project, "ceph-base")
    report = built(project, program, "table_report")
    nodes = max(int(NODES * min(options.scale, 1)), 2 * REPLICAS)
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run([report, "--dir", directory, "--nodes", str(nodes), "--racks", str(RACKS), "--slot-bits",
                               str(SLOT_BITS), "--replicas", str(REPLICAS)], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        tables = {name: read_table(Path(directory) / f"{name}.table") for name in found}
        slots = len(tables["first"])
        before = counts(tables["first"])
        deviation, ratios = 0, {}
        for name, table in tables.items():
            check(table, found[name]["members"])
            ideal, held = due(found[name]["members"], slots), counts(table)
            deviation = max(deviation, max(abs(held.get(node, 0) - share) for node, share in ideal.items()))
            if name != "first":
                ratios[name] = {"moved": moves(tables["first"], table), "least": least_moves(before, ideal)}
        say(f"  {nodes} nodes: {found['first']['seconds']:.2f} s, worst deviation {deviation:.3f} slots, {ratios}")
        crush = {name: crush_slots(directory, found[name]["members"], slots) for name in found}
        ideal = due(found["first"]["members"], slots)
        numbers = {name: {member["number"] for member in found[name]["members"]} for name in found}
        crush_ratios = {}
        for name in ("added", "removed"):
            # What the node gets that came, or had that went: CRUSH moves at least that.
            changed = (numbers[name] ^ numbers["first"]).pop()
            least = counts(crush["added" if name == "added" else "first"]).get(changed, 0)
            crush_ratios[name] = {"moved": moves(crush["first"], crush[name]), "least": least}
        say(f"  crushtool: {crush_ratios}")

    def worst(changes):
        return max(change["moved"] / max(change["least"], 1) for change in changes.values())
    return {"nodes": nodes, "racks": RACKS, "slots": slots, "replicas": REPLICAS, "seconds": found["first"]["seconds"],
            "change_seconds": max(found[name]["seconds"] for name in ("added", "removed")),
            "worst_deviation_slots": deviation, "overload": overload(before, ideal), "moved_over_minimum": worst(ratios),
            "moves": ratios,
            "crush": {"overload": overload(counts(crush["first"]), ideal), "moved_over_minimum": worst(crush_ratios),
                      "moves": crush_ratios}}
