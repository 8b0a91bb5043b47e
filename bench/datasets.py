"""Records of random bytes, which nothing compresses or finds twice: as JSON lines, and their values as ONE file."""

import base64
import random
from pathlib import Path



class Dataset:
    """`count` records of `value_bytes` each; the files are made in the directory."""

    def __init__(self, directory, name, count, value_bytes):
        self.name = name
        self.count = count
        self.value_bytes = value_bytes
        self.bytes = count * value_bytes
        self.lines = Path(directory) / f"{name}.jsonl"
        self.values = Path(directory) / f"{name}.bin"
        source = random.Random(count * value_bytes)
        with self.lines.open("w", encoding="ascii") as lines, self.values.open("wb") as values:
            for i in range(count):
                value = source.randbytes(value_bytes)
                values.write(value)
                lines.write(f'{{"key":"{self.key(i)}","value_b64":"{base64.b64encode(value).decode()}"}}\n')

    def key(self, number):
        return f"{self.name}/{number:012}"

    def split(self, share):
        """The first records' lines and the last ones', as two files: the latter has `share` of the records."""
        first, last = self.lines.with_suffix(".first"), self.lines.with_suffix(".last")
        until = self.count - max(1, round(self.count * share))
        with self.lines.open("rb") as lines, first.open("wb") as begin, last.open("wb") as end:
            for i, line in enumerate(lines):
                (begin if i < until else end).write(line)
        return first, last

    def remove(self):
        for path in (self.lines, self.values, self.lines.with_suffix(".first"), self.lines.with_suffix(".last")):
            path.unlink(missing_ok=True)
