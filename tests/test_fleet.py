"""One sweep over many machines: planned anywhere, and on a cluster that is this machine twice."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from segbench.cases import Case
from segbench.measure.schedule import Plan
from segbench.problem import Problem
from segbench.run_log import read_all
from segbench.settings import Settings
from tools import fleet

from .conftest import ENCODER_ONLY, ROOT, TINY

FLEET = (sys.executable, str(ROOT / "tools" / "fleet.py"))
SWEEP = ("--models", "lcnet_100", "--modes", "baseline", *TINY, "--rounds", "4", "--samples", "12")
# No accounting, no cgroups, no binding: a node is a slurmd with a name and a core of its own.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
MpiDefault=none
ReturnToService=2
SlurmdTimeout=6
KillWait=1
SchedulerParameters=batch_sched_delay=0,sched_interval=1
PreemptMode=OFF
NodeName=node0 NodeAddr=127.0.0.1 Port={port0} CPUs=1 Feature=even
NodeName=node1 NodeAddr=127.0.0.1 Port={port1} CPUs=1 Feature=odd
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """SLURM with two nodes, which are this machine under two host names, on a core each."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        (self.folder / "munge").mkdir(mode=0o700)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        names = {"host": platform.node(), "user": "root", "folder": self.folder}
        with contextlib.ExitStack() as free:  # two processes of tests may have a cluster each
            sockets = [free.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            ports = dict(zip(("port", "port0", "port1"), (server.getsockname()[1] for server in sockets), strict=True))
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**names, **ports))
        munge = {"socket": "munge.socket", "pid-file": "munge/pid", "log-file": "munge/log", "seed-file": "munge/seed"}
        places = [f"--{flag}={self.folder / place}" for flag, place in munge.items()]
        self.daemon("munged", "munged", "--foreground", "--force", f"--key-file={key}", *places)
        self.daemon("slurmctld", "slurmctld", "-D", "-c")
        for number in (0, 1):
            self.node(number)

    def node(self, number: int) -> None:
        cores = sorted(os.sched_getaffinity(0))
        core = cores[number % len(cores)]
        shell = f"hostname node{number} && exec taskset -c {core} slurmd -D -N node{number}"
        self.daemon(f"node{number}", "unshare", "--uts", "sh", "-c", shell)

    def daemon(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.log").open("a")
        self.daemons[name] = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment, cwd=self.folder)

    def ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=60).stdout

    def cut_power(self, number: int) -> None:
        """Kill whatever bears the node's name: the daemon, and the job with all that it started."""
        names = Path("/proc", str(self.daemons[f"node{number}"].pid), "ns", "uts").readlink()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if Path("/proc", str(process.pid), "ns", "uts").readlink() == names:
                    process.kill()

    def stop(self) -> None:
        for number in (0, 1):
            if f"node{number}" in self.daemons:
                self.cut_power(number)
        for daemon in reversed(self.daemons.values()):
            daemon.kill()
            daemon.wait()


def unavailable() -> str:
    """Why there can be no cluster here; "" where there can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "unshare", "taskset") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run(["unshare", "--uts", "hostname", "node0"], capture_output=True, text=True)
    return tried.stderr.strip() and f"nodes cannot have names of their own: {tried.stderr.strip()}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := unavailable():
        pytest.skip(f"no SLURM: {reason}")
    nodes = Cluster(tmp_path_factory.mktemp("slurm"))
    nodes.start()
    try:
        try:
            wait(lambda: nodes.ask("sinfo", "-h", "-o", "%T %D").split() == ["idle", "2"], 60, nodes)
        except AssertionError as error:
            logs = [f"{log.name}: {log.read_text()[-300:]}" for log in nodes.folder.glob("*.log")]
            pytest.skip(f"SLURM did not start: {error} {logs}")
        yield nodes
    finally:
        nodes.stop()


def wait(until, seconds: float, cluster: Cluster) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, cluster.ask("squeue") + cluster.ask("sinfo", "-N")
        time.sleep(0.2)


class Sweep:
    """A sweep on the cluster into a folder of its own."""

    def __init__(self, cluster: Cluster, out: Path, cache: Path):
        self.cluster, self.out = cluster, out
        self.environment = cluster.environment | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}

    def run(self, *flags: str) -> subprocess.CompletedProcess:
        return subprocess.run([*FLEET, *flags], capture_output=True, text=True, timeout=120, env=self.environment)

    def submit(self, *jobs: str) -> list[str]:
        """The numbers of the jobs."""
        flags = ("--out", str(self.out), "--partition", "cpu", *jobs, "--time", "60")
        done = self.run(str(ENCODER_ONLY), *SWEEP, *flags)
        assert done.returncode == 0, done.stderr
        return [line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("job")]

    def runs(self) -> list:
        with contextlib.suppress(FileNotFoundError):
            run_logs = read_all(self.out / "run_logs")
            assert all(run_log.header.machine.cores == 1 for run_log in run_logs), "a core a node"
            return [run for run_log in run_logs for run in run_log.runs]
        return []

    def begun(self, job: str) -> bool:
        """Whether its script shows a bar, or has ended: before, no signal is heard."""
        log, result = (self.out / "fleet" / f"{job}_0_{name}" for name in ("log.err", "result.pkl"))
        return result.exists() or (log.exists() and "|" in log.read_text(errors="replace"))

    def finish(self, jobs: list[str]) -> None:
        def ended() -> bool:
            for job in jobs:  # what was queued again would wait for two minutes
                self.cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            return all((self.out / "fleet" / f"{job}_0_result.pkl").exists() for job in jobs)

        time.sleep(2)  # a node refuses a job that comes back in the second in which it was killed
        wait(ended, 240, self.cluster)
        runs = self.runs()
        assert {run.status for run in runs} == {"ok"}
        counts = Counter((run.round, run.case) for run in runs)
        assert sorted(number for number, _ in counts) == [1, 2, 3, 4] and set(counts.values()) == {1}
        status = self.run("status", str(self.out))
        assert status.stdout.count(": done") == len(jobs), status.stdout + status.stderr


@pytest.fixture
def sweep(cluster, tmp_path, cache) -> Sweep:
    return Sweep(cluster, tmp_path / "out", cache)


@pytest.mark.slow
@pytest.mark.parametrize("group", [{"partition": "nowhere"}, {"constraint": "avx1024"}])
def test_what_the_cluster_does_not_have_is_named(cluster, monkeypatch, group):
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    with pytest.raises(Problem, match="=".join(*group.items())):
        fleet.ask_cluster([{"time": "60"} | group])
    assert not cluster.ask("squeue", "-h")
    fleet.ask_cluster([{"time": "60", "partition": "cpu", "constraint": "odd"}])


@pytest.mark.slow
def test_two_constraints_that_name_one_kind_of_cpu(sweep):
    """Each gets all rounds, so the second finds nothing left to measure; and what runs is not submitted again."""
    jobs = sweep.submit("--constraint", "even", "odd")
    assert len(jobs) == 2
    wait(lambda: sweep.runs(), 90, sweep.cluster)
    status = sweep.run("status", str(sweep.out)).stdout
    assert "shard 1/1, even: running node0" in status and "shard 1/1, odd: running node1" in status, status
    again = sweep.run(str(ENCODER_ONLY), *SWEEP, "--out", str(sweep.out), "--constraint", "odd", "--jobs", "3")
    assert again.returncode == 2 and "shard 1/1 on even, is not over" in again.stderr.splitlines()[-1], again.stderr
    sweep.finish(jobs)


@pytest.mark.slow
def test_cancelled_requeued_and_out_of_time(sweep):
    """Each in the middle of a sweep of two jobs, and a line that a crash tore."""
    first = sweep.submit("--jobs", "2")
    wait(lambda: len(sweep.runs()) > 0, 90, sweep.cluster)
    for job in first:
        sweep.cluster.ask("scancel", job)
    wait(lambda: not sweep.cluster.ask("squeue", "-h"), 60, sweep.cluster)
    torn = min((sweep.out / "run_logs").glob("*/*.jsonl"))
    torn.write_bytes(torn.read_bytes() + b'{"kind": "visit", "case": {"mod')
    even, odd = sweep.submit("--jobs", "2")  # the same command continues
    wait(lambda: sweep.begun(even) and sweep.begun(odd), 90, sweep.cluster)
    sweep.cluster.ask("scontrol", "requeue", even)
    sweep.cluster.ask("scancel", "--signal=USR2", odd)  # what SLURM sends before the limit
    sweep.finish([even, odd])


@pytest.mark.slow
def test_a_killed_node_costs_nothing(sweep):
    """The last of these: SLURM 22.05 sometimes aborts when it gives a job to a node that has just come back."""
    jobs = sweep.submit("--jobs", "2")
    (batch,) = (sweep.out / "fleet").glob("*_submission.sh")
    for flag in ("exclusive", "mem=0", "requeue"):
        assert f"#SBATCH --{flag}" in batch.read_text()
    wait(lambda: sweep.runs(), 90, sweep.cluster)
    sweep.cluster.cut_power(1)
    # By itself the controller sees it half a minute later.
    sweep.cluster.ask("scontrol", "update", "NodeName=node1", "State=DOWN", "Reason=power")
    wait(lambda: "down" in sweep.cluster.ask("sinfo", "-h", "-o", "%T"), 60, sweep.cluster)
    sweep.finish(jobs)
    shown = [sweep.cluster.ask("scontrol", "show", "job", job) for job in jobs]
    assert sum("Restarts=1" in job for job in shown) == 1, "one of both was on that node"
    sweep.cluster.node(1)


@pytest.mark.slow
def test_without_a_cluster_the_shards_follow_one_another(script):
    flags = (str(ENCODER_ONLY), "--models", "lcnet_100", "--modes", "baseline", *TINY, "--out", str(script.out))
    done = subprocess.run([*FLEET, *flags, "--local", "2"], capture_output=True, text=True, env=script.environment)
    assert done.returncode == 0, done.stderr
    assert sorted(run.round for run in script.run_log().runs) == [1, 2]
    status = subprocess.run([*FLEET, "status", str(script.out)], capture_output=True, text=True).stdout.splitlines()
    assert "1 cases, 2 to 2 runs each, 0 failed" in status[0]
    assert [line.split(": ", 1)[1] for line in status[1:] if line.startswith("job")] == [
        "shard 1/2, here: done",
        "shard 2/2, here: done",
    ]


def test_shards_are_all_rounds_once():
    cases = [Case(model=f"model_{number}", mode="baseline", size=(64, 64), threads=1) for number in range(3)]
    everything = Plan(cases, Settings(rounds=5, repetitions=2)).steps([])
    shards = [Plan(cases, Settings(rounds=5, repetitions=2, shard=f"{k}/4")).steps([]) for k in (1, 2, 3, 4)]
    assert Counter(step for shard in shards for step in shard) == Counter(everything)
    assert [sorted({number for number, _ in shard}) for shard in shards] == [[1, 5, 9], [2, 6, 10], [3, 7], [4, 8]]


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (("nowhere.py", "--jobs", "2"), "nowhere.py"),
        ((str(ENCODER_ONLY), "--modes", "no_such_mode", "--local", "1"), "no_such_mode"),
        ((str(ENCODER_ONLY), "--rounds", "2", "--jobs", "3"), "'1/3'"),
        ((str(ENCODER_ONLY), "--models", "lcnet_100", "--jobs", "2"), "sbatch"),
        ((str(ENCODER_ONLY), "--models", "lcnet_100", "--threads", "4096"), "sbatch"),  # nodes may have them
        ((str(ENCODER_ONLY), "--models", "lcnet_100", "--jobs", "2", "--restart"), "--restart"),
        ((str(ENCODER_ONLY), "--jobs", "0"), "in 0 jobs"),
        (("other.py", "--jobs", "2"), "no benchmark"),
        (("status", "."), "neither a run log nor a job"),
        (("status",), "takes a folder"),
    ],
)
def test_what_cannot_be_submitted_is_named(tmp_path, monkeypatch, capfd, flags, names):
    """By fleet.py, or by the script that it asks, which has printed its line then."""
    (tmp_path / "other.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # without SLURM
    try:
        assert fleet.main([*flags]) == 2
        message = capfd.readouterr().err
    except Problem as problem:
        message = str(problem)
    assert names in message and "Traceback" not in message


def test_bad_input_is_a_line_and_status_2(tmp_path):
    done = subprocess.run([*FLEET, "status"], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "fleet.py: status takes a folder, and nothing else\n")
