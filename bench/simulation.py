"""A backup of 10,000 nodes on virtual time: one in twenty runs at a quarter of what it promises, one in a hundred dies midway.

What runs is the shipping table, planner, replan() and rebalance(); nodes, wires and the cluster block are simulated
(bench/simulation/). `time_over_ideal` is the time from the deaths on, over what is left then divided by all true rates that are left;
`whole_over_ideal` the same of the whole backup. `static`: the dead are planned without, but nobody takes over from the slow.
"""

import json
import subprocess
from pathlib import Path

from native import built, say
from plot import lines

# Weights from 1 to 2; slots of up to 24 GB: a node holds some 3.8 TB of copies.
NODES, RACKS, SLOT_BITS, SPREAD, LARGEST_SLOT, DIVERGENT = 10_000, 100, 20, 2, 24_000_000_000, 0


def simulate(report, nodes, *more):
    # A smaller cluster has fewer slots, so that a node has as many.
    bits = max(8, SLOT_BITS - (NODES // nodes).bit_length() + 1)
    done = subprocess.run([report, "--nodes", str(nodes), "--racks", str(RACKS), "--slot-bits", str(bits), "--spread", str(SPREAD),
                           "--largest-slot", str(LARGEST_SLOT), "--divergent", str(DIVERGENT), *more],
                          check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"simulation_report ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def ratios(found):
    return {"time_over_ideal": found["rest_s"] / found["ideal_rest_s"], "whole_over_ideal": found["seconds"] / found["ideal_s"]}


COUNTED = ("seconds", "ideal_s", "planned_s", "death_s", "slow", "dead", "plans", "rebalances", "needed_bytes", "given_up_bytes",
           "lost_with_targets_bytes", "given_up_durable_bytes", "plan_bytes", "plan_chunks", "head_bytes", "node_reads_bytes",
           "coordinator_memory_bytes", "block_written_bytes", "block_read_bytes", "plans_told_bytes", "block_commits", "most_streams")


def run(project, program, options):
    report = built(project, program, "simulation_report")
    nodes = max(int(NODES * min(options.scale, 1)), 200)
    found, fixed = simulate(report, nodes), simulate(report, nodes, "--static")
    rack = simulate(report, nodes, "--lose-rack")
    for name, one in (("rebalanced", found), ("static", fixed), ("a rack is lost", rack)):
        say(f"  {name:15} {one['seconds']:7.0f} s, ideal {one['ideal_s']:.0f} s, from the deaths on {ratios(one)['time_over_ideal']:.3f}, "
            f"{one['plans']} plans, lost {one['lost']}")
    if options.plot:
        ideal = [(0, 0), (found["ideal_s"], 1)]
        Path(options.plot).write_text(lines(f"{nodes} nodes, 5 % at a quarter of their rate, 1 % die", "seconds", "slots durable",
                                            [("ideal", ideal, "limit"), ("static", fixed["done"], "other"),
                                             ("rebalanced", found["done"], "ours")]))
    return {"nodes": found["nodes"], **ratios(found), "static_time_over_ideal": ratios(fixed)["time_over_ideal"],
            "static_whole_over_ideal": ratios(fixed)["whole_over_ideal"], "rack_lost_time_over_ideal": ratios(rack)["time_over_ideal"],
            "lost": found["lost"] + rack["lost"] + fixed["lost"], "sent_twice_bytes": found["sent_twice_bytes"],
            "counted": {name: found[name] for name in COUNTED}}
