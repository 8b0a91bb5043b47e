"""Sluice in jobs of Slurm (scripts/slurm): node-local scratch goes into an archive and comes back, by a user without
privileges, and stays where it is when that fails.

Slurm is the one that is installed, with three nodes that share nothing but what a cluster's nodes share: each has a
network namespace on a bridge, a disk of its own and a name. Everything runs in a namespace of processes that ends with
the test program, however that ends.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
import media
from harness import check, check_equal, run, run_json, step, wait_for
from networks import Host, command

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts" / "slurm"
NODES = ("n1", "n2", "n3")
USER, UID = "sluice-user", 64123
JOB_S = 150
ASK_S = 0.2  # between questions to the controller, which cost what jobs could use
NOT_ARCHIVED = 75
RUN = re.compile("^[0-2]: .* 20[0-9][0-9]$", re.MULTILINE)  # what the example prints on a node for each of its runs
NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "munged", "etcd", "ip")

SETTINGS = """
scratch_root={folder}/local
sluice={folder}/bin/sluice
etcd={etcd}
step_seconds=120
epilog_seconds=20
"""

# The program; a job may have left a file with what is to happen when its backup is to begin.
PROGRAM = """#!/bin/sh
job={folder}/shared/job-$SLURM_JOB_ID
if [ "$1" = node ]; then echo $$ >$job.$SLURMD_NODENAME; fi
if [ "$1 $2" = "backup create" ] && [ -e $job.fault ]; then . $job.fault; fi
exec {folder}/bin/program "$@"
"""

SLURM_CONF = """
ClusterName=sluice
SlurmctldHost={host}(10.77.0.254)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/slurm/state
SlurmdSpoolDir={folder}/slurm/spool-%n
SlurmctldPidFile={folder}/slurm/slurmctld.pid
SlurmdPidFile={folder}/slurm/slurmd-%n.pid
SlurmctldLogFile={folder}/slurm/slurmctld.log
SlurmdLogFile={folder}/slurm/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=0
KillWait=5
Prolog={folder}/scripts/prolog
PrologFlags=Alloc
Epilog={folder}/scripts/epilog
NodeName=n1 NodeAddr=10.77.0.1 CPUs=8 RealMemory=4000
NodeName=n2 NodeAddr=10.77.0.2 CPUs=8 RealMemory=4000
NodeName=n3 NodeAddr=10.77.0.3 CPUs=8 RealMemory=4000
PartitionName=all Nodes=ALL Default=YES
"""


class Node(Host):
    """A machine: a network, a disk and a name of its own."""

    def __init__(self, number, folder):  # pylint: disable=super-init-not-called
        self.number, self.name = number, f"n{number}"
        self.address, self.link = f"10.77.0.{number}", f"p{number}"
        self.disk = folder / f"disk-{self.name}"
        self.disk.mkdir()
        self.holder = subprocess.Popen(  # pylint: disable=consider-using-with
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--uts", "--mount", "--propagation", "private",
             "sleep", "infinity"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.attach()
        wait_for(lambda: Path(f"/proc/{self.holder.pid}/comm").read_text() == "sleep\n", "a machine's namespaces")
        self.run("hostname", self.name)
        self.run("mount", "--bind", self.disk, folder / "local")

    def inside(self, *arguments):
        return ["nsenter", "-t", str(self.holder.pid), "--net", "--uts", "--mount", *map(str, arguments)]

    def scratch(self, job):
        return self.disk / f"job-{job}"


class Job:
    """A batch job of the user."""

    def __init__(self, slurm, submitted, nodes):
        """`submitted` is what sbatch printed."""
        self.slurm, self.nodes = slurm, nodes
        self.id = int(re.search(r"[0-9]+", submitted).group())
        self.archive = slurm.shared / f"archive-{self.id}"

    def output(self):
        path = self.slurm.shared / f"job-{self.id}.out"
        return path.read_text() if path.exists() else ""

    def says(self, what):
        wait_for(lambda: what in self.output(), f"{what!r} in the output of job {self.id}: {self.output()}", JOB_S)

    def end(self, state, code):
        """Waits until the job and its epilogs have ended."""
        shown = {}

        def ended():
            text = self.slurm.as_user("scontrol", "-o", "show", "job", str(self.id))
            shown.update(field.split("=", 1) for field in text.split() if "=" in field)
            if shown["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
                return True
            time.sleep(ASK_S)
            return False
        try:
            wait_for(ended, f"job {self.id} ends", JOB_S)
            ended_with = shown["JobState"], shown["ExitCode"].split(":")[0]
            check(ended_with == (state, str(code)) or (ended_with[0] == state and code is None),
                  f"end of job {self.id}: {ended_with}, wanted {state}, {code}")
        except harness.Failed as error:
            raise harness.Failed(f"{error}\noutput of job {self.id}: {self.output()}\n{self.slurm.logs()}") from error
        return self.output()


class Slurm:
    """Controller and nodes, with a user."""

    def __init__(self, scratch, small=None):
        self.folder = scratch.folder
        self.processes, self.nodes, self.mounted = [], [], []
        scratch.closers.append(self.close)
        if not os.environ.get("SLUICE_KEEP"):  # in memory: the tests are not about this machine's disk
            media.mount("-t", "tmpfs", "-o", "size=4G", "tmpfs", self.folder)
        self.folder.chmod(0o755)
        self.shared = self.folder / "shared"
        for name in ("bin", "scripts", "shared", "local", "munge", "slurm", "slurm/state"):
            (self.folder / name).mkdir()
        os.chown(self.shared, UID, UID)
        if small:  # a file system of a size, which the nodes share
            media.tmpfs(scratch, self.folder / "small", small)
            (self.folder / "small").chmod(0o777)
        self.install()
        self.user()
        self.network()
        self.start()

    def bind(self, source, target):
        media.mount("--bind", source, target)
        self.mounted.append(target)

    def install(self):
        """What a site does: the program and the scripts where all nodes see them, with its settings."""
        (self.folder / "bin/program").touch()
        self.bind(harness.PROGRAM, self.folder / "bin/program")
        (self.folder / "bin/sluice").write_text(PROGRAM.format(folder=self.folder))
        (self.folder / "bin/sluice").chmod(0o755)
        for script in SCRIPTS.iterdir():
            shutil.copy(script, self.folder / "scripts")
        with open(self.folder / "scripts/settings", "a", encoding="utf-8") as settings:
            settings.write(SETTINGS.format(folder=self.folder, etcd=shutil.which("etcd")))
        self.conf = self.folder / "slurm/slurm.conf"
        self.conf.write_text(SLURM_CONF.format(folder=self.folder, host=os.uname().nodename))

    def user(self):
        """One that only processes of this test know."""
        lines = {"passwd": f"{USER}:x:{UID}:{UID}::{self.shared}:/bin/bash\n", "group": f"{USER}:x:{UID}:\n",
                 "hosts": "".join(f"10.77.0.{number} n{number}\n" for number in range(1, len(NODES) + 1))}
        for name, line in lines.items():
            own = self.folder / name
            own.write_text(Path("/etc", name).read_text() + line)
            own.chmod(0o644)
            self.bind(own, f"/etc/{name}")

    def network(self):
        command("ip", "link", "set", "lo", "up")
        command("ip", "link", "add", "br0", "type", "bridge")
        command("ip", "addr", "add", "10.77.0.254/24", "dev", "br0")
        command("ip", "link", "set", "br0", "up")
        for number in range(1, len(NODES) + 1):
            self.nodes.append(Node(number, self.folder))

    def start(self):
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        self.background("munged", "--foreground", "--force", "--key-file", munge / "key", "--socket", munge / "socket",
                        "--pid-file", munge / "pid", "--log-file", munge / "log", "--seed-file", munge / "seed")
        wait_for((munge / "socket").exists, "munged listens")
        self.background("slurmctld", "-D", "-f", self.conf)
        for node in self.nodes:
            self.background(*node.inside("slurmd", "-D", "-f", self.conf, "-N", node.name))
        self.idle()

    def idle(self):
        def idle():
            time.sleep(ASK_S)
            return self.as_user("sinfo", "-h", "-r", "-o", "%T %D", expect=None) == "idle 3\n"
        wait_for(idle, "three nodes are idle")

    def background(self, *arguments):
        with open(self.folder / "slurm/daemons.log", "ab") as log:
            self.processes.append(subprocess.Popen(  # pylint: disable=consider-using-with
                [*map(str, arguments)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment()))

    def environment(self):
        return {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "HOME": str(self.shared), "SLURM_CONF": str(self.conf),
                "SBATCH_OUTPUT": "job-%j.out"}

    def as_user(self, *arguments, **options):
        return self.as_root("setpriv", "--reuid", USER, "--regid", USER, "--init-groups", *arguments, **options)

    def as_root(self, *arguments, stdin="", expect=0):
        done = subprocess.run([*map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60,
                              check=False, cwd=self.shared, env=self.environment())
        check(expect is None or done.returncode == expect,
              f"{' '.join(map(str, arguments))}: {done.returncode} {done.stdout} {done.stderr}")
        return done.stdout

    def job(self, script, *options, nodes=3):
        batch = "#!/bin/bash\n" + script.replace("WITH_SCRATCH", f"{self.folder}/scripts/with-scratch")
        return Job(self, self.as_user("sbatch", f"--nodes={nodes}", "--time=5", *options, stdin=batch), nodes)

    def example(self, source=None):
        """The batch script that users copy; `source` is the archive of an earlier job."""
        variables = [f"SLUICE_SCRIPTS={self.folder}/scripts", *([f"FROM={source}"] if source else [])]
        job = Job(self, self.as_user("env", *variables, "sbatch", self.folder / "scripts/example.sbatch"), len(NODES))
        job.archive = self.shared / f"scratch-{job.id}"
        return job

    def logs(self):
        logs = [*sorted((self.folder / "slurm").glob("*.log")), *self.folder.glob("disk-*/kept.log"),
                *self.folder.glob("disk-*/job-*/cluster/*/*.log")]
        return "\n".join(f"{log}:\n{log.read_text(errors='replace')[-800:]}" for log in logs)

    def close(self):
        for process in [*reversed(self.processes), *(node.holder for node in self.nodes)]:
            process.kill()
            process.wait()
        # What jobs left; nobody else has processes of this user.
        subprocess.run(["pkill", "-KILL", "-u", str(UID)], check=False)
        for mounted in self.mounted:
            media.unmount(mounted)
        subprocess.run(["ip", "link", "del", "br0"], check=False, capture_output=True)
        subprocess.run(["umount", "--lazy", self.folder], check=False, capture_output=True)


def make_trees(slurm):
    """What the nodes' scratch is to hold; the user's, and another one for each node."""
    trees = slurm.shared / "trees"
    trees.mkdir()
    for node in NODES:
        tree = trees / node
        harness.small_tree(tree, 120, 30_000, 3 << 20)
        (tree / "name").write_text(node)
        (tree / "locked").mkdir()
        (tree / "locked/inside").write_text("a file in a directory that nobody may write to")
        (tree / "locked").chmod(0o500)
        (tree / "name").chmod(0o4750)
        os.link(tree / "large", tree / "also large")
        os.link(tree / "name", tree / "empty/name")
        os.mkfifo(tree / "pipe")
        with open(tree / "holes", "wb") as holes:
            holes.truncate(50 << 20)
            holes.seek(20 << 20)
            holes.write(b"between holes")
    for folder, folders, files in os.walk(slurm.shared / "trees"):
        for name in folders + files:
            os.lchown(os.path.join(folder, name), UID, UID)
    os.chown(trees, UID, UID)
    for node in NODES:  # a change of owner takes set-user-ID bits away
        (trees / node / "name").chmod(0o4750)
    return trees


def fill(slurm, then=""):
    """A command of a batch script that fills the scratch of all nodes; `then` comes after it, on the first one."""
    script = slurm.shared / "fill"
    if not script.exists():
        script.write_text(f"#!/bin/sh\ncp -a {slurm.shared}/trees/$SLURMD_NODENAME/. $SLUICE_SCRATCH/\n")
        script.chmod(0o755)
    return f"sh -c 'srun {script}{then}'\n" if then else f"srun {script}\n"


def hard_links(root):
    """The names that share a file."""
    groups = {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            groups.setdefault(os.lstat(path).st_ino, []).append(os.path.relpath(path, root))
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def check_same(left, right):
    check_equal(harness.same_tree(left, right), [], f"differences between {left} and {right}")
    check_equal(hard_links(right), hard_links(left), f"hard links of {right}")


def check_archive(scratch, archive, trees, nodes=NODES):
    """It is whole without a cluster, and gives any cluster the trees of the nodes."""
    parts = sorted(archive.glob("parts/*/scratch"))
    check_equal(run_json("backup", "verify", "--archive", *parts)["bad"], [], "verification of the archive")
    check_equal([path for path in archive.rglob("*") if path.lstat().st_uid != UID], [], "files of others")
    name = f"check-{archive.name}"
    cluster = scratch.cluster(name, 1, "--slots", "64")
    check_equal(cluster.json("restore", "--archive", *parts)["failed"], 0, "records that were not restored")
    for node in nodes:
        cluster.run("record", "export", "--tree", scratch.path(f"{name}-{node}"), "--prefix", f"{node}/")
        check_same(trees / node, scratch.path(f"{name}-{node}"))


def check_kept(slurm, job, why, trees=None):
    """Scratch of all nodes of a job is there, the user's alone, and root's list says why."""
    for node in slurm.nodes[:job.nodes]:
        kept = node.scratch(job.id)
        check((kept / "data").is_dir(), f"the scratch of job {job.id} on {node.name} is gone: {job.output()}")
        check_equal((kept.stat().st_uid, kept.stat().st_mode & 0o777), (UID, 0o700), f"owner and mode of {kept}")
        lines = [line for line in (node.disk / "kept.log").read_text().splitlines() if f"job {job.id} " in line]
        check(len(lines) == 1 and why in lines[0] and str(node.name) in lines[0], f"{why!r} is not in {lines}")
        check_equal([*kept.glob("cluster/*/data")], [], "copies in a temporary cluster")
        if trees:
            check_same(trees / node.name, kept / "data")


def check_gone(slurm, job):
    for node in slurm.nodes:
        check(not node.scratch(job.id).exists(), f"{node.scratch(job.id)} is still there: {job.output()}")


def check_advice(job):
    """A job whose scratch stays says where, and a command that saves it."""
    output = job.output()
    check(f"The scratch of job {job.id} is not in an archive. It stays in " in output, f"no advice: {output}")
    check(f"--job {job.id} --to NEW_ARCHIVE" in output, f"no command: {output}")


def test_round_trip(scratch):
    slurm = Slurm(scratch)
    trees = make_trees(slurm)
    step("Slurm is up")

    drained = slurm.job(f"exec WITH_SCRATCH --to archive-$SLURM_JOB_ID -- {fill(slurm)}")
    # One node, a cluster block in a file; its command does not end before it is told that time is short.
    overrun = slurm.job(f"exec WITH_SCRATCH --to archive-$SLURM_JOB_ID -- {fill(slurm, ' && echo ready && sleep 600')}",
                        "--nodelist=n2", nodes=1)
    given_up = slurm.job("WITH_SCRATCH --to trees -- touch refused; [ $? = 2 ] || exit 9\n"
                         "exec WITH_SCRATCH --discard -- srun sh -c 'touch $SLUICE_SCRATCH/result'\n")
    example = slurm.example()
    overrun.says("ready")
    slurm.as_user("scancel", "--batch", "--signal=USR1", str(overrun.id))
    drained.end("COMPLETED", 0)
    output = example.end("COMPLETED", 0)
    check_equal(len(RUN.findall(output)), 3, f"lines of the first run: {output}")
    output = given_up.end("COMPLETED", 0)
    check("--to trees: cannot make this directory" in output and not (slurm.shared / "refused").exists(), output)
    output = overrun.end("FAILED", 128 + signal.SIGTERM)
    check("the time limit is near: ending the command" in output, output)
    for job in (drained, overrun, given_up, example):
        check_gone(slurm, job)
    step("four jobs have drained their scratch or given it up, and it is gone")

    found = slurm.shared / "found"
    slurm.as_user("mkdir", found)
    staged = slurm.job(f"exec WITH_SCRATCH --from {drained.archive} --to archive-$SLURM_JOB_ID -- "
                       f"srun sh -c 'cp -a $SLUICE_SCRATCH {found}/$SLURMD_NODENAME; exit 7'\n")
    example = slurm.example(example.archive)
    broken = slurm.job(f"cp -r {drained.archive} broken\n"
                       "yes | dd of=broken/parts/n2/scratch/segment-00000 bs=64K seek=1 count=1 conv=notrunc\n"
                       f"exec WITH_SCRATCH --from broken --to archive-$SLURM_JOB_ID -- touch {found}/ran\n")
    few = slurm.job(f"exec WITH_SCRATCH --from {drained.archive} --discard -- touch {found}/ran\n", nodes=2)
    check_archive(scratch, drained.archive, trees)
    check_archive(scratch, overrun.archive, trees, ["n2"])
    step("archives are whole")
    output = few.end("FAILED", NOT_ARCHIVED)
    check("scratch of 3 nodes, and this job has 2; ask for 3" in output, output)
    check(not (found / "ran").exists() and "The command was not run." in output, output)
    staged.end("FAILED", 7)
    for node in NODES:
        check_same(trees / node, found / node)
    output = broken.end("FAILED", NOT_ARCHIVED)
    check(f"restoring {slurm.shared}/broken failed (exit code 3)" in output and not (found / "ran").exists(), output)
    output = example.end("COMPLETED", 0)
    check_equal(len(RUN.findall(output)), 6, f"lines of two runs: {output}")
    for job in (staged, few, broken, example):
        check_gone(slurm, job)
    step("another job had the files in place")
    parts = sorted(staged.archive.glob("parts/*/scratch"))
    check_equal(run_json("backup", "verify", "--archive", *parts)["bad"], [], "verification of the second archive")


def test_scratch_stays(scratch):
    slurm = Slurm(scratch, small="12M")
    trees = make_trees(slurm)
    step("Slurm is up")

    forbidden = slurm.job("exec WITH_SCRATCH --to archive-$SLURM_JOB_ID -- "
                          f"{fill(slurm, ' && chmod 500 archive-$SLURM_JOB_ID/parts/n2')}")
    full = slurm.job(f"exec WITH_SCRATCH --to {scratch.path('small')}/archive -- {fill(slurm)}")
    cancelled = slurm.job("exec WITH_SCRATCH --to archive-$SLURM_JOB_ID -- "
                          f"{fill(slurm, ' && echo ready && sleep 600')}", nodes=1)
    late = slurm.job("WITH_SCRATCH --to archive-$SLURM_JOB_ID -- srun sh -c 'echo a >$SLUICE_SCRATCH/file' && "
                     f"echo b >{slurm.folder}/local/job-$SLURM_JOB_ID/data/file\n")
    meanwhile = slurm.job("echo 'echo b >$SLUICE_SCRATCH/file' >job-$SLURM_JOB_ID.fault\n"
                          "exec WITH_SCRATCH --to archive-$SLURM_JOB_ID -- srun sh -c 'echo a >$SLUICE_SCRATCH/file'\n")
    dying = slurm.job("echo 'kill -KILL $(cat $job.n2)' >job-$SLURM_JOB_ID.fault\n"
                      f"exec WITH_SCRATCH --to archive-$SLURM_JOB_ID -- {fill(slurm)}")
    cancelled.says("ready")
    slurm.as_user("scancel", str(cancelled.id))
    cancelled.end("CANCELLED", None)
    check_kept(slurm, cancelled, "it is in no archive")
    check("the job is being ended" in cancelled.output(), cancelled.output())
    check_advice(cancelled)
    step("cancelled")
    output = forbidden.end("FAILED", NOT_ARCHIVED)
    check(f"backing up into {forbidden.archive} failed" in output and "parts/n2" in output, output)
    check_kept(slurm, forbidden, "it is in no archive", trees)
    check_advice(forbidden)
    check(not (forbidden.archive / "receipt").exists(), "a receipt without an archive")
    step("an archive directory that cannot be written to")
    output = full.end("FAILED", NOT_ARCHIVED)
    check(f"{scratch.path('small')}" in output and ("full" in output or "space" in output), output)
    check_kept(slurm, full, "it is in no archive", trees)
    check_advice(full)
    step("a full archive directory")
    late.end("COMPLETED", 0)
    late.nodes = 1
    check_kept(slurm, late, "it was changed after it went into")
    check(not slurm.nodes[1].scratch(late.id).exists(), "scratch stays that was not changed")
    step("a file that was written after the drain")
    output = meanwhile.end("FAILED", NOT_ARCHIVED)
    check("scratch was changed while it was drained" in output, output)
    check_kept(slurm, meanwhile, "it is in no archive")
    check_advice(meanwhile)
    step("a file that was written during the drain")

    output = dying.end("FAILED", NOT_ARCHIVED)
    check("n2: the node of the temporary cluster ended" in output, output)
    check_kept(slurm, dying, "it is in no archive", trees)
    check_advice(dying)
    step("a node that died")

    lost = slurm.job("exec WITH_SCRATCH --to archive-$SLURM_JOB_ID -- "
                     f"{fill(slurm, ' && echo ready && sleep 600')}")
    lost.says("ready")
    slurm.as_root("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    output = lost.end("NODE_FAIL", None)
    check("the job is being ended" in output, output)
    for node in slurm.nodes:
        check_same(trees / node.name, node.scratch(lost.id) / "data")
    # Its slurmd may have registered meanwhile, and then there is nothing to resume.
    slurm.as_root("scontrol", "update", "NodeName=n2", "State=RESUME", expect=None)
    slurm.idle()
    step("a node that Slurm gave up")

    advice = re.search("To save it: (.*)NEW_ARCHIVE'$", dying.output(), re.MULTILINE).group(1)
    rescue = Job(slurm, slurm.as_user("sh", "-c", f"{advice}archive-$SLURM_JOB_ID'"), 3)
    rescue.end("COMPLETED", 0)
    check_archive(scratch, rescue.archive, trees)
    check_gone(slurm, rescue)
    check_gone(slurm, dying)
    step("a later job has drained what that one left")


class Site:
    """Prolog and epilog as slurmd runs them, without one."""

    def __init__(self, scratch):
        self.scripts, self.root = scratch.path("scripts"), scratch.path("local")
        scratch.folder.chmod(0o755)
        shutil.copytree(SCRIPTS, self.scripts)
        with open(self.scripts / "settings", "a", encoding="utf-8") as settings:
            settings.write(f"scratch_root={self.root}\nepilog_seconds=1\n")
        self.user = pwd.getpwnam("nobody")

    def run(self, script, job="7", user=None, expect=0):
        done = subprocess.run([self.scripts / script], capture_output=True, text=True, timeout=60, check=False,
                              env={"SLURM_JOB_ID": job, "SLURM_JOB_UID": user or str(self.user.pw_uid),
                                   "SLURM_JOB_GID": str(self.user.pw_gid), "SLURMD_NODENAME": "n1"})
        check_equal(done.returncode, expect, f"exit code of {script}: {done.stderr}")
        return done.stderr

    def as_user(self, script):
        subprocess.run(["setpriv", "--reuid", "nobody", "--regid", str(self.user.pw_gid), "--clear-groups", "sh", "-c",
                        f"cd {self.root}/job-7 && {script}"], check=True)

    def kept(self):
        log = self.root / "kept.log"
        return log.read_text().splitlines() if log.exists() else []


def test_prolog(scratch):
    site = Site(scratch)
    for run_number in range(3):
        site.run("prolog")
        for directory in (site.root / "job-7", site.root / "job-7/data", site.root / "job-7/cluster"):
            found = directory.stat()
            check_equal((found.st_uid, found.st_gid, found.st_mode & 0o777),
                        (site.user.pw_uid, site.user.pw_gid, 0o700), f"owner and mode of {directory}")
        check_equal([*(site.root / "job-7/data").iterdir()], [], "files of an earlier run")
        site.as_user(f"echo {run_number} >data/run")
    check_equal([(site.root / f"job-7.run-{number}/data/run").read_text() for number in (1, 2)], ["0\n", "1\n"],
                "files of earlier runs")
    check('"../7"' in site.run("prolog", job="../7", expect=1), "the number of the job is not named")
    check('"root"' in site.run("prolog", user="root", expect=1), "the user is not named")
    site.root.chmod(0o777)
    check("writable by nobody else" in site.run("prolog", job="8", expect=1), "a directory that all may write to")


def test_epilog(scratch):
    """What a user may have left does not keep a node, and costs no file but the user's own."""
    site = Site(scratch)
    victim = scratch.path("victim")
    (victim / "data").mkdir(parents=True)
    (victim / "data/file").write_text("of root")
    os.chown(victim, site.user.pw_uid, site.user.pw_gid)
    kept = 0
    receipt = ("touch data/file; echo $PWD/cluster >cluster/drained; (echo directory job-7; echo part n1;"
               f" WITH_CLUSTER= WITH_DIRECTORY=$PWD SLURMD_NODENAME=n1 {site.scripts}/with-scratch --step list)"
               " >cluster/receipt")
    part = "cluster/parts/n1/scratch"
    for script, why in (("touch data/file", "it is in no archive"), ("touch beside", "files beside data/: beside"),
                        ("touch data/file; mkfifo cluster/drained", "it is in no archive"),
                        ("touch data/file; echo /nonexistent >cluster/drained", "/nonexistent has no receipt"),
                        ("touch data/file; printf 'a\\n\\033b' >cluster/drained", "archive a??b has no receipt"),
                        (f"touch data/file; ln -s {victim} cluster/out", "it is in no archive"),
                        (f"touch data/file; rmdir cluster; mkdir c; ln -s {victim} c/in; ln -s c cluster", "beside"),
                        ("touch data/file; echo $PWD/cluster >cluster/drained; echo directory job-8 >cluster/receipt",
                         "is of another job"),
                        ("touch data/file; echo $PWD/cluster >cluster/drained; echo directory job-7 >cluster/receipt",
                         "it was changed after it went into"),
                        (receipt, "lacks the part of n1"),
                        (f"{receipt}; mkdir -p {part}; touch {part}/manifest; touch data/file",
                         "it was changed after it went into")):
        site.run("prolog")
        site.as_user(script)
        site.run("epilog")
        kept += 1
        check((site.root / "job-7").exists(), f"scratch is gone after {script}")
        check(len(site.kept()) == kept and why in site.kept()[-1], f"after {script}: {site.kept()[-1:]}")
        check((victim / "data/file").exists(), f"a file of root is gone after {script}")
    whole = (site.scripts / "with-scratch").read_text()
    (site.scripts / "with-scratch").write_text("#!/bin/sh\nexec sleep 60\n")
    site.run("prolog")
    site.run("epilog")
    kept += 1
    check("no answer within 1 s" in site.kept()[-1], f"of an epilog that would not end: {site.kept()[-1:]}")
    (site.scripts / "with-scratch").write_text(whole)
    for script in ("true", "rmdir data cluster", f"rmdir data; ln -s {victim}/data data",
                   f"{receipt}; mkdir -p {part}; touch {part}/manifest",
                   "touch data/file; touch cluster/discard; mkdir data/d; touch data/d/f; chmod 500 data/d"):
        site.run("prolog")
        site.as_user(script)
        site.run("epilog")
        check(not (site.root / "job-7").exists(), f"scratch is still there after {script}")
        check((victim / "data/file").exists(), f"a file of root is gone after {script}")
    check_equal(len(site.kept()), kept, "messages")
    site.run("epilog")  # of a job without scratch
    check('"x"' in site.run("epilog", job="x", expect=1), "the number of the job is not named")


def test_refusals(scratch):
    """Before anything is run."""
    del scratch
    for arguments, error in ((["--to", "a"], "no command after --"), (["--", "true"], "--to or --discard is missing"),
                             (["--to", "a", "--discard", "--", "true"], "exclude each other"),
                             (["--job", "../12", "--to", "a"], '--job "../12"'),
                             (["--job", "12", "--discard"], "--to alone"),
                             (["--to", "a", "true"], 'unexpected argument "true"'), (["--to"], "--to needs a value"),
                             (["--to", 'a"b', "--", "true"], "quotes")):
        done = subprocess.run([SCRIPTS / "with-scratch", *arguments], capture_output=True, text=True, check=False,
                              env={**os.environ, "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n1"}, timeout=60)
        check(done.returncode == 2 and error in done.stderr, f"{arguments}: {done}")
    done = subprocess.run([SCRIPTS / "with-scratch", "--to", "a", "--", "true"], capture_output=True, text=True,
                          check=False, env={"PATH": os.environ["PATH"]}, timeout=60)
    check(done.returncode == 2 and "not in a Slurm job" in done.stderr, f"outside a job: {done}")


def terminated(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may come twice, from whoever sends it and from the first process
    sys.exit(1)


def main():
    missing = [name for name in NEEDED if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]
    if missing:
        print(f"skipped: {', '.join(missing)} missing (scripts/install-dependencies slurm-wlm munge etcd-server)")
        sys.exit(media.SKIPPED)
    if not os.environ.get("SLUICE_OWN_MACHINES"):
        unshare = ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child",
                   "--mount-proc"]
        if os.geteuid() != 0 or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode != 0:
            print("skipped: namespaces of networks, mounts and processes need root")
            sys.exit(media.SKIPPED)
        os.environ["SLUICE_OWN_MACHINES"] = "1"
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    # The first process of its namespace takes in the processes that others leave, and ends all of them with itself.
    tests = os.fork()
    if tests == 0:
        signal.signal(signal.SIGTERM, terminated)
        harness.main(globals())
        sys.exit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the tests as well
    signal.signal(signal.SIGTERM, lambda *_: os.kill(tests, signal.SIGTERM))
    while True:
        process, status = os.wait()
        if process == tests:
            sys.exit(os.waitstatus_to_exitcode(status) and 1)


if __name__ == "__main__":
    main()
