"""What may be read after some writes."""

import unittest

from history import History, differences, digest_of

OLD, NEW = digest_of(b"old"), digest_of(b"new")


class HistoryTest(unittest.TestCase):
    """One key, a."""

    def setUp(self):
        self.history = History()

    def write(self, value, begun, acknowledged=None):
        writes = self.history.begin({b"a": value}, begun)
        if acknowledged is not None:
            self.history.acknowledge(writes, acknowledged)

    def allowed(self, since, until=float("inf")):
        return self.history.allowed(since, until)[b"a"]

    def test_an_acknowledged_write_has_to_be_there(self):
        self.write(b"old", 1, 2)
        self.assertEqual(self.allowed(3), {OLD})
        self.assertEqual(differences({}, self.history.allowed(3)), ([b"a"], []))
        self.assertEqual(differences({b"a": NEW}, self.history.allowed(3)), ([], [b"a"]))
        self.assertEqual(differences({b"a": OLD}, self.history.allowed(3)), ([], []))

    def test_what_nobody_wrote_is_wrong(self):
        self.assertEqual(differences({b"b": OLD}, self.history.allowed(3)), ([], [b"b"]))

    def test_a_write_that_is_not_acknowledged_may_be_there(self):
        self.write(b"old", 1, 2)
        self.write(b"new", 3)
        self.assertEqual(self.allowed(4), {OLD, NEW})

    def test_a_newer_acknowledged_write_replaces_the_older_one(self):
        self.write(b"old", 1, 2)
        self.write(b"new", 3, 4)
        self.assertEqual(self.allowed(5), {NEW})

    def test_a_backup_may_have_what_began_before_its_cut_and_nothing_later(self):
        self.write(b"old", 1, 2)
        self.write(b"new", 5, 6)
        self.assertEqual(self.allowed(3, until=4), {OLD})
        self.assertEqual(self.allowed(3, until=5.5), {OLD, NEW})

    def test_a_deletion_may_not_be_undone(self):
        self.write(b"old", 1, 2)
        self.write(None, 3, 4)
        self.assertEqual(differences({b"a": OLD}, self.history.allowed(5)), ([], [b"a"]))

    def test_a_write_in_doubt_may_come_late_until_all_has_settled(self):
        self.write(b"old", 1)
        self.write(b"new", 2, 3)
        self.assertEqual(self.allowed(4), {OLD, NEW})
        self.history.settle()
        self.assertEqual(self.allowed(4), {OLD, NEW})
        self.write(b"newest", 5, 6)
        self.history.settle()
        self.assertEqual(self.allowed(7), {digest_of(b"newest")})

    def test_what_a_reader_may_find_is_kept(self):
        self.write(b"old", 1, 2)
        with self.history.reader(3) as since:
            self.write(b"new", 4, 5)
            self.history.settle()
            self.assertEqual(self.allowed(since), {OLD, NEW})
        self.history.tidy()
        self.assertEqual(self.allowed(since), {None, NEW})


if __name__ == "__main__":
    unittest.main()
