"""What clients wrote, and what may be read of it.

A write is known from when it began; it is acknowledged once its client was answered, and in doubt until then, for good if the
client never is. Writes of one key follow each other: a key has one writer at a time. Thread-safe; no clock of its own.
"""

import contextlib
import hashlib
import threading


def digest_of(value):
    """Of bytes; None stays None, which is a deletion or a missing key."""
    return None if value is None else hashlib.blake2b(value, digest_size=16).digest()


class Write:
    """One write of one key."""

    def __init__(self, digest, begun, era):
        self.digest = digest
        self.begun = begun
        self.acknowledged = None
        self.era = era


class History:
    """Of one cluster. Times are wall clock seconds, as stamps are."""

    def __init__(self):
        self.lock = threading.Lock()
        self.writes = {}  # by key, in order
        self.era = 0
        self.readers = []  # since when; what they may read is kept

    def begin(self, values, now):
        """Writes of a dict of bytes to bytes (None: a deletion), to be given to acknowledge()."""
        begun = []
        with self.lock:
            for key, value in values.items():
                write = Write(digest_of(value), now, self.era)
                self.writes.setdefault(key, []).append(write)
                begun.append(write)
        return begun

    def acknowledge(self, writes, now):
        with self.lock:
            for write in writes:
                write.acknowledged = now

    @contextlib.contextmanager
    def reader(self, now):
        """What may be read since then is kept meanwhile."""
        with self.lock:
            self.readers.append(now)
        try:
            yield now
        finally:
            with self.lock:
                self.readers.remove(now)

    def settle(self):
        """Everything that ran has ended, so nothing begun before this moment can overtake a write that begins after it."""
        with self.lock:
            self.era += 1
            self.forget()

    def tidy(self):
        """Forgets what nobody can read any more, while everything goes on."""
        with self.lock:
            self.forget()

    def forget(self):
        since = min(self.readers, default=float("inf"))
        for key, writes in self.writes.items():
            self.writes[key] = self.relevant(writes, since)

    @staticmethod
    def relevant(writes, since):
        """Without those that another write, acknowledged at `since`, replaced: older acknowledged ones, and older doubts."""
        last = max((i for i, write in enumerate(writes)
                    if write.acknowledged is not None and write.acknowledged <= since), default=None)
        if last is None:
            return writes
        return [write for i, write in enumerate(writes)
                if i >= last or (write.acknowledged is None and write.era >= writes[last].era)]

    def allowed(self, since, until=float("inf")):
        """By key, the digests that may be read: of the last write acknowledged at `since` or of one after it that began at
        `until` at the latest, or of one in doubt that nothing has replaced for sure."""
        with self.lock:
            return {key: self.allowed_of(writes, since, until) for key, writes in self.writes.items()}

    def allowed_of_key(self, key, since, until=float("inf")):
        with self.lock:
            return self.allowed_of(self.writes.get(key, []), since, until)

    @staticmethod
    def allowed_of(writes, since, until):
        last = max((i for i, write in enumerate(writes)
                    if write.acknowledged is not None and write.acknowledged <= since), default=None)
        found = {None} if last is None else {writes[last].digest}
        for i, write in enumerate(writes):
            if write.begun > until or i == last:
                continue
            after = last is None or i > last
            if after or (write.acknowledged is None and write.era >= writes[last].era):
                found.add(write.digest)
        return frozenset(found)


def differences(found, allowed):
    """Of digests by key with what is allowed: (lost, wrong), lists of keys. Lost: nothing is there where something must be.
    Wrong: another value, or a key that nobody wrote."""
    lost, wrong = [], []
    for key in found.keys() | allowed.keys():
        value = found.get(key)
        if value in allowed.get(key, (None,)):
            continue
        (lost if value is None else wrong).append(key)
    return sorted(lost), sorted(wrong)
