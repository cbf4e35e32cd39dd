"""What a job of fleet.py runs, and what became of it: by its record, SLURM's queue, logs and run logs.

Records are JSON and text: submitit's own are pickles, and to read one runs whatever somebody wrote into the folder.
"""

import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import submitit
from submitit.helpers import Checkpointable

from segbench import machine
from segbench.measure.worker import die_with_parent
from segbench.problem import Problem
from segbench.run_log import UNREADABLE, read_all
from segbench.settings import expanded

HERE = "here"  # the nodes of --local
NAME = "segbench"  # of all jobs, in the queue
ANSWER_S = 120  # that a tool of SLURM may take; a busy controller is asked again for up to 90 s


class Submitted(msgspec.Struct):
    """`fleet/<job>.json`. When it has ended, `fleet/<job>.ended` says how."""

    command: list[str]
    shard: str
    nodes: str


class Shard(Checkpointable):
    """What a job runs, and runs again after a requeue: the run logs are its state."""

    def __init__(self, command: list[str], shard: str, records: Path):
        self.command, self.shard, self.records = command, shard, records

    def __call__(self) -> int:
        """The script's exit status: 0, or 1 where a case failed, which is a row. Raises RuntimeError for any other."""
        (self.records / f"node-{machine.boot_id()}").write_text(platform.node())
        # The controller may give up a node that still measures, and two constraints may lead to one kind of CPU: of
        # two jobs with one shard on one kind the second waits. The script holds the lock for as long as it lives.
        with (self.records / f".{machine.describe().name}-{self.shard.replace('/', '-')}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            command = [*self.command, "--shard", self.shard]
            status = subprocess.run(command, pass_fds=[lock.fileno()], preexec_fn=bind_to_parent).returncode
        if status in (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGUSR2):
            # SLURM signals all processes, and ends or requeues the job later: to return before would be to fail.
            time.sleep(3600)
        job, ended = submitit.JobEnvironment(), "done"
        if status not in (0, 1):
            reason = last_line(job.paths.stderr.read_text(errors="replace"))
            ended = f"{'stopped' if status == 130 else 'failed'}, status {status}: {reason}"
        (self.records / f"{job.job_id}.ended").write_text(ended)
        if ended != "done":
            raise RuntimeError(ended)
        return status


def last_line(text: str) -> str:
    """What a program said at its end."""
    lines = text.split("\n") if (text := text.strip()) else ["nothing was said"]
    return lines[-1][:200]


def bind_to_parent() -> None:
    """In the script's process: it stops, as by Ctrl-C, when the job ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(signal.SIGINT, os.getppid())


class Job(NamedTuple):
    name: str  # SLURM's number, or that of a process
    shard: str
    nodes: str
    state: str
    alive: bool  # it waits or runs


def of_folder(folder: Path) -> list[Job]:
    """Every job that waits or runs, and otherwise the latest of every shard. Raises Problem for records of others."""
    jobs: dict[object, Job] = {}
    queue: dict[str, str] | None = None
    for path in sorted(folder.glob("fleet/[!.]*.json"), key=lambda path: path.lstat().st_mtime):
        name = path.stem
        try:
            if not path.is_file():
                raise OSError("it is no file")
            submitted = msgspec.json.decode(path.read_bytes(), type=Submitted)
        except (OSError, *UNREADABLE) as error:
            raise Problem(f"{path} is no record of a job of fleet.py ({error}); move it") from None
        if submitted.nodes == HERE:
            state = "running" if is_running(name) else ""
        else:
            queue = in_queue() if queue is None else queue
            state = queue.get(name, "")
        alive = bool(state) and not state.startswith("completing")
        text = f"{state}{progress(path, name)}" if alive else ended(path.parent, name)
        key = name if alive else (*submitted.command, submitted.shard, submitted.nodes)
        jobs[key] = Job(name, submitted.shard, submitted.nodes, text, alive)
    return [*jobs.values()]


def in_queue() -> dict[str, str]:
    """Job -> `running node3`, `pending (resources)`. Raises Problem where the queue does not answer."""
    if not shutil.which("squeue"):
        raise Problem("squeue is not on the PATH: ask on a login node of the cluster that the jobs were submitted to")
    asked = run("squeue", "-hrn", NAME, "-o", "%i %T %R")
    if asked.returncode:
        raise Problem(f"the queue does not answer, squeue ends with {asked.returncode}: {last_line(asked.stderr)}")
    lines = (line.strip().partition(" ") for line in asked.stdout.splitlines())
    return {job: state.strip().lower() for name, _, state in lines for job in tasks(name)}


def tasks(name: str) -> list[str]:
    """`7_[0,2-3%1]`, tasks of an array that wait, one by one."""
    array, bracket, numbers = name.partition("_[")
    return [f"{array}_{number}" for number in machine.listed(numbers.split("%")[0])] if bracket else [name]


def run(*command: str) -> subprocess.CompletedProcess:
    """What a tool of SLURM prints, in whatever encoding. Raises Problem where it cannot be run, or does not end."""
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWER_S)
    except OSError as error:
        raise Problem(f"{command[0]} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Problem(f"{command[0]} has not answered for {ANSWER_S} s: try later") from None


def is_running(name: str) -> bool:
    with contextlib.suppress(psutil.Error, ValueError):
        return any("submitit" in part for part in psutil.Process(int(name)).cmdline())
    return False


def progress(path: Path, name: str) -> str:
    """The latest state of the script's progress bar, where there is one."""
    log = path.with_name(f"{name}_0_log.err")
    bars = re.findall(r"[^\r\n]* gone,[^\r\n]*", log.read_text(errors="replace")) if log.is_file() else []
    return f", {bars[-1]}" if bars else ""


def ended(records: Path, name: str) -> str:
    """`done`, or why a job that neither waits nor runs gave no result."""
    ending = records / f"{name}.ended"
    text = last_line(ending.read_text(errors="replace")) if ending.is_file() else "stopped without a result"
    return text if text == "done" else f"{text}, see {name}_0_log.err; the same command continues"


def status(arguments: list[str]) -> int:
    """Print what the run logs of a folder hold per machine, and what became of every shard. Raises Problem where there
    is neither."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise Problem("status takes a folder, and nothing else")
    folder = expanded(Path(arguments[0])).resolve()
    roots = {path.parent.parent for path in folder.glob("**/run_logs/**/*.jsonl") if "old" not in path.parts}
    notes = (path for path in folder.glob("fleet/node-*") if path.is_file())
    nodes = {path.name[5:13]: path.read_text(errors="replace") for path in notes}
    for run_log in (run_log for root in sorted(roots) for run_log in read_all(root)):
        cases = [*run_log.by_case().values()]
        counts = [len(runs) for runs in cases] or [0]
        failed = [run for runs in cases for run in runs if run.status not in ("ok", "skipped")]
        name = run_log.folder.relative_to(folder)
        print(f"{name}: {len(cases)} cases, {min(counts)} to {max(counts)} runs each, {len(failed)} failed")
        for run in failed[-1:]:
            print(f"  {run.case.name}: {run.status}, {run.reason}")
        for host, sessions in run_log.hosts().items():
            print(f"  {nodes.get(host, host)}: {len(sessions)} sessions")
    jobs = of_folder(folder)
    for job in jobs:
        print(f"job {job.name}: shard {job.shard}, {job.nodes}: {job.state}")
    if not roots and not jobs:
        raise Problem(f"{folder} holds neither a run log nor a job: name the folder that a benchmark writes to")
    return 0
