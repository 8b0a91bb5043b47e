"""Parts read beside the program: the golden files, and what counts as done again."""

import tempfile
import types
import unittest
from pathlib import Path

from parts import Durable, index_blocks, journal_blocks

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
HASH = bytes(8)


def journal(*payloads):
    """With a header that nobody reads."""
    entries = b"".join(HASH + len(payload).to_bytes(4, "little") + payload for payload in payloads)
    return (3).to_bytes(4, "little") + b"abc" + entries


def durable(slot, *blocks):
    """A payload for one slot; blocks: (segment, offset, bytes)."""
    listed = b"".join(segment.to_bytes(4, "little") + offset.to_bytes(8, "little") + size.to_bytes(4, "little") +
                      slot.to_bytes(4, "little") + bytes(20) for segment, offset, size in blocks)
    return bytes([1, 1]) + slot.to_bytes(4, "little") + bytes(48) + bytes([len(blocks)]) + listed


def taken_back(slot):
    return bytes([2, 1]) + slot.to_bytes(4, "little")


class PartsTest(unittest.TestCase):
    """Blocks are (slot, segment, offset, bytes)."""

    def test_an_index_is_read_as_the_formats_say(self):
        blocks = index_blocks((GOLDEN / "index_v1.bin").read_bytes())
        self.assertIn((6, 3, 0, 4100), blocks)
        self.assertEqual(len(blocks), 2)

    def test_a_journal_is_read_as_the_formats_say(self):
        blocks = journal_blocks((GOLDEN / "journal_v1.bin").read_bytes())
        self.assertEqual(blocks, {(6, 3, 0, 4100), (6, 3, 8192, 137)})

    def test_a_journal_tells_what_is_durable(self):
        self.assertEqual(journal_blocks(journal(durable(5, (0, 4096, 700), (1, 0, 30)))), {(5, 0, 4096, 700), (5, 1, 0, 30)})

    def test_the_last_word_counts(self):
        self.assertEqual(journal_blocks(journal(durable(5, (0, 0, 7)), taken_back(5))), set())

    def test_an_entry_that_is_cut_off_does_not_count(self):
        whole = journal(durable(5, (0, 0, 7)), durable(6, (0, 4096, 8)))
        self.assertEqual(journal_blocks(whole[:-1]), {(5, 0, 0, 7)})

    def test_a_block_that_stands_elsewhere_was_done_again(self):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "n1-archive" / "b"
            part.mkdir(parents=True)
            watched = Durable(types.SimpleNamespace(folder=Path(folder), names=["n1"]), "b")
            (part / "journal").write_bytes(journal(durable(6, (3, 0, 4100)), durable(9, (3, 4096, 50))))
            self.assertTrue(watched.any())
            (part / "index-00003").write_bytes((GOLDEN / "index_v1.bin").read_bytes())
            self.assertEqual(watched.outcome(), (4150, 50, 0))

    def test_a_node_without_a_part_was_left_out(self):
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "n1-archive" / "b"
            part.mkdir(parents=True)
            watched = Durable(types.SimpleNamespace(folder=Path(folder), names=["n1"]), "b")
            (part / "journal").write_bytes(journal(durable(6, (3, 0, 4100))))
            watched.watch()
            self.assertEqual(watched.outcome(), (4100, 0, 4100))


if __name__ == "__main__":
    unittest.main()
