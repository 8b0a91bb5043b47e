"""What an import acknowledges is what is read afterwards: of one key's lines the last."""

import json

import harness
from harness import check, check_equal


def test_the_last_line_of_a_key_wins(scratch):
    cluster = scratch.cluster("c", 3)
    for round_number in range(2):
        lines = [harness.json_line(b"large", b"x" * (20 << 20)), harness.json_line(b"large", b"small")]
        for repeat in range(4):
            lines += (harness.json_line(f"key{key}".encode(), f"{round_number}-{repeat}".encode() * 50) for key in range(600))
        result = cluster.json("record", "import", "--jsonl", "-", stdin=b"".join(lines))
        check_equal(result["records"], 2 + 4 * 600, "records")
        check_equal(result["failed"], 0, "failed")
        records = cluster.records(scratch.path("export"))
        check_equal(records.pop(b"large"), b"small", "the key whose first line was large")
        wanted = {f"key{key}".encode(): f"{round_number}-3".encode() * 50 for key in range(600)}
        check(records == wanted, "a line before the last of its key won")


def test_order_and_acknowledgements_while_a_node_is_killed(scratch):
    cluster = scratch.cluster("c", 3)
    path = scratch.path("lines")
    with open(path, "wb") as lines:
        for repeat in range(8):
            for key in range(300):
                lines.write(harness.json_line(f"key{key}".encode(), f"{repeat:02d}".encode() * 2000))
    running = cluster.background("record", "import", "--jsonl", str(path))
    harness.wait_for(lambda: int(cluster.json("record", "count")["count"]) > 0, "the first records")
    cluster.kill("n2")
    output, _ = running.communicate(timeout=120)
    result = json.loads(output)
    check_equal(running.returncode, 0, "exit code of the import")
    check_equal(result["records"], 8 * 300, "records")
    records = cluster.records(scratch.path("export"))
    check(records == {f"key{key}".encode(): b"07" * 2000 for key in range(300)},
          "a line before the last of its key won")


def test_a_node_of_another_cluster_takes_no_write(scratch):
    """It was started on the port that a node had which is down now."""
    mine, other = scratch.cluster("mine", 1), scratch.cluster("other", 1)

    def listens(cluster):
        config = (cluster.folder / "n1.toml").read_text()
        return next(line for line in config.splitlines() if line.startswith("control_listen"))
    before = listens(mine)
    mine.kill("n1")
    other.kill("n1")
    config = other.folder / "n1.toml"
    config.write_text(config.read_text().replace(listens(other), before))
    other.start("n1")
    refused = mine.run("record", "put", "key", "of mine", expect=1).stderr.decode()
    check("not one of cluster" in refused, f"it does not say why: {refused}")
    check_equal(other.json("record", "count")["count"], 0, "records of the other cluster")


if __name__ == "__main__":
    harness.main(globals())
