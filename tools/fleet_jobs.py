"""What became of the jobs that fleet.py handed in, by submitit's records, SLURM's queue, the logs and the run logs."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import psutil
from submitit.core.utils import DelayedSubmission, pickle_load

from segbench.problem import Problem
from segbench.run_log import read_all

HERE = "here"  # where the shares of --local run
NAME = "segbench"  # of all jobs, in the queue


class Job(NamedTuple):
    name: str  # SLURM's number, or that of a process
    shard: str
    nodes: str
    state: str
    alive: bool  # it waits or runs


def of_folder(folder: Path) -> list[Job]:
    """Every job that waits or runs, and the latest of every share otherwise. Raises Problem for records of others."""
    found: dict[object, Job] = {}
    queue: dict[str, str] | None = None
    for path in sorted(folder.glob("fleet/*_submitted.pkl"), key=lambda path: path.stat().st_mtime):
        name = path.name.removesuffix("_submitted.pkl")
        try:
            shard = DelayedSubmission.load(path).function
            command, part, nodes = shard.command, shard.shard, shard.nodes
        except Exception as error:  # whatever unpickling raises
            raise Problem(f"{path} is no record of a job of fleet.py ({error}); move it") from None
        if nodes == HERE:
            now = "running" * is_running(name)
        else:
            queue = in_queue() if queue is None else queue
            now = queue.get(name, "")
        alive = bool(now) and not now.startswith("completing")
        state = f"{now}{progress(path, name)}" if alive else ended(path, name)
        found[name if alive else (*command, part, nodes)] = Job(name, part, nodes, state, alive)
    return [*found.values()]


def in_queue() -> dict[str, str]:
    """Job -> `running node3`, `pending (resources)`. Raises Problem where the queue does not answer."""
    if not shutil.which("squeue"):
        raise Problem("squeue is not on the PATH: ask on a login node of the cluster that the jobs were handed to")
    asked = subprocess.run(["squeue", "-hrn", NAME, "-o", "%i %T %R"], capture_output=True, text=True)
    if asked.returncode:
        raise Problem(f"the queue does not answer: {asked.stderr.strip().splitlines()[-1]}")
    lines = (line.split() for line in asked.stdout.splitlines())
    return {name: " ".join(rest).lower() for name, *rest in lines}


def is_running(name: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("submitit" in part for part in psutil.Process(int(name)).cmdline())
    return False


def progress(path: Path, name: str) -> str:
    """The latest state of the script's progress bar, where there is one."""
    log = path.with_name(f"{name}_0_log.err")
    text = log.read_text(errors="replace") if log.exists() else ""
    *_, latest = ["", *re.findall(r"[^\r\n]* gone,[^\r\n]*", text)]
    return latest and f", {latest}"


def ended(path: Path, name: str) -> str:
    result = path.with_name(f"{name}_0_result.pkl")
    if not result.exists():
        return f"stopped without a result, see {name}_0_log.err; the same command goes on"
    outcome, value = pickle_load(result)
    if outcome == "success":
        return "done"
    why = value.strip().splitlines()[-1].removeprefix("RuntimeError: ")
    how = "stopped" if why.startswith("status 130") else "failed"
    return f"{how}, {why}; see {name}_0_log.err"


def status(arguments: list[str]) -> None:
    """Per machine what the run logs of a folder hold, per share what became of it. Raises Problem where there is
    neither."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise Problem("status takes a folder, and nothing else")
    folder = Path(arguments[0]).expanduser().resolve()
    files = [path for path in folder.glob("**/run_logs/**/*.jsonl") if "old" not in path.parts]
    nodes = {path.name[5:13]: path.read_text(errors="replace") for path in folder.glob("fleet/node-*")}
    for run_log in (run_log for root in sorted({path.parent.parent for path in files}) for run_log in read_all(root)):
        cases = run_log.by_case()
        runs = [len(runs) for runs in cases.values()] or [0]
        bad = [run for runs in cases.values() for run in runs if run.status not in ("ok", "skipped")]
        name = run_log.folder.relative_to(folder)
        print(f"{name}: {len(cases)} cases, {min(runs)} to {max(runs)} runs each, {len(bad)} failed")
        for run in bad[-1:]:
            print(f"  {run.case.name}: {run.status}, {run.reason}")
        for host, sessions in run_log.hosts().items():
            print(f"  {nodes.get(host, host)}: {len(sessions)} sessions")
    jobs = of_folder(folder)
    for job in jobs:
        print(f"job {job.name}: share {job.shard}, {job.nodes}: {job.state}")
    if not files and not jobs:
        raise Problem(f"{folder} holds neither a run log nor a job: name the folder that a benchmark writes to")
