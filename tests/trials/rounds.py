"""Kills and stops real processes at random moments of import, backup, verification, restore and deletion, and compares.

A world is a cluster that is written to and backed up, and its cluster block. It lives for some rounds. In a round each kind of
job runs once while processes are struck, a restore into an empty cluster of its own; what was struck comes back, the job is
resumed until it is done, and then everything is compared with what clients were answered.
"""

import random
import time
import traceback

import harness
from faults import Moment, draw_fault
from harness import Failed, check, check_equal, wait_for
from history import differences, digest_of
from parts import Durable
from processes import Client, Command
from remains import check_nothing_remains
from world import KEYS, World, Writer

KEPT_BACKUPS = 2
JOB_SECONDS = 240  # an attempt of a job, with everything back
RESUMES = 8
PATIENCE_SECONDS = 60
WINDOW_BLOCKS = 12  # of a stream, at most: SendCopiesOptions::kLocalBuffers
STATES = ("planning", "enabled", "sent", "copy_completed", "consolidated", "all parts are durable")


def attempts():
    """Numbers of attempts at a job: so many, and for so long. The lock of one that was killed is held until its lease ends."""
    begun = time.monotonic()
    number = 0
    while number < RESUMES or time.monotonic() < begun + PATIENCE_SECONDS:
        yield number
        number += 1
        time.sleep(min(0.1 * number, 1))


class Wrong(Failed):
    """Data that is not what it has to be."""

    def __init__(self, kind, message):
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Round:
    """One pass over all kinds of jobs."""

    def __init__(self, world, number):
        self.world = world
        self.number = number
        self.source = random.Random(f"{world.seed} {number}")
        self.backup = f"b{number}"

    def run(self):
        world = self.world
        writer = Writer(world, f"writer {world.seed} {self.number}")
        try:
            self.import_records()
            self.make_backup()
            self.verify()
            self.restore()
            while len(world.backups) > KEPT_BACKUPS:
                self.delete(next(iter(world.backups)))
        finally:
            writer.stop()
        self.compare()

    # Faults.

    def strike(self, phase, command, victims, moments, most, on_strike=lambda: None):
        """Runs faults against a command; its outcome, with everything back. `victims`: (role, function that finds one)."""
        usual = self.world.usual.get(phase, 0.2)
        moments = [*moments, Moment("any time", lambda: True, self.source.uniform(0, 1.3 * usual))]
        faults = []
        for _ in range(0 if self.world.is_spared else self.source.randint(1, most)):
            role, find = self.source.choice(victims)
            faults.append(draw_fault(self.source, role, find, moments))
        for fault in faults:
            fault.on_strike = on_strike
            fault.start(command)
        try:
            outcome = command.finish(JOB_SECONDS)
        finally:
            for fault in faults:
                fault.thread.join()
        for fault in faults:
            fault.join()
            if fault.struck:
                self.world.tally.count(phase, fault)
        if not any(fault.struck for fault in faults):
            self.world.usual[phase] = 0.7 * usual + 0.3 * command.seconds()
        return outcome

    def nodes(self, cluster, role, names=None):
        return (role, lambda: cluster.nodes[self.source.choice(names or cluster.names)])

    def client(self, role, command):
        return (role, lambda: Client(role, command.process))

    def block(self):
        return [("etcd", lambda: self.world.etcd)] if self.world.etcd else []

    def soon(self, name, holds, most=0.05):
        return Moment(name, holds, self.source.choice((0, self.source.uniform(0, most))))

    def step(self, what):
        self.world.tally.step(f"world {self.world.seed} round {self.number}: {what}")

    # Jobs.

    def import_records(self):
        world = self.world
        values = world.values(KEYS if self.number == 0 else 120)
        lines = b"".join(harness.json_line(*item) for item in values.items())
        writes = world.history.begin(values, time.time())
        command = Command(world.cluster, "record", "import", "--jsonl", "-", stdin=lines)
        if world.agrees:
            code, value = command.finish(JOB_SECONDS)
            check_equal((code, value.get("failed")), (0, 0), "stuck: an import that nothing disturbs")
        else:
            code, value = self.strike(
                "import", command, [self.nodes(world.cluster, "replica"), self.nodes(world.cluster, "replica"),
                                    self.client("client", command), *self.block()], [], 2)
        if code == 0 and value.get("failed") == 0:
            world.history.acknowledge(writes, time.time())

    def make_backup(self):
        world, name = self.world, self.backup
        cluster = world.cluster
        targets = self.source.choice((cluster.names, self.source.sample(cluster.names, 2)))
        sources = [node for node in cluster.names if node not in targets] or cluster.names
        arguments = ["backup", "create", "--name", name, *(x for target in targets for x in ("--target", target))]

        def coordinator():
            shown = cluster.json("backup", "show", name, expect=None)
            return cluster.nodes.get(shown.get("coordinator"))

        durable, since, outcome = Durable(cluster, name), None, {}
        for attempt in attempts():
            shown = cluster.json("backup", "show", name, expect=None) if attempt else {}
            state = shown.get("state")
            if state == "completed":
                outcome = shown
                break
            if state is None:
                since = time.time()
            command = Command(cluster, *(arguments if state is None else ["backup", "resume", name]))
            durable.watch()
            self.follow_cut(durable, shown)
            moments = [self.soon(line, lambda line=line: command.says(line)) for line in STATES]
            moments.append(self.soon("journal", durable.any))
            victims = [self.nodes(cluster, "source", sources), self.nodes(cluster, "target", targets),
                       ("coordinator", coordinator), self.client("client", command), *self.block()]
            if attempt < 2 or self.source.random() < 0.2:
                _, outcome = self.strike("backup" if state is None else "resume", command, victims, moments, 4,
                                         durable.watch)
            else:
                _, outcome = command.finish(JOB_SECONDS)
            if outcome.get("state") == "completed":
                break
        check_equal(outcome.get("state"), "completed", f"stuck: backup {name} after {attempt + 1} attempts: {outcome}")
        self.examine_backup(outcome, since, durable)

    @staticmethod
    def follow_cut(durable, shown):
        """A backup that failed before it was planned, or whose cuts went, is resumed with another cut."""
        if durable.cut not in (None, shown.get("cut")):
            durable.forget()
        durable.cut = shown.get("cut") or durable.cut

    def examine_backup(self, outcome, since, durable):
        world = self.world
        shown = world.cluster.json("backup", "show", self.backup)
        check_equal((shown["uuid"], shown["records"], shown["bytes"]), (outcome["uuid"], outcome["records"], outcome["bytes"]),
                    "what is shown of the backup")
        world.backups[self.backup] = {"uuid": shown["uuid"], "records": shown["records"], "bytes": shown["bytes"],
                                      "allowed": world.history.allowed(since, shown["cut_time"] + 0.001), "content": None}
        self.follow_cut(durable, shown)
        seen, again, left_out = durable.outcome()
        world.tally.backup(shown, seen, again, left_out)
        window = WINDOW_BLOCKS * max(block[3] for block in durable.blocks())
        streams = len(world.cluster.names) * len(shown["archives"])
        if shown["repeated_bytes"] > streams * window:
            raise Wrong("twice", f"backup {self.backup}: {shown['repeated_bytes']} bytes went to targets that had them")
        if again:
            raise Wrong("twice", f"backup {self.backup}: {again} of {seen} bytes that were durable were done again")

    def verify(self):
        if self.source.random() < 0.5:
            command = Command(self.world.cluster, "backup", "verify", self.backup)
            code, value = self.strike("verify", command, [self.nodes(self.world.cluster, "holder"), self.client("client", command),
                                                          *self.block()], [], 1)
            check(code != 3 and not value.get("bad"), f"wrong: verification under faults: {value}")
        self.check_verifies(self.backup)

    def check_verifies(self, name):
        result = self.world.cluster.run("--json", "backup", "verify", name, expect=None)
        check(result.code == 0 and not result.json["bad"], f"wrong: backup {name} does not verify: {result}")

    def restore(self):
        """Into an empty cluster: another one may have writes in doubt of earlier backups, which this one need not have."""
        world, label = self.world, f"other{self.number}"
        other = world.make(label, world.others, self.source.choice((2, 3)))
        self.restore_into(other)
        self.compare_restored(other, self.backup, "after-restore.jsonl")
        check_nothing_remains(other, world.etcd, label, {}, wait_for)
        other.down()

    def restore_into(self, other):
        world = self.world
        arguments = ["restore", self.backup, "--from", world.cluster.url]
        outcome = {}
        for attempt in attempts():
            command = Command(other, *arguments)
            if attempt < 2:
                begins = self.soon("ingest", lambda: any(any((other.folder / name / "ingest").glob("*")) for name in other.names))
                code, outcome = self.strike(
                    "restore", command,
                    [self.nodes(other, "replica"), self.nodes(other, "replica"), self.nodes(world.cluster, "holder"),
                     self.client("driver", command), *self.block()], [begins, begins], 2)
            else:
                code, outcome = command.finish(JOB_SECONDS)
            check(code != 3, f"wrong: the restore's data failed a check: {outcome}")
            if outcome.get("state") == "completed":
                break
            if attempt >= 1:
                other.json("restore", "failed", "--retry", expect=None)
        check_equal(outcome.get("state"), "completed", f"stuck: restore of {self.backup} after {attempt + 1} attempts: {outcome}")
        check_equal(outcome["proof"]["differing"], 0, "wrong: copies that differ")
        check_equal(other.json("restore", "failed")["failed"], [], "the retry list of a completed restore")

    def compare_restored(self, cluster, name, file):
        backup = self.world.backups[name]
        found = self.records(cluster, file)
        totals = len(found), sum(len(key) + size for key, (size, _) in found.items())
        check_equal(totals, (backup["records"], backup["bytes"]), f"wrong: records and bytes restored of {name}")
        content = {key: digest for key, (_, digest) in found.items()}
        self.judge(content, backup["allowed"], f"the restored backup {name}")
        if backup["content"] is None:
            backup["content"] = content
        check(backup["content"] == content, f"wrong: backup {name} restored to something else than before")

    def records(self, cluster, file):
        """By key: size and digest of the value."""
        path = self.world.scratch.path(file)
        cluster.json("record", "export", "--jsonl", path)
        with open(path, "rb") as lines:
            parsed = [harness.parse_line(line) for line in lines]
        return {key: (len(value), digest_of(value)) for key, value in parsed}

    def delete(self, name):
        world = self.world
        for attempt in attempts():
            listed = [one["backup"] for one in world.cluster.json("backup", "list")["backups"]]
            if name not in listed:
                break
            command = Command(world.cluster, "backup", "delete", name)
            if attempt < 1:
                self.strike("delete", command, [self.nodes(world.cluster, "holder"), self.client("client", command), *self.block()],
                            [], 2)
            else:
                command.finish(JOB_SECONDS)
        else:
            raise Failed(f"stuck: backup {name} is not deleted after {attempt + 1} attempts")
        del world.backups[name]

    # The oracle.

    def judge(self, content, allowed, what):
        lost, wrong = differences(content, allowed)
        if lost or wrong:
            kind = "lost" if lost else "wrong"
            raise Wrong(kind, f"{what}: lost {lost[:5]} ({len(lost)}), wrong {wrong[:5]} ({len(wrong)})")

    def compare(self):
        world = self.world
        wait_for(lambda: all(n["state"] == "live" for n in world.cluster.json("nodes")["nodes"]), "all nodes are live", 120)
        begun = time.time()
        found = {key: digest for key, (_, digest) in self.records(world.cluster, "now.jsonl").items()}
        self.judge(found, world.history.allowed(begun), "the cluster")
        backups = {name: backup["uuid"] for name, backup in world.backups.items()}
        check_nothing_remains(world.cluster, world.etcd, "c", backups, wait_for)
        world.history.settle()

    def compare_all(self):
        """At a world's end: each backup that is left verifies, and restores into an empty cluster to what it gave before."""
        for name in list(self.world.backups):
            self.check_verifies(name)
            fresh = self.world.make(f"fresh-{name}", 3, self.source.choice((1, 2)))
            fresh.json("restore", name, "--from", self.world.cluster.url)
            self.compare_restored(fresh, name, f"fresh-{name}.jsonl")
            fresh.down()


def live(seed, transport, rounds, tally, ended):
    """One world. Whether nothing was found."""
    world = None
    keep = False
    number = 0
    try:
        world = World(seed, transport, tally)
        tally.step(f"world {seed}: {world.description}")
        for number in range(rounds):
            if ended():
                break
            Round(world, number).run()
            tally.round_done()
        Round(world, rounds).compare_all()
    except Exception as error:  # pylint: disable=broad-except
        keep = True
        tally.finding(seed, number, error, traceback.format_exc(), world and world.scratch.folder)
    finally:
        if world:
            world.close(keep)
    return not keep
