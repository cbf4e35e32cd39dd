"""One sweep over many machines: a script's rounds shared out between jobs of SLURM, one exclusive node each.

    uv run tools/fleet.py benchmarks/encoder_only/benchmark.py --partition cpu --constraint zen4 --jobs 4 --time 4:00:00
    uv run tools/fleet.py status benchmarks/encoder_only

Flags other than those below are the script's. A job measures whole rounds of all cases (--shard), so that a lost node
costs rounds and no case. The nodes share the clone and the folder that all write to. A job that is preempted, runs out
of time or loses its node goes on where the run logs end; so does the same command.
"""

import argparse
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError
from submitit.helpers import Checkpointable

from segbench import machine
from segbench.measure.worker import die_with_parent
from segbench.problem import Problem
from tools import fleet_jobs

NOT_HERE = ("--shard", "--until", "--restart", "--report")  # what a share cannot have, or would be done by every job


class Shard(Checkpointable):
    """What a job runs, and runs again after a requeue: the run logs are its state."""

    def __init__(self, command: list[str], shard: str, nodes: str, records: Path):
        self.command, self.shard, self.nodes, self.records = command, shard, nodes, records

    def __call__(self) -> int:
        """The script's exit status: 0, or 1 where a case failed, which is a row. Raises RuntimeError for any other."""
        (self.records / f"node-{machine.boot_id()}").write_text(platform.node())
        # The controller may give up a node that still measures, and two constraints may lead to one kind of CPU: who
        # has the same share of a kind waits. The lock is the script's while it lives, whatever becomes of this process.
        with (self.records / f".{machine.describe().name}-{self.shard.replace('/', '-')}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            command = [*self.command, "--shard", self.shard]
            status = subprocess.run(command, pass_fds=[lock.fileno()], preexec_fn=bind_to_parent).returncode
        if status in (128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGUSR2):
            # SLURM signals all processes, and ends or requeues the job later: to return before would be to fail.
            time.sleep(3600)
        if status not in (0, 1):
            log = submitit.JobEnvironment().paths.stderr.read_text(errors="replace")
            raise RuntimeError(f"status {status}: {(log.split() and log.strip().splitlines()[-1])[:200]}")
        return status


def bind_to_parent() -> None:
    """In the script's process: it stops, as by Ctrl-C, when the job ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(signal.SIGINT, os.getppid())


def submit(given: argparse.Namespace, flags: list[str]) -> None:
    """Hand in all jobs, or run them here one after the other. Raises Problem before the first where one cannot run."""
    script, local = Path(given.script).resolve(), given.local is not None
    jobs = given.local if local else given.jobs
    if not script.is_file() or jobs < 1:
        raise Problem(f"{given.script} in {jobs} jobs: a script, before all flags, and one job or more are needed")
    if unfit := [flag for flag in flags if flag.split("=")[0] in NOT_HERE]:
        raise Problem(f"{unfit[0]} is not for jobs that measure side by side: give it to {script.name} itself")
    out = given.out.expanduser().resolve() if given.out else script.parent
    command = [sys.executable, str(script), *flags, *(["--out", str(out)] if given.out else [])]
    command += [] if given.threads is None else [f"--threads={given.threads}"]
    here = command if (given.threads or 1) <= machine.usable_cores() else command[:-1]  # nodes may have more cores
    listed = subprocess.run([*here, "--shard", f"1/{jobs}", "--list"], stdout=subprocess.PIPE, text=True)
    print(listed.stdout, end="", flush=True)
    if listed.returncode or "--list" in flags:
        sys.exit(listed.returncode)  # it said why
    if "runs of go" not in listed.stdout:
        raise Problem(f"{given.script} is no benchmark whose rounds can be shared")
    common = {"time": given.time} | ({"partition": given.partition} if given.partition else {})
    groups = [common | ({"constraint": kind} if kind else {}) for kind in given.constraint[: 1 if local else None]]
    if not local:
        ask_cluster(groups)
    kinds = [fleet_jobs.HERE if local else group.get("constraint", "any node") for group in groups]
    for job in fleet_jobs.of_folder(out):  # two jobs of one share would wait for each other, unlike shares overlap
        if job.alive and (job.nodes in kinds or job.shard.split("/")[1] != str(jobs)):
            raise Problem(f"job {job.name}, share {job.shard} on {job.nodes}, is not over: wait, or cancel it")
    executor = submitit.AutoExecutor(out / "fleet", "local" if local else "slurm", slurm_max_num_timeout=100)
    if local:  # Ctrl-C is the script's
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for group, nodes in zip(groups, kinds, strict=True):
        executor.update_parameters(
            name=fleet_jobs.NAME,
            timeout_min=10**6 if local else 1,  # none here; there, whatever interrupts a job counts as a limit
            slurm_srun_args=["--cpu-bind=none"],  # else perhaps one core of all that it was given
            slurm_additional_parameters=group | {"exclusive": True, "mem": 0, "requeue": True},  # 0: all of the node's
        )
        calls = [Shard(command, f"{part}/{jobs}", nodes, out / "fleet") for part in range(1, jobs + 1)]
        handed_in = map(executor.submit, calls) if local else executor.submit_array(calls)
        for job, call in zip(handed_in, calls, strict=True):
            print(f"job {job.job_id}: share {call.shard}, {nodes}", flush=True)
            if local and job.exception():
                raise Problem(f"share {call.shard} ended early; fleet.py status {out} says why")
    print(f"fleet.py status {out} says how far they are")


def ask_cluster(groups: list[dict[str, str]]) -> None:
    """Whether it has such nodes. Raises Problem."""
    if not shutil.which("sbatch"):
        raise Problem("sbatch is not on the PATH: run this on a login node of a SLURM cluster, or with --local N")
    for group in groups:
        wanted = [f"--{flag}={value}" for flag, value in group.items()]
        command = ["sbatch", "--test-only", "--exclusive", "--mem=0", *wanted, "--wrap=true"]
        if (trial := subprocess.run(command, capture_output=True, text=True)).returncode:
            raise Problem(f"{' '.join(wanted)}: {trial.stderr.strip().splitlines()[-1]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[2], allow_abbrev=False)
    parser.add_argument("script", help="the benchmark's, before all flags; or `status` and a folder that one writes to")
    parser.add_argument("--partition", help="SLURM's")
    parser.add_argument("--constraint", nargs="+", default=[""], help="features of nodes; each gets jobs of its own")
    parser.add_argument("--jobs", type=int, default=1, help="per constraint, each with its share of the rounds")
    parser.add_argument("--time", default="4:00:00", help="limit of a job, as SLURM writes it; five minutes or more")
    parser.add_argument("--local", type=int, metavar="N", help="N jobs on this machine, one after the other")
    parser.add_argument(
        "--threads", type=int, help="the script's; more than this machine has where the nodes have more"
    )
    parser.add_argument("--out", type=Path, help="folder that all jobs write to; by default the script's")
    given, flags = parser.parse_known_args()
    try:
        fleet_jobs.status(flags) if given.script == "status" else submit(given, flags)
    except (Problem, FailedJobError, OSError) as problem:
        print(f"fleet.py: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfleet.py: stopped; what was handed in stays so: see fleet.py status, and scancel", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
