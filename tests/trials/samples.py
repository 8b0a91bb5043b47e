"""What processes and directories take, sampled over time, and whether it grows.

Growth is the Theil-Sen slope (the median of the slopes of all pairs of samples), which single peaks do not move, times the time
that was measured.
"""

import os
import statistics
import time
from pathlib import Path

MIB = 1 << 20
# Of a window of at least this much; a shorter one is still warming up.
SHORTEST_WINDOW_SECONDS = 600
MOST_PAIRS_FROM = 300  # samples; more are thinned out


class Bound:
    """By how much something may grow in the time that is measured: a share of its median, or so much, whichever is more."""

    def __init__(self, share, least):
        self.share, self.least = share, least

    def allows(self, growth, median):
        return growth <= max(self.share * median, self.least)


# Allocators and RocksDB's caches keep on settling a little; a leak of a block (1 MiB) a minute is more. The pools of gRPC and of
# io_uring have as many threads as there was work at once, whatever the time; a thread left behind by one backup in ten is more
# than that. Tables are open files, one more with each restore until they are merged; a descriptor left behind by each backup is
# more than that.
BOUNDS = {"rss": Bound(0.06, 16 * MIB), "threads": Bound(0, 3), "descriptors": Bound(0, 16), "disk": Bound(0.1, 32 * MIB),
          "logs": Bound(0, 24 * MIB)}


def slope(points):
    """Per second, of (time, value) pairs."""
    step = -(-len(points) // MOST_PAIRS_FROM)
    points = points[::step]
    slopes = [(v2 - v1) / (t2 - t1) for i, (t1, v1) in enumerate(points) for t2, v2 in points[i + 1:] if t2 > t1]
    return statistics.median(slopes) if slopes else 0.0


def after_warm_up(points, share):
    begin = points[0][0] + share * (points[-1][0] - points[0][0])
    return [point for point in points if point[0] >= begin]


def judge(points, bound, warm_up=0.6):
    """Caches take more than half an hour to fill under this load. Fields of one series, with "grows": None where too little time was measured to say."""
    points = after_warm_up(points, warm_up)
    seconds = points[-1][0] - points[0][0]
    values = [value for _, value in points]
    growth = slope(points) * seconds
    median = statistics.median(values)
    grows = None if seconds < SHORTEST_WINDOW_SECONDS else not bound.allows(growth, median)
    return {"median": median, "largest": max(values), "growth": round(growth, 1), "seconds": round(seconds, 1), "grows": grows}


def of_process(pid):
    """Resident bytes, threads and descriptors."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {"rss": int(fields["VmRSS"].split()[0]) << 10, "threads": int(fields["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def bytes_in(path):
    """That a directory's files or a file take on disk; files that go meanwhile do not count."""
    total = 0
    for directory, _, files in [*os.walk(path), (path.parent, [], [path.name])]:  # os.walk passes over what went
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


class Samples:
    """Series by (what, of whom)."""

    def __init__(self):
        self.begun = time.monotonic()
        self.series = {}

    def take(self, clusters):
        """`clusters`: by name."""
        now = round(time.monotonic() - self.begun, 1)
        for label, cluster in clusters.items():
            for name in cluster.names:
                for what, value in of_process(cluster.pids[name]).items():
                    self.add(what, f"{label}/{name}", now, value)
                data = cluster.folder / name
                logs = sum(bytes_in(path) for path in [cluster.folder / f"{name}.log", *(data / "records").glob("LOG*")])
                self.add("logs", f"{label}/{name}", now, logs)
                self.add("disk", f"{label}/{name}", now, bytes_in(data) + bytes_in(cluster.folder / f"{name}-archive") - logs)
            self.add("disk", f"{label}/cluster block", now,
                     sum(bytes_in(path) for path in cluster.folder.glob("cluster.db*")))

    def add(self, what, whom, now, value):
        self.series.setdefault((what, whom), []).append((now, value))

    def judgement(self):
        return {f"{what} of {whom}": judge(points, BOUNDS[what]) for (what, whom), points in self.series.items()}
