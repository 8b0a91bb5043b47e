"""Runs worlds of rounds.py side by side until there were enough kills, and counts."""

import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter

import rounds

PROGRESS_SECONDS = 15
MOST_FINDINGS = 10


KINDS = ("lost", "wrong", "stuck", "twice", "remains")


def kind_of(error):
    """Of a finding, by how its message begins; what did not end in time is stuck."""
    if isinstance(error, subprocess.TimeoutExpired) or str(error).startswith("not within"):
        return "stuck"
    first = str(error).split(":", maxsplit=1)[0]
    return first if first in KINDS else "other"


class Tally:
    """What was struck and what was found. Thread-safe."""

    def __init__(self):
        self.lock = threading.Lock()
        self.begun = time.monotonic()
        self.struck = Counter()  # by (phase, role, moment, "kill" or "stop")
        self.findings = []
        self.rounds = 0
        self.backups = 0
        self.bytes = Counter()
        self.last_step = ""

    def count(self, phase, fault):
        with self.lock:
            self.struck[phase, fault.role, fault.moment.name, "stop" if fault.stops else "kill"] += 1
            if fault.relapsed:
                self.struck[phase, fault.role, "restart", "kill"] += 1

    def kills(self):
        with self.lock:
            return sum(self.struck.values())

    def step(self, what):
        with self.lock:
            self.last_step = what

    def round_done(self):
        with self.lock:
            self.rounds += 1

    def backup(self, shown, durable, again, left_out):
        """What parts.Durable says of a backup, beside its own word."""
        with self.lock:
            self.backups += 1
            self.bytes.update(backed_up=shown["bytes"], seen_durable=durable, durable_again=again, durable_left_out=left_out,
                              repeated=shown["repeated_bytes"], dropped=shown["dropped_bytes"])

    def finding(self, world, number, error, trace, folder):
        with self.lock:
            self.findings.append({"world": world, "round": number, "kind": kind_of(error),
                                  "what": str(error)[:3000], "trace": trace[-2000:], "kept": str(folder)})
        print(f"FOUND in world {world}, round {number}: {str(error)[:1500]}\n  kept: {folder}", file=sys.stderr, flush=True)

    def sum_by(self, *places):
        sums = Counter()
        for key, count in self.struck.items():
            sums["/".join(key[place] for place in places)] += count
        return dict(sorted(sums.items()))

    def fields(self):
        with self.lock:
            kinds = Counter(finding["kind"] for finding in self.findings)
            return {"kills": sum(self.struck.values()), **{kind: kinds[kind] for kind in (*KINDS, "other")},
                    "bytes_twice": self.bytes["durable_again"] + self.bytes["repeated"], "rounds": self.rounds,
                    "backups": self.backups, "bytes": dict(self.bytes),
                    "by_kind": self.sum_by(3), "by_role": self.sum_by(0, 1), "by_moment": self.sum_by(0, 2),
                    "seconds": round(time.monotonic() - self.begun, 1), "findings": self.findings}


def run(options):
    wanted = options.kills or (100 if options.seconds is None else 1 << 30)
    deadline = time.monotonic() + (options.seconds or 1e9)
    tally = Tally()
    seeds = random.Random(options.seed)
    stopping = threading.Event()  # after an interrupt: worlds end with their rounds

    def ended():
        return stopping.is_set() or tally.kills() >= wanted or time.monotonic() > deadline or len(tally.findings) >= MOST_FINDINGS

    def next_world():
        with tally.lock:
            return seeds.randrange(1 << 30)

    def work():
        while not ended():
            rounds.live(next_world(), options.transport, options.world_rounds, tally, ended)

    if options.world is not None:
        rounds.live(options.world, options.transport, options.world_rounds, tally, ended)
    else:
        workers = [threading.Thread(target=work) for _ in range(options.jobs)]
        for worker in workers:
            worker.start()
        try:
            show_progress(tally, workers, wanted)
        except KeyboardInterrupt:
            print("kills: interrupted; the rounds that run end", file=sys.stderr, flush=True)
            stopping.set()
            for worker in workers:
                worker.join()
    fields = {"seed": options.seed, "transport": options.transport, **tally.fields()}
    return fields, not tally.findings


def show_progress(tally, workers, wanted):
    due = 0
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.2)
        if time.monotonic() < due:
            continue
        due = time.monotonic() + PROGRESS_SECONDS
        free = shutil.disk_usage("/tmp").free >> 30
        of = f" of {wanted}" if wanted < 1 << 30 else ""
        print(f"kills: {tally.kills()}{of}, {tally.rounds} rounds, {tally.backups} backups, {len(tally.findings)} findings, "
              f"{time.monotonic() - tally.begun:.0f} s, "
              f"{free} GiB free", file=sys.stderr, flush=True)
