"""What counts as growth."""

import unittest

from samples import BOUNDS, MIB, judge, slope

HOUR = [5 * i for i in range(720)]


class SamplesTest(unittest.TestCase):
    """An hour, with a sample every five seconds."""

    def judged(self, value_at, what="rss"):
        return judge([(t, value_at(t)) for t in HOUR], BOUNDS[what])

    def test_what_swings_does_not_grow(self):
        self.assertIs(self.judged(lambda t: (100 + t % 60) * MIB)["grows"], False)

    def test_single_peaks_do_not_count(self):
        self.assertIs(self.judged(lambda t: (900 if t % 1000 == 0 else 100) * MIB)["grows"], False)

    def test_a_leak_is_found(self):
        # A megabyte a minute, under swings of fifty.
        judged = self.judged(lambda t: (100 + t / 60 + t % 50) * MIB)
        self.assertIs(judged["grows"], True)
        self.assertAlmostEqual(judged["growth"] / MIB, 24, delta=2)

    def test_what_grows_while_it_warms_up_is_no_leak(self):
        self.assertIs(self.judged(lambda t: min(t, 2000) * MIB)["grows"], False)

    def test_a_thread_in_five_minutes_is_found(self):
        self.assertIs(self.judged(lambda t: 50 + t // 300, "threads")["grows"], True)

    def test_a_minute_says_nothing(self):
        self.assertIsNone(judge([(t, t * MIB) for t in range(60)], BOUNDS["rss"])["grows"])

    def test_slope(self):
        self.assertEqual(slope([(0, 0), (1, 2), (2, 4), (3, 600), (4, 8), (5, 10), (6, 12)]), 2)


if __name__ == "__main__":
    unittest.main()
