"""What parts of archives hold durably, read from their files (docs/formats.md), not by the program's own word.

A block is (slot, segment, offset, bytes); one that was durable and is elsewhere later was done twice.
"""

import struct

DURABLE = 1
HASH_BYTES = 8
DIGEST_BYTES = 40
BLOCK = struct.Struct("<QIIIIIQ")  # offset, bytes, slot, sequence, entries, flags, checksum
FRAME_HEAD_BYTES = 8


class Reader:
    """Of little-endian numbers; IndexError or struct.error where they end early."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def number(self, form):
        value, = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def varint(self):
        value, shift = 0, 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value

    def skip_string(self):
        length = self.varint()
        self.at += length

    def block(self, segment):
        offset, size, slot, *_ = BLOCK.unpack_from(self.data, self.at)
        self.at += BLOCK.size
        return slot, segment, offset, size


def journal_blocks(journal):
    """The blocks of the slots that a journal's bytes list last. An entry that is cut off does not count."""
    slots = {}
    if len(journal) < 4:
        return set()
    reader = Reader(journal)
    reader.at = 4 + reader.number("I")
    while reader.at + HASH_BYTES + 4 <= len(journal):
        reader.at += HASH_BYTES
        length = reader.number("I")
        end = reader.at + length
        if end > len(journal):
            break
        kind, count = reader.number("B"), reader.varint()
        for _ in range(count):
            slot = reader.number("I")
            if kind != DURABLE:
                slots.pop(slot, None)
                continue
            reader.at += DIGEST_BYTES + 8
            slots[slot] = [reader.block(reader.number("I")) for _ in range(reader.varint())]
        reader.at = end
    return {block for blocks in slots.values() for block in blocks}


def index_blocks(index):
    reader = Reader(index, FRAME_HEAD_BYTES)
    reader.skip_string()
    reader.skip_string()
    segment = reader.number("I")
    reader.number("Q")
    return {reader.block(segment) for _ in range(reader.number("Q"))}


class Durable:
    """What was seen durable of one backup, by the nodes' journals, and how much of it was done again."""

    def __init__(self, cluster, backup):
        self.parts = {name: cluster.folder / f"{name}-archive" / backup for name in cluster.names}
        self.seen = {name: set() for name in cluster.names}
        self.cut = None

    def watch(self):
        for name, part in self.parts.items():
            try:
                self.seen[name] |= journal_blocks((part / "journal").read_bytes())
            except FileNotFoundError:
                pass

    def any(self):
        self.watch()
        return any(self.seen.values())

    def forget(self):
        """The backup took another cut: nothing from before counts."""
        self.seen = {name: set() for name in self.parts}

    def blocks(self):
        """Of the finished archive."""
        return [block for part in self.parts.values() for index in part.glob("index-*")
                for block in index_blocks(index.read_bytes())]

    def outcome(self):
        """Of the finished archive, in bytes that were durable at some time: all of them; those that were done again although their
        node has a part of it; those whose node was left out of it, because it was dead."""
        durable = again = left_out = 0
        for name, part in self.parts.items():
            durable += sum(block[3] for block in self.seen[name])
            indexes = list(part.glob("index-*"))
            kept = set().union(*(index_blocks(index.read_bytes()) for index in indexes))
            gone = sum(block[3] for block in self.seen[name] - kept)
            if indexes:
                again += gone
            else:
                left_out += gone
        return durable, again, left_out
