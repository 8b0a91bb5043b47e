"""From what was measured to what is reported: medians, ratios, and the limits of a backup, a restore and an import.

Pure functions; tests/bench/figures_test.py has their tests.
"""

import statistics

REPLICAS = 3
MIB = 1 << 20


def summary(values):
    """The median of some rounds with the lowest and the highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def median_ratio(samples, name, other):
    """The median of the ratios within a round, of two lists in a dict of lists."""
    return statistics.median(a / b for a, b in zip(samples[name], samples[other], strict=True))


class Limits:
    """What limits_bench found in one run."""

    def __init__(self, found):
        self.cores = found["cores"]
        self.by_name = {(one["name"], one["value_bytes"]): one for one in found["limits"]}

    def rate(self, name, value_bytes=0):
        """Bytes a second."""
        one = self.by_name[name, value_bytes]
        return one["bytes"] / one["seconds"]

    def core_s(self, name, value_bytes=0):
        """Core-seconds a byte."""
        one = self.by_name[name, value_bytes]
        return one["core_s"] / one["bytes"]


def send_and_receive(limits):
    """Core-seconds a byte of both ends of a connection, sent in the cheaper way."""
    return min(limits.core_s("tcp_write"), limits.core_s("tcp_sendfile"))


def backup_stages(limits, value_bytes):
    """Core-seconds a byte of what no backup over a network can leave out: each byte is read from the record store, checksummed,
    gathered into a block, sent and received, checked, digested and written once."""
    return {"scan with checksum": limits.core_s("scan", value_bytes),
            "gather": limits.core_s("memcpy"),
            "send and receive": send_and_receive(limits),
            "check": limits.core_s("xxh3", MIB),
            "digest": limits.core_s("xxh3", value_bytes),
            "write": limits.core_s("disk_write_direct")}


def restore_stages(limits, value_bytes, replicas=REPLICAS):
    """The same of a restore: read and checked once, then received, digested and built into sorted tables by each replica."""
    return {"read": limits.core_s("disk_read_direct"),
            "check": limits.core_s("xxh3", MIB),
            "send and receive": replicas * send_and_receive(limits),
            "digest": replicas * limits.core_s("xxh3", value_bytes),
            "build tables": replicas * limits.core_s("sst_ingest", value_bytes)}


def backup_limit(limits, value_bytes):
    """Bytes a second: the smaller of what the disk writes and what all processors can do of the stages."""
    return min(limits.rate("disk_write_direct"), limits.cores / sum(backup_stages(limits, value_bytes).values()))


def restore_limit(limits, value_bytes, replicas=REPLICAS):
    """Unique bytes a second: the smaller of what the disk writes, shared by the copies, and what the processors can do."""
    return min(limits.rate("disk_write_direct") / replicas,
               limits.cores / sum(restore_stages(limits, value_bytes, replicas).values()))


def import_limit(limits, value_bytes):
    """Unique bytes a second, written by RocksDB with log and sync into three databases, with keys as clients' come: scattered."""
    return limits.rate("write_batch_x3_scattered", value_bytes)


def ordered_import_limit(limits, value_bytes):
    """The same with all keys in order, which no store that hashes keys sees: nothing is searched and nothing merged."""
    return limits.rate("write_batch_x3", value_bytes)
