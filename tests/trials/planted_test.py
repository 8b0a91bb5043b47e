"""Faults planted by hand, which the trial of kills has to find: an oracle that says nothing proves nothing."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "acceptance")]

import harness  # noqa: E402
from harness import check  # noqa: E402
from kills_trial import Tally, kind_of  # noqa: E402
from remains import check_nothing_remains  # noqa: E402
from rounds import Round  # noqa: E402
from world import World  # noqa: E402


def finds(kind, work):
    try:
        work()
    except Exception as error:  # pylint: disable=broad-except
        check(kind_of(error) == kind, f"found as {kind_of(error)}, not as {kind}: {error}")
        return
    raise harness.Failed(f"what was planted was not found: {kind}")


class Quiet(World):
    """Where nothing happens but what a test does."""

    def __init__(self, scratch):
        super().__init__(1, "tcp", Tally())
        scratch.closers.append(lambda: self.close(False))
        self.is_spared = True

    def some_key(self):
        """One that is there."""
        return next(key for key, values in sorted(self.history.allowed(float("inf")).items()) if None not in values).decode()


def test_nothing_is_found_where_nothing_is_planted(scratch):
    world = Quiet(scratch)
    Round(world, 0).run()
    Round(world, 1).compare_all()


def test_writes_that_are_lost_or_changed(scratch):
    world = Quiet(scratch)
    this = Round(world, 0)
    this.run()
    key = world.some_key()
    world.cluster.run("record", "put", key, "something else")
    finds("wrong", this.compare)
    world.cluster.run("record", "delete", key)
    finds("lost", this.compare)
    # A backup has lost it, too.
    later = Round(world, 1)
    later.make_backup()
    finds("lost", later.restore)


def test_an_archive_that_is_damaged(scratch):
    world = Quiet(scratch)
    Round(world, 0).run()
    segment = next(world.cluster.folder.glob("n*-archive/b0/segment-00000"))
    content = bytearray(segment.read_bytes())
    content[len(content) // 3] ^= 1
    segment.write_bytes(content)
    finds("wrong", lambda: Round(world, 0).check_verifies("b0"))


def test_what_remains(scratch):
    world = Quiet(scratch)
    Round(world, 0).run()

    def at_once(condition, what, _seconds):
        check(condition(), what)

    def remains():
        backups = {name: backup["uuid"] for name, backup in world.backups.items()}
        check_nothing_remains(world.cluster, world.etcd, "c", backups, at_once)
    remains()
    stray = world.cluster.folder / "n1-archive" / "b9"
    stray.mkdir()
    finds("remains", remains)
    stray.rmdir()
    cut = world.cluster.folder / "n2" / "cuts" / "x"
    cut.mkdir()
    finds("remains", remains)
    cut.rmdir()
    del world.backups["b0"]
    finds("remains", remains)


if __name__ == "__main__":
    harness.main(globals())
