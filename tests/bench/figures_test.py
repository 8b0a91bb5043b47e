"""Medians, ratios, limits, tables and plots of the benchmarks, from figures made up here."""

import json
import sys
import tempfile
import unittest
import xml.dom.minidom
from base64 import b64decode
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
sys.dont_write_bytecode = True

import figures  # noqa: E402  pylint: disable=wrong-import-position
import limits  # noqa: E402  pylint: disable=wrong-import-position
import plot  # noqa: E402  pylint: disable=wrong-import-position
import table  # noqa: E402  pylint: disable=wrong-import-position
import tables  # noqa: E402  pylint: disable=wrong-import-position
from datasets import Dataset  # noqa: E402  pylint: disable=wrong-import-position

GB = 10**9


def found(cores=2, **core_s):
    """Limits of 1 GB each in one second, at 0.1 core-seconds unless said."""
    names = [("memcpy", 0), ("xxh3", 4096), ("xxh3", 1 << 20), ("disk_write_direct", 0), ("disk_read_direct", 0),
             ("tcp_write", 0), ("tcp_sendfile", 0), ("scan", 4096), ("sst_ingest", 4096), ("write_batch_x3", 4096),
             ("write_batch_x3_scattered", 4096)]
    return figures.Limits({"cores": cores, "limits": [
        {"name": name, "value_bytes": size, "bytes": GB, "seconds": 1, "core_s": core_s.get(name, 0.1)} for name, size in names]})


class Ratios(unittest.TestCase):
    def test_median_of_ratios_not_ratio_of_medians(self):
        samples = {"a": [1, 10, 6], "b": [1, 2, 3]}
        self.assertEqual(figures.median_ratio(samples, "a", "b"), 2)

    def test_rounds_that_are_missing_are_an_error(self):
        with self.assertRaises(ValueError):
            figures.median_ratio({"a": [1, 2], "b": [1]}, "a", "b")

    def test_summary(self):
        self.assertEqual(figures.summary([3, 1, 2]), {"median": 2, "low": 1, "high": 3})


class Tables(unittest.TestCase):
    def test_shares_are_filled_like_water(self):
        self.assertEqual(table.ideal_shares([1, 1, 2], 2), [0.5, 0.5, 1])
        self.assertEqual(table.ideal_shares([10, 1, 1], 2), [1, 0.5, 0.5])

    def test_moves_are_copies_at_nodes_that_had_none(self):
        self.assertEqual(table.moves([(1, 2), (3, 4)], [(2, 1), (3, 5)]), 1)

    def test_least_moves(self):
        # A node that came is due one copy of three; who holds the odd ones keeps them.
        self.assertEqual(table.least_moves({1: 2, 2: 2}, {1: 4 / 3, 2: 4 / 3, 3: 4 / 3}), 1)
        # One that went leaves what it had.
        self.assertEqual(table.least_moves({1: 2, 2: 2, 3: 2}, {1: 3, 2: 3}), 2)
        self.assertEqual(table.least_moves({1: 2, 2: 2}, {1: 2, 2: 2}), 0)


class LimitsOfJobs(unittest.TestCase):
    def test_what_the_disk_bounds(self):
        self.assertAlmostEqual(figures.backup_limit(found(), 4096), GB, delta=1)
        self.assertAlmostEqual(figures.restore_limit(found(), 4096), GB / 3, delta=1)

    def test_what_the_processors_bound(self):
        # Six stages of a backup, scanning 0.6; of a restore two of the whole and three of each copy.
        self.assertAlmostEqual(figures.backup_limit(found(cores=1, scan=0.6), 4096), GB / 1.1, delta=1)
        self.assertAlmostEqual(figures.restore_limit(found(sst_ingest=3), 4096), GB * 2 / (0.2 + 0.6 + 9), delta=1)

    def test_the_cheaper_way_to_send_counts(self):
        for cheaper in ("tcp_write", "tcp_sendfile"):
            stages = figures.backup_stages(found(**{cheaper: 0.05}), 4096)
            self.assertAlmostEqual(stages["send and receive"] * GB, 0.05)

    def test_import(self):
        self.assertEqual(figures.import_limit(found(), 4096), GB)


class Collected(unittest.TestCase):
    def test_nested_by_value_and_cores(self):
        fields = limits.collect({("memcpy", 0, 1): [(1e9, 1e-9), (3e9, 3e-9), (2e9, 2e-9)], ("scan", 100, 2): [(5e6, 4e-9)]})
        one = fields["memcpy"]["1_core"]
        self.assertEqual((one["mb_s"], one["low"], one["high"]), (2000, 1000, 3000))
        self.assertAlmostEqual(one["core_s_per_gb"], 2)
        self.assertEqual(fields["scan"]["100"]["2_cores"]["mb_s"], 5)


class Pages(unittest.TestCase):
    def test_only_what_is_between_the_marks_is_replaced(self):
        text = "a\n<!-- figures: x -->\nold\n<!-- end -->\nb\n<!-- figures: y -->\nkept\n<!-- end -->\n"
        new = tables.replace(text, "x", "new\n")
        self.assertEqual(new, text.replace("old", "new"))
        self.assertEqual(tables.replace(new, "x", "new\n"), new)
        with self.assertRaises(ValueError):
            tables.replace(text, "z", "new\n")

    def test_bars_are_well_formed_and_to_scale(self):
        value = {"median": 50, "low": 40, "high": 100}
        svg = plot.bars("a < b", "MB/s", [("first & only", value, "ours"), ("limit", {**value, "median": 100}, "limit")])
        bars = [float(rect.getAttribute("width")) for rect in xml.dom.minidom.parseString(svg).getElementsByTagName("rect")[1:]]
        self.assertAlmostEqual(bars[0] * 2, bars[1])


class Datasets(unittest.TestCase):
    def test_lines_and_file_are_the_same_bytes_and_split_whole(self):
        with tempfile.TemporaryDirectory() as directory:
            data = Dataset(directory, "d", 40, 100)
            lines = data.lines.read_text().splitlines()
            self.assertEqual(b"".join(b64decode(json.loads(line)["value_b64"]) for line in lines), data.values.read_bytes())
            self.assertEqual(len({json.loads(line)["key"] for line in lines}), 40)
            first, last = data.split(0.05)
            self.assertEqual((first.read_text() + last.read_text()).splitlines(), lines)
            self.assertEqual(len(last.read_text().splitlines()), 2)
            data.remove()
            self.assertEqual(list(Path(directory).iterdir()), [])


if __name__ == "__main__":
    unittest.main()
