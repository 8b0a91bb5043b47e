#!/usr/bin/env python3
"""Runs clang-tidy on the library sources that changed since it last found nothing in them.

    scripts/tidy.py BUILD_FOLDER [--deep | --thread-safety] [FILE...]
                        FILE: only these; --deep: the path-sensitive analyzer as well; --thread-safety: instead of all
                        this clang's check of annotated locks (base/mutex.h), of the sources that have any

BUILD_FOLDER compiles each source by itself and has its generated headers, as scripts/check prepares build/dev.

A file's stamp, in BUILD_FOLDER/tidy, is the digest of everything of this project that it is compiled from, so a clean
result is asked for once. Exit status 1 when anything is found.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import shlex
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


def stamp_of(path, mode):
    digest = hashlib.sha256(Path(".clang-tidy").read_bytes() + mode.encode())
    for name, content in sorted(closure(path, {}).items()):
        digest.update(str(name).encode() + b"\0" + content)
    return digest.hexdigest()


def compiled_in(build):
    """The sources that the build compiles one by one, and how."""
    commands = json.loads((build / "compile_commands.json").read_text())
    return {Path(command["file"]).resolve(): command for command in commands}


def has_annotated_locks(path):
    """In itself, or in a header that it includes."""
    content = path.read_bytes()
    headers = [Path(name.decode()) for name in INCLUDE.findall(content)]
    return any(b'"base/mutex.h"' in text for text in [content, *(h.read_bytes() for h in headers if h.exists())])


def check_locks(compiled, path):
    command = compiled[path.resolve()]
    words = shlex.split(command["command"])
    options = [word for word in words if word.startswith(("-I", "-D", "-std="))]
    for at, word in enumerate(words):
        if word == "-isystem":
            options += words[at:at + 2]
    checks = ["-fsyntax-only", "-Wthread-safety", "-Wthread-safety-beta", "-Werror=thread-safety"]
    done = subprocess.run(["clang++-14", *options, *checks, command["file"]], capture_output=True, text=True, check=False,
                          cwd=command["directory"])
    return done.returncode == 0, done.stderr


def tidy(build, path, mode):
    command = ["clang-tidy-14", "--quiet", "-p", str(build)]
    if mode == "--deep":
        command.append("--checks=clang-analyzer-*,-clang-analyzer-optin.*")
    done = subprocess.run(command + [str(path)], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    mode = "".join(a for a in sys.argv[1:] if a.startswith("--"))
    if mode not in ("", "--deep", "--thread-safety"):
        print(f"tidy.py: unknown option {mode}", file=sys.stderr)
        return 2
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
    what = "clang-tidy" if mode != "--thread-safety" else "locks"
    run = tidy if mode != "--thread-safety" else lambda _, path, __: check_locks(compiled, path)
    if mode == "--thread-safety":
        files = [path for path in files if has_annotated_locks(path)]
    stamps = build / "tidy"
    stamps.mkdir(parents=True, exist_ok=True)
    wanted = [(path, stamps / stamp_of(path, mode)) for path in files if path.exists()]
    wanted = [(path, stamp) for path, stamp in wanted if not stamp.exists()]
    found = False
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(run, build, path, mode): (path, stamp) for path, stamp in wanted}
        for number, future in enumerate(concurrent.futures.as_completed(running), 1):
            path, stamp = running[future]
            clean, text = future.result()
            if clean:
                stamp.touch()
            else:
                found = True
                print(text, end="", flush=True)
            if sys.stderr.isatty():
                print(f"\r{what}: {number} of {len(wanted)}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty() and wanted:
        print(file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
