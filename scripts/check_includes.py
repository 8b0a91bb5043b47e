#!/usr/bin/env python3
"""Checks that project includes point one way: control -> dataplane -> drivers -> base.

A folder may include itself and the folders named here, no other. Nothing above drivers/ may name a driver.
"""
import re
import subprocess
import sys

BASE = {"base"}
ALLOWED = {
    "base": set(),
    "drivers": BASE | {"drivers/tcp", "drivers/sim", "drivers/rdma", "drivers/packet", "drivers/dpdk"},
    "drivers/tcp": BASE | {"drivers"},
    "drivers/rdma": BASE | {"drivers"},
    "drivers/packet": BASE | {"drivers"},
    "drivers/sim": BASE | {"drivers", "drivers/packet"},
    "drivers/dpdk": BASE | {"drivers", "drivers/packet"},
    "dataplane/block": BASE,
    "dataplane/source": BASE | {"dataplane/block"},
    "dataplane/store": BASE | {"dataplane/block", "dataplane/source"},
    "dataplane/tree_source": BASE | {"dataplane/block", "dataplane/source", "tree"},
    "dataplane/archive": BASE | {"dataplane/block"},
    "dataplane/stream": BASE | {"drivers", "dataplane/block"},
    "dataplane/pipeline": BASE | {"drivers", "dataplane/block", "dataplane/source", "dataplane/store",
                                  "dataplane/archive", "dataplane/stream"},
}
DATAPLANE = {folder for folder in ALLOWED if folder.startswith("dataplane/")}
# The floors of control/, from the ground up: a folder uses what is below its own floor, and of this
# what it needs.
TABLE = {"control/table", "control/cluster_block"}
PLANS = TABLE | {"control/schedule", "control/membership"}
PEERS = PLANS | {"control/proto", "control/peers", "control/job"}
JOBS = PEERS | {"control/backup", "control/contents", "control/records", "control/restore"}
NODES = JOBS | {"control/service", "control/client", "control/node"}
BELOW = BASE | DATAPLANE | {"drivers"}
ALLOWED |= {
    "tree": BASE | {"dataplane/block"},
    "control/proto": set(),
    "control/cluster_block": BASE | {"control/proto"},
    "control/table": BASE,
    "control/schedule": BASE | {"dataplane/block", "control/table"},
    "control/membership": BASE | {"dataplane/block", "control/proto"} | TABLE,
    "control/peers": BELOW | PLANS | {"control/proto"},
    "control/job": BASE | {"dataplane/store"} | PLANS,
    "control/backup": BELOW | PEERS | {"tree"},
    "control/contents": BELOW | PEERS | {"tree"},
    "control/mount": BELOW | PEERS | {"control/contents", "tree"},
    "control/records": BELOW | PEERS,
    "control/restore": BELOW | PEERS,
    "control/service": BELOW | JOBS,
    "control/client": BELOW | JOBS,
    "control/node": BELOW | JOBS | {"control/service", "tree"},
    "control/local": BELOW | NODES,
    "control/cli": BELOW | NODES | {"control/local", "control/mount", "tree"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def folder_of(path):
    parts = path.split("/")
    depth = 1 if parts[0] in ("base", "tree") or (parts[0] == "drivers" and len(parts) == 2) else 2
    return "/".join(parts[:depth])


def main():
    files = subprocess.run(["git", "ls-files", "*.h", "*.cc"], check=True, capture_output=True,
                           text=True).stdout.split()
    wrong = []
    for path in files:
        folder = folder_of(path)
        if folder.split("/")[0] not in ("base", "drivers", "dataplane", "tree", "control"):
            continue
        if folder not in ALLOWED:
            wrong.append(f"{path}: folder {folder} is not in scripts/check_includes.py")
            continue
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                match = INCLUDE.match(line)
                if not match or match[1].split("/")[0] not in ("base", "drivers", "dataplane", "tree", "control"):
                    continue
                target = folder_of(match[1])
                if target != folder and target not in ALLOWED[folder]:
                    wrong.append(f"{path}:{number}: {folder} must not include {match[1]}")
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
