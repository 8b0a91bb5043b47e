"""Markdown tables and plots of what the benchmarks found, for docs/performance.md. Pure functions."""

from plot import bars, number

VALUES = {"100": "100 B", "4096": "4 KiB", "1048576": "1 MiB"}
LIMITS = {
    "memcpy": "memcpy, cold to cold", "xxh3": "XXH3 of cold memory, values of",
    "disk_write_direct": "disk write, direct, 8 in flight", "disk_write_buffered": "disk write, page cache and fsync",
    "disk_read_direct": "disk read, direct, 8 in flight", "disk_read_buffered": "disk read, through the page cache",
    "tcp_write": "loopback TCP, write() from cold memory", "tcp_sendfile": "loopback TCP, sendfile() from a memfd",
    "scan": "RocksDB scan with XXH3, values of", "sst_ingest": "RocksDB sorted tables built and ingested, values of",
    "write_batch_x3": "RocksDB batches of keys in order, log and sync, three copies, values of",
    "write_batch_x3_scattered": "RocksDB batches of scattered keys, log and sync, three copies, values of",
    "scan_scattered": "RocksDB scan with XXH3 of what scattered batches left, values of"}
PEERS = {"rsync": "rsync daemon, one file", "restic": "restic, one file", "borg": "borg, one file",
         "backup_engine": "RocksDB BackupEngine, one replica"}


def replace(text, name, content):
    """The text with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- figures: {name} -->\n", "<!-- end -->"
    head, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise ValueError(f"there are no marks of {name}")
    return head + begin + content + rest[rest.index(end):]


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def spread(value):
    return f"{number(value['median'])} ({number(value['low'])} to {number(value['high'])})"


def taken(found):
    """Where and how often."""
    here = found["machine"]
    share = "" if found.get("scale", 1) == 1 else f", {found['scale']:g} of the full data"
    return (f"{here['processor']}, {here['processors']} processors, {here['memory_gb']} GB, Linux {here['kernel']}, load average "
            f"before it {here['load_before']}; medians of {found['rounds']} rounds, lowest to highest{share}.\n\n")


def limits_table(found):
    rows = []

    def add(label, of_cores):
        cells = [label]
        for cores in ("1_core", "2_cores"):
            one = of_cores.get(cores)
            cells.append(f"{number(one['mb_s'])} ({number(one['low'])} to {number(one['high'])})" if one else "")
            cells.append(number(one["core_s_per_gb"]) if one else "")
        rows.append(cells)
    for name, label in LIMITS.items():
        if "1_core" in found[name]:
            add(label, found[name])
        else:
            for value_bytes, of_cores in found[name].items():
                add(f"{label} {VALUES[value_bytes]}", of_cores)
    return (taken(found) +
            table(["what", "1 core, MB/s", "core-s/GB", "2 cores, MB/s", "core-s/GB"], rows))


TCP_ROWS = {"sluice_hot": ("Sluice, few buffers", "ours"), "iperf3": ("iperf3", "other"),
            "iperf3_zerocopy": ("iperf3 -Z", "other"), "iperf3_unpaced": ("iperf3 -C reno", "other"),
            "sluice_hot_2_streams": ("Sluice, few buffers, 2 streams", "ours"), "iperf3_2_streams": ("iperf3 -P 2", "other"),
            "sluice_hot_4_streams": ("Sluice, few buffers, 4 streams", "ours"),
            "iperf3_4_streams": ("iperf3 -P 4", "other"), "sluice_cold": ("Sluice, many buffers", "ours"),
            "write_cold_limit": ("write(), many buffers", "limit"), "sendfile_cold_limit": ("sendfile(), many buffers", "limit")}


def tcp_table(found):
    rates, efficiency = found["gbit_s"], found["gbit_per_core_s"]
    rows = [[label, spread(rates[name]), number(efficiency[name]["median"]) if name in efficiency else ""]
            for name, (label, _) in TCP_ROWS.items()]
    ratios = (f"Ratios within a round: hot {found['ratio_vs_iperf3_hot']:.2f} of iperf3 "
              f"({found['ratio_vs_iperf3_zerocopy']['hot']:.2f} of iperf3 -Z, {found['ratio_vs_iperf3_unpaced']['hot']:.2f} of "
              f"iperf3 -C reno), cold {found['ratio_vs_iperf3_cold']:.2f} ({found['ratio_vs_iperf3_zerocopy']['cold']:.2f}, "
              f"{found['ratio_vs_iperf3_unpaced']['cold']:.2f}); two streams {found['streams_over_one_hot']['2']:.2f} of one; for each "
              f"processor second {found['ratio_per_cpu_second']:.2f} hot and {found['ratio_per_cpu_second_cold']:.2f} cold.\n")
    return (f"{taken(found)}Rounds of {found['seconds']} s, {found['buffers']['hot']} and {found['buffers']['cold']} buffers of "
            f"1 MiB at each end; the system's congestion control is {found['congestion_control']}. {ratios}\n" +
            table(["what", "Gbit/s", "Gbit for each core-second"], rows))


def tcp_plots(found):
    rows = [(label, found["gbit_s"][name], kind) for name, (label, kind) in TCP_ROWS.items()]
    return {"tcp": bars("One TCP link over loopback", "Gbit/s", rows)}


def jobs_table(found):
    samples, core_s = found["samples"], found["core_s_per_gb_of_each"]
    rows = []
    for job in ("backup", "restore"):
        rows.append([f"Sluice {job}, 4 KiB", spread(samples[job]), number(core_s[job]), "1"])
        for peer, label in PEERS.items():
            name = f"{job}_{peer}"
            rows.append([f"{label}: {job}", spread(samples[name]), number(core_s[name]), f"{found[job][peer]:.2f}"])
    rows.append(["rsync daemon: restore of three copies", spread(samples["restore_copies_rsync"]),
                 number(core_s["restore_copies_rsync"]), f"{found['restore_copies']['rsync']:.2f} (of Sluice's three copies)"])
    return table(["what", "MB/s of unique bytes", "core-s/GB", "Sluice over it"], rows)


def limit_table(found):
    samples, core_s = found["samples"], found["core_s_per_gb_of_each"]
    limits, small = found["limits"], found["records_100b"]
    rows = [[label, spread(samples[job]), number(core_s[job]), number(limits[limit]), f"{share:.2f}"]
            for label, job, limit, share in (
                ("backup, 4 KiB", "backup", "backup_mb_s", found["backup_vs_limit"]),
                ("backup, 1 MiB", "backup_1m", "backup_1m_mb_s", found["backup_1m_vs_limit"]),
                ("backup, 100 B (limit: scan alone)", "backup_100b", "scan_100b_mb_s", small["backup_vs_scan"]),
                ("backup, 100 B (limit: scan alone, of one sorted table)", "backup_100b", "sorted_scan_100b_mb_s",
                 small["backup_vs_sorted_scan"]),
                ("restore, 4 KiB", "restore", "restore_mb_s", found["restore_vs_limit"]),
                ("import, 4 KiB", "import", "import_mb_s", found["import_vs_limit"]),
                ("import, 4 KiB (limit: keys in order)", "import", "ordered_import_mb_s", found["import_vs_ordered_limit"]),
                ("import, 100 B", "import_100b", "import_100b_mb_s", small["import_vs_limit"]))]
    return table(["what", "MB/s", "core-s/GB", "limit, MB/s", "share of the limit"], rows)


def stages_table(found):
    rows = [[job, stage, number(core_s)] for job, stages in found["limits"]["stages_core_s_per_gb"].items()
            for stage, core_s in stages.items()]
    return table(["job", "stage", "core-s/GB of unique bytes"], rows)


def peers_table(found):
    small = found["records_100b"]
    return (taken(found) + jobs_table(found) + "\n" + limit_table(found) + "\n" +
            f"- A restore writes {found['restore_write_amplification']:.2f} bytes to disk for each byte of the three copies.\n"
            f"- Records of 100 bytes: {number(small['import_per_s'])} a second imported, {number(small['restore_per_s'])} restored.\n"
            f"- A backup of a cluster in which one of five nodes missed 5 % of the writes takes {found['divergent_over_agreed']:.2f} "
            "of the time of one whose replicas agree.\n"
            f"- An almost empty, idle cluster of five nodes and 4096 slots is backed up in {found['empty_backup_s']:.2f} s "
            f"({found['empty_backup_reported_s']:.2f} s of it between the job's begin and end).\n\n"
            "What the limits are made of:\n\n" + stages_table(found))


def peers_plots(found):
    samples, limits = found["samples"], found["limits"]
    plots = {}
    for job in ("backup", "restore"):
        rows = [(f"Sluice, {'unique bytes' if job == 'restore' else 'five nodes'}", samples[job], "ours"),
                *((label, samples[f"{job}_{peer}"], "other") for peer, label in PEERS.items())]
        if job == "restore":
            rows[1:1] = [("Sluice, three copies", samples["restore_copies"], "ours")]
            rows.append(("rsync daemon, three copies", samples["restore_copies_rsync"], "other"))
        limit = limits[f"{job}_mb_s"]
        rows.append(("limit of this machine, unique bytes", {"median": limit, "low": limit, "high": limit}, "limit"))
        plots[f"peers-{job}"] = bars(f"{job.capitalize()} of records of 4 KiB, five nodes, three replicas", "MB/s", rows)
    return plots


# Name to what makes the table, and what makes the plots by name.
BENCHMARKS = {"limits": (limits_table, lambda found: {}), "tcp": (tcp_table, tcp_plots), "peers": (peers_table, peers_plots)}
