"""The programs of bench/ that are built with the project, and packages that only benchmarks need."""

import json
import subprocess
import sys
from pathlib import Path


def built(project, program, name):
    """The path of a program of bench/: beside the sluice that is measured, or of the release build, which is made if need be."""
    beside = Path(program).parent / "bench" / name
    if beside.exists():
        return beside
    path = project / "build/release/bench" / name
    if not path.exists():
        subprocess.run([project / "scripts/build", "release"], stdout=sys.stderr, check=True)
    return path


def interposer(project, name, directory):
    """bench/interpose/NAME.c built for LD_PRELOAD; its path.

    Calls of memcpy in the counter itself must stay calls of its own functions, not the compiler's.
    """
    library = Path(directory) / f"{name}.so"
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-fno-builtin", "-fPIC", "-shared", "-o", library,
                    project / f"bench/interpose/{name}.c", "-ldl"], check=True)
    return library


def measure_limits(program, directory, cores, scale, values=None, only=None):
    """One run of limits_bench, as its JSON."""
    command = [program, "--dir", directory, "--cores", str(cores), "--scale", str(scale)]
    if values:
        command += ["--values", ",".join(map(str, values))]
    if only:
        command += ["--only", ",".join(only)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"limits_bench ended with {done.returncode}: {done.stderr}")
    return json.loads(done.stdout)


def install(project, *packages):
    """Installs Debian packages that are missing, as scripts/install-dependencies does."""
    if subprocess.run([project / "scripts/install-dependencies", *packages], stdout=sys.stderr, check=False).returncode != 0:
        raise RuntimeError(f"the references could not be installed: {' '.join(packages)}")


def say(text):
    print(text, file=sys.stderr, flush=True)
