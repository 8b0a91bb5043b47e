"""The whole machine loses its power: what was acknowledged is there afterwards, whatever the disk had not flushed.

A cluster's records, archives and cluster block are on one disk that logs each write and flush. Afterwards the disk is
made as it is when the power fails at the moment of a success message, or at any other: everything flushed is there, and
of the writes since then none, some or all of their pages. Nodes are started on it and must hold what was acknowledged.
"""

import os
import random
import shutil

import harness
import media
from harness import check, check_equal, step

KEYS = 400


class Workload:
    """Commands one after the other, each marked on the disk when it has reported success, and what is true then."""

    def __init__(self, disk, seed):
        self.disk = disk
        self.source = random.Random(seed)
        self.cluster = harness.Cluster(disk.directory / "c", 3, "--slots", "64")
        self.states = [{}]  # the records after so many marks
        self.backups = [{}]  # name to its number of records, after so many marks
        self.done = 0

    def succeeded(self, what, records, backups):
        self.disk.mark(f"{self.done} {what}")
        self.done += 1
        self.states.append(records)
        self.backups.append(backups)

    def write(self, largest):
        keys = self.source.sample(range(KEYS), KEYS // 4)
        new = {f"key-{key:04d}".encode(): self.source.randbytes(self.source.randrange(largest)) for key in keys}
        self.cluster.put_lines(new)
        self.succeeded("import", {**self.states[-1], **new}, self.backups[-1])

    def delete(self):
        key = self.source.choice(sorted(self.states[-1]))
        self.cluster.run("record", "delete", key.decode())
        self.succeeded("delete", {k: v for k, v in self.states[-1].items() if k != key}, self.backups[-1])

    def back_up(self):
        name = f"b{self.done}"
        records = self.cluster.json("backup", "create", "--name", name)["records"]
        check_equal(records, len(self.states[-1]), "records of a backup")
        self.succeeded(f"backup {name}", self.states[-1], {**self.backups[-1], name: records})

    def delete_backup(self):
        name = self.source.choice(sorted(self.backups[-1]))
        self.cluster.json("backup", "delete", name)
        self.succeeded("backup delete", self.states[-1], {k: v for k, v in self.backups[-1].items() if k != name})

    def run(self, repeats):
        for _ in range(repeats):
            self.write(2000)
            self.delete()
            self.back_up()
            self.write(60_000)
            self.back_up()
            self.delete_backup()
        # As it stands: processes that end in good order would flush.
        for name in self.cluster.names:
            self.cluster.kill(name)


def states(cluster):
    return {backup["backup"]: backup["state"] for backup in cluster.json("backup", "list")["backups"]}


def check_backups(cluster, before, after):
    listed = states(cluster)
    for name in before.keys() & after.keys():
        check_equal(listed.get(name), "completed", f"backup {name}")
        check_equal(cluster.json("backup", "verify", name)["bad"], [], f"verification of backup {name}")
        check_equal(cluster.json("backup", "show", name)["records"], before[name], f"records of backup {name}")
    for name, state in listed.items():
        if name in before.keys() & after.keys():
            continue
        check(name in before.keys() | after.keys(), f"nobody made backup {name}")
        if state == "completed":
            check_equal(cluster.json("backup", "verify", name)["bad"], [], f"verification of backup {name}")
        elif name in after:
            resumed = cluster.json("backup", "resume", name, expect=None)
            check(resumed.get("state") == "completed" or resumed.get("error"), f"backup {name} resumed: {resumed}")
        if name in before:  # its deletion was under way, and nodes continue that by themselves
            cluster.json("backup", "delete", name, expect=None)
            harness.wait_for(lambda: name not in states(cluster), f"the end of the deletion of {name}")


def check_records(cluster, scratch, before, after):
    found = cluster.records(scratch.path("found.jsonl"))
    for key in before.keys() | after.keys() | found.keys():
        allowed = (before.get(key), after.get(key))
        if found.get(key) not in allowed:
            sizes = [None if value is None else len(value) for value in (found.get(key), *allowed)]
            raise harness.Failed(f"record {key}: sizes of what is there and of what may be: {sizes}")


def check_medium(scratch, kind, image, directory, load, marked):
    """Starts the cluster on what is left, after `marked` successes."""
    media.mount("-o", "loop,nouuid" if kind == "xfs" else "loop", image, directory)
    try:
        before, after = load.states[marked], load.states[min(marked + 1, load.done)]
        if not (directory / "c").exists():
            check_equal(marked, 0, "successes of a cluster that is not there")
            return
        if marked == 0:
            return
        cluster = harness.Cluster(directory / "c", 3, "--slots", "64")
        check_records(cluster, scratch, before, after)
        check_backups(cluster, load.backups[marked], load.backups[min(marked + 1, load.done)])
        cluster.serves()
        check_equal(cluster.json("backup", "create", "--name", "again")["state"], "completed", "a backup afterwards")
    finally:
        harness.run("local", "down", "--dir", directory / "c", expect=None)
        media.unmount(directory)


def moments(medium, source, count):
    """Entries before which the power fails: right behind success messages, and anywhere."""
    marks = [index for _, index in medium.marks()]
    anywhere = [source.randrange(marks[0], len(medium.entries)) for _ in range(count - count // 2)]
    return sorted([index + 1 for index in source.sample(marks, min(count // 2, len(marks)))] + anywhere)


def lose_power(scratch, kind, seed, count, repeats=1):
    disk = media.LoggedDisk(scratch, kind)
    load = Workload(disk, seed)
    load.run(repeats)
    disk.close()
    medium = media.Medium(disk)
    flushes = sum(entry[0] == media.FLUSH for entry in medium.entries)
    step(f"{kind}: {load.done} successes, {len(medium.entries)} writes and flushes ({flushes})")
    indexes = [index for _, index in medium.marks()]
    image = scratch.path("image")
    for number, moment in enumerate(moments(medium, random.Random(seed), count)):
        marked = sum(index < moment for index in indexes)
        share = medium.after_failure(moment, image, seed + number)
        try:
            check_medium(scratch, kind, image, disk.directory, load, marked)
        except harness.Failed as error:
            if os.environ.get("SLUICE_KEEP"):
                shutil.copy(image, scratch.path(f"image-{moment}"))
            raise harness.Failed(f"{kind}, power lost before entry {moment} of {len(medium.entries)}, {marked} successes, "
                                 f"{share:.0%} of the unflushed pages written: {error}") from error
    step(f"{count} power failures on {kind}")


def test_power_fails_on_ext4(scratch):
    lose_power(scratch, "ext4", media.seed(), media.rounds(5))


def test_power_fails_on_xfs(scratch):
    lose_power(scratch, "xfs", media.seed(), media.rounds(5))


def test_a_missing_sync_is_noticed(scratch):
    """The test itself: with syncs of the record stores' logs left out, acknowledged records are lost."""
    os.environ.update(LD_PRELOAD=os.fspath(media.tool("lost_syncs.so")), LOST_SYNCS=".log")
    try:
        lose_power(scratch, "ext4", media.seed(), 6)
    except harness.Failed as error:
        print(f"  noticed: {str(error).splitlines()[0][:200]}")
        return
    finally:
        del os.environ["LD_PRELOAD"], os.environ["LOST_SYNCS"]
    raise harness.Failed("nobody noticed that the stores' logs are never synced")


if __name__ == "__main__":
    media.require_own_mounts()
    harness.main(globals())
