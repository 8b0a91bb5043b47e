"""A restore into eight nodes of which two have a quarter of the others' rate: measured weights beside equal ones.

The rates are the nodes' own limits (limits.bytes_per_second), far below what a machine does, so that the ratio is not the
machine's. Round by round the same archive goes into two new clusters, one whose nodes measure themselves, one with equal weights.
The limits alone give the time that no restore can be much under: of all nodes, the most bytes of copies over the node's limit.
"""

import statistics
import tempfile
from pathlib import Path

from clusters import Cluster
from datasets import Dataset
from figures import summary
from native import say

ROUNDS = 3
RECORDS, VALUE = 6_000, 100_000
NODES, REPLICAS = 8, 2
SLOW = ("n2", "n5")
FAST_RATE, SLOW_RATE = 40_000_000, 10_000_000
NAMES = [f"n{i + 1}" for i in range(NODES)]


def rate(name):
    return SLOW_RATE if name in SLOW else FAST_RATE


def archives_of(program, directory, data):
    with Cluster(program, directory, nodes=2, replicas=1) as source:
        source.load(data.lines, data.count)
        _, found = source.backup("b", data.count)
    return [Path(archive["path"]) for archive in found["archives"]]


def restore(program, directory, archives, data, weights):
    """The restore's seconds, the least that the limits allow it, and the nodes before it."""
    limits = ",".join(f"{name}={rate(name)}" for name in NAMES)
    with Cluster(program, directory, NODES, REPLICAS, ["--limit", limits, "--weights", weights]) as cluster:
        nodes = {node["name"]: node for node in cluster.command("nodes")["nodes"]}
        cluster.wait_until_quiet()
        _, found = cluster.restore(archives, data.count)
    cluster.remove()
    least = max(node["bytes"] / rate(node["name"]) for node in found["nodes"])
    return found["seconds"], least, nodes


def run(project, program, options):
    samples = {"measured": [], "equal": []}
    least = {}
    with tempfile.TemporaryDirectory(prefix="sluice-weights-", dir=options.scratch or project / "build") as directory:
        data = Dataset(directory, "records", max(400, round(RECORDS * options.scale)), VALUE)
        archives = archives_of(program, Path(directory) / "source", data)
        for _ in range(options.rounds or ROUNDS):
            for name, weights in (("measured", "measured"), ("equal", ",".join("1" * NODES))):
                seconds, least[name], nodes = restore(program, Path(directory) / name, archives, data, weights)
                samples[name].append(seconds)
                say(f"  {name}: {seconds:.1f} s, {least[name]:.1f} s by the limits")
                if name == "measured":
                    found = {each: nodes[each]["weight"] for each in NAMES}
    fast = statistics.mean(weight for name, weight in found.items() if name not in SLOW)
    return {"bytes": data.bytes, "nodes": NODES, "replicas": REPLICAS,
            "slow_weight_share": statistics.mean(found[name] for name in SLOW) / fast,
            "measured_s": summary(samples["measured"]), "measured_least_s": least["measured"],
            "equal_s": summary(samples["equal"]), "equal_least_s": least["equal"],
            "times_faster": statistics.median(b / a for a, b in zip(samples["measured"], samples["equal"], strict=True))}
