"""Two ends of `sluice bench link` on one machine, for the benchmarks that need them."""

import json
import os
import re
import subprocess


def run_pair(program, driver, host, block, seconds, checksum, receiver_environment=None, sender_environment=None, options=()):
    """The sender's JSON, after a check that nothing was damaged. Either end may get more environment; both get the options."""
    common = [program, "--json", "bench", "link", "--driver", driver, *options]
    receiver = subprocess.Popen(common + ["--listen", f"{host}:0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=os.environ | (receiver_environment or {}))
    try:
        address = None
        said = []
        for line in receiver.stderr:
            said.append(line)
            found = re.search(r"listening on (\S+)", line)
            if found:
                address = found.group(1)
                break
        if address is None:
            raise RuntimeError(f"the receiver does not listen: {''.join(said)}")
        sender = subprocess.run(common + ["--connect", address, "--seconds", str(seconds), "--block", str(block)] +
                                ([] if checksum else ["--no-checksum"]), capture_output=True, text=True,
                                timeout=120 + seconds, env=os.environ | (sender_environment or {}), check=False)
        out, err = receiver.communicate(timeout=60)
    finally:
        receiver.kill()
        receiver.wait()
    if sender.returncode != 0 or receiver.returncode != 0:
        raise RuntimeError(f"bench link: sender {sender.returncode} {sender.stdout}{sender.stderr}, "
                           f"receiver {receiver.returncode} {out}{err}")
    return json.loads(sender.stdout)
