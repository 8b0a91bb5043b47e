#!/usr/bin/env python3
"""Runs clang-tidy on the library sources that changed since it last found nothing in them.

    scripts/tidy.py BUILD_FOLDER [--deep] [FILE...]     FILE: only these; --deep: the path-sensitive analyzer as well

BUILD_FOLDER compiles each source by itself and has its generated headers, as scripts/check prepares build/dev.

A file's stamp, in BUILD_FOLDER/tidy, is the digest of everything of this project that it is compiled from, so a clean
result is asked for once. Exit status 1 when anything is found.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

INCLUDE = re.compile(rb'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
FOLDERS = ("base", "drivers", "dataplane", "tree", "control")


def closure(path, seen):
    """All files of the project that `path` includes, itself among them."""
    if path in seen or not path.exists():
        return seen
    seen[path] = path.read_bytes()
    for name in INCLUDE.findall(seen[path]):
        closure(Path(name.decode()), seen)
    return seen


def stamp_of(path, deep):
    digest = hashlib.sha256(Path(".clang-tidy").read_bytes() + (b"deep" if deep else b""))
    for name, content in sorted(closure(path, {}).items()):
        digest.update(str(name).encode() + b"\0" + content)
    return digest.hexdigest()


def compiled_in(build):
    """The sources that the build compiles one by one."""
    commands = json.loads((build / "compile_commands.json").read_text())
    return {Path(command["file"]).resolve() for command in commands}


def tidy(build, path, deep):
    command = ["clang-tidy-14", "--quiet", "-p", str(build)]
    if deep:
        command.append("--checks=clang-analyzer-*,-clang-analyzer-optin.*")
    done = subprocess.run(command + [str(path)], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout


def main():
    arguments = sys.argv[1:]
    deep = "--deep" in arguments
    arguments = [a for a in arguments if a != "--deep"]
    build = Path(arguments[0])
    files = [Path(a) for a in arguments[1:]]
    if not files:
        listed = subprocess.run(["git", "ls-files", "--", *(f"{folder}/*.cc" for folder in FOLDERS)], capture_output=True,
                                text=True, check=True)
        files = [Path(line) for line in listed.stdout.splitlines()]
    compiled = compiled_in(build)
    unknown = [str(path) for path in files if path.exists() and path.resolve() not in compiled]
    if unknown:
        print(f"tidy.py: {build} does not compile {unknown[0]} by itself ({len(unknown)} such files); use build/dev, "
              "which scripts/check prepares", file=sys.stderr)
        return 2
    stamps = build / "tidy"
    stamps.mkdir(parents=True, exist_ok=True)
    wanted = [(path, stamps / stamp_of(path, deep)) for path in files if path.exists()]
    wanted = [(path, stamp) for path, stamp in wanted if not stamp.exists()]
    found = False
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(tidy, build, path, deep): (path, stamp) for path, stamp in wanted}
        for number, future in enumerate(concurrent.futures.as_completed(running), 1):
            path, stamp = running[future]
            clean, text = future.result()
            if clean:
                stamp.touch()
            else:
                found = True
                print(text, end="", flush=True)
            if sys.stderr.isatty():
                print(f"\rclang-tidy: {number} of {len(wanted)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and wanted:
        print(file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
