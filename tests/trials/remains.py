"""What may remain of jobs that have ended: nothing in nodes' directories, and nothing in the cluster block but what backups that
exist need."""

import re
import sqlite3

from harness import check

UNFINISHED = ("journal", "removed")
JOB_KEY = re.compile(r"^(backup|restore)/([0-9a-f-]{36})/")


def keys_of(cluster, block, prefix):
    """Of a cluster block's documents."""
    if block is not None:
        return block.keys(prefix)
    connection = sqlite3.connect(cluster.url.removeprefix("sqlite:"), timeout=30)
    try:
        return [bytes(row[0]).decode() for row in connection.execute("select key from kv")]
    finally:
        connection.close()


def in_directories(cluster, backups):
    """Paths that should not be there; `backups` are the names of those that exist."""
    found = []
    for name in cluster.names:
        data, archives = cluster.folder / name, cluster.folder / f"{name}-archive"
        found += [path for directory in ("cuts", "ingest") for path in (data / directory).glob("*")]
        if not archives.exists():
            continue
        for part in archives.iterdir():
            if part.name not in backups:
                found.append(part)
            found += [part / file for file in UNFINISHED if (part / file).exists()]
            found += part.glob("*.tmp*")
    return [str(path) for path in found]


def in_block(keys, uuids):
    """Documents of backups that do not exist, and locks: nothing runs."""
    check("cluster" in keys, "other: the cluster block's keys were not read")
    found = []
    for key in keys:
        job = JOB_KEY.match(key)
        if job and job[1] == "backup" and job[2] not in uuids:
            found.append(key)
        if key.startswith("backups/") and key.removeprefix("backups/") not in uuids:
            found.append(key)
        if re.match(r"^[a-z-]*locks?/", key):
            found.append(key)
    return found


def check_nothing_remains(cluster, block, prefix, backups, wait_for):
    """`backups`: UUID by name, of those that exist. What ends of itself is waited for."""
    left = []

    def clean():
        left[:] = in_directories(cluster, backups) + in_block(keys_of(cluster, block, prefix), set(backups.values()))
        return not left
    try:
        wait_for(clean, "nothing remains", 120)
    finally:
        check(not left, f"remains: {left[:8]}")
