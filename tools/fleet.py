"""One sweep over many machines: a script's rounds shared out to jobs of SLURM.

  uv run tools/fleet.py benchmarks/encoder_only/benchmark.py \\
      --partition cpu --constraint zen4 --jobs 4 --time 4:00:00
  uv run tools/fleet.py status benchmarks/encoder_only

Flags other than those below are the script's. Each job has a node of its own
and measures whole rounds of all cases (--shard), so that a lost node costs
rounds and no case. The nodes share the clone and the folder of the results.
A job that is preempted, runs out of time or loses its node continues where
the run logs end; so does the same command.
"""

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from segbench import machine
from segbench.problem import Problem, exit_with
from segbench.settings import expanded
from tools import fleet_jobs
from tools.fleet_jobs import Shard, Submitted, last_line

NOT_IN_SHARDS = ("--shard", "--until", "--restart", "--report")  # nonsense there, or every job would do it


def submit(given: argparse.Namespace, flags: list[str]) -> int:
    """Submit all jobs, or run them here one after the other. Returns the exit status. Raises Problem before the first
    where one cannot run."""
    script, local = Path(given.script).resolve(), given.local is not None
    jobs = given.local if local else given.jobs
    if not script.is_file() or jobs < 1:
        raise Problem(f"{given.script} in {jobs} jobs: a script, before all flags, and one job or more are needed")
    for flag in flags:
        if flag.split("=")[0] in NOT_IN_SHARDS:
            raise Problem(f"{flag} is not for jobs that measure side by side: give it to {script.name} itself")
    out = expanded(given.out).resolve() if given.out else script.parent
    command = [sys.executable, str(script), *flags, *(["--out", str(out)] if given.out else [])]
    threads = [] if given.threads is None else [f"--threads={given.threads}"]
    threads_here = threads if (given.threads or 1) <= machine.usable_cores() else []  # nodes may have more cores
    listing = [*command, *threads_here, "--shard", f"1/{jobs}", "--list"]
    listed = subprocess.run(listing, stdout=subprocess.PIPE, text=True)
    print(listed.stdout, end="", flush=True)
    if listed.returncode or "--list" in flags:
        return listed.returncode  # it said why
    if "runs to go" not in listed.stdout:
        raise Problem(f"{given.script} is no benchmark whose rounds can be shared")
    common = {"time": given.time} | ({"partition": given.partition} if given.partition else {})
    if local:
        groups = {fleet_jobs.HERE: common}
    else:
        groups = {kind: common | {"constraint": kind} for kind in given.constraint} or {"any node": common}
        ask_cluster(groups.values())
    for job in fleet_jobs.of_folder(out):  # two jobs of one shard would wait for each other, unlike shards overlap
        if job.alive and (job.nodes in groups or job.shard.split("/")[1] != str(jobs)):
            raise Problem(f"job {job.name}, shard {job.shard} on {job.nodes}, is not over: wait, or cancel it")
    executor = submitit.AutoExecutor(out / "fleet", "local" if local else "slurm", slurm_max_num_timeout=100)
    if local:  # Ctrl-C is the script's
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for nodes, parameters in groups.items():
        executor.update_parameters(
            name=fleet_jobs.NAME,
            timeout_min=10**6 if local else 1,  # none here; there, whatever interrupts a job counts as a limit
            slurm_srun_args=["--cpu-bind=none"],  # else perhaps one core of all that it was given
            slurm_additional_parameters=parameters | {"exclusive": True, "mem": 0, "requeue": True},  # 0: all memory
        )
        shards = [Shard([*command, *threads], f"{part}/{jobs}", out / "fleet") for part in range(1, jobs + 1)]
        submitted = map(executor.submit, shards) if local else executor.submit_array(shards)
        for job, shard in zip(submitted, shards, strict=True):
            record = Submitted(shard.command, shard.shard, nodes)
            (out / "fleet" / f"{job.job_id}.json").write_bytes(msgspec.json.encode(record))
            print(f"job {job.job_id}: shard {shard.shard}, {nodes}", flush=True)
            if local:
                job.wait()
                if fleet_jobs.ended(out / "fleet", job.job_id) != "done":
                    raise Problem(f"shard {shard.shard} ended early; fleet.py status {out} says why")
    print(f"fleet.py status {out} shows their progress")
    return 0


def ask_cluster(groups: Iterable[dict[str, str]]) -> None:
    """Whether it has such nodes. Raises Problem."""
    for tool in ("sbatch", "srun"):
        if not shutil.which(tool):
            raise Problem(f"{tool} is not on the PATH: run this on a login node of a SLURM cluster, or with --local N")
    for group in groups:
        options = [f"--{flag}={value}" for flag, value in group.items()]
        command = ["sbatch", "--test-only", "--exclusive", "--mem=0", *options, "--wrap=true"]
        trial = fleet_jobs.run(*command)
        if trial.returncode:
            raise Problem(f"{' '.join(options)}: sbatch ends with {trial.returncode}: {last_line(trial.stderr)}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    option = parser.add_argument
    option("script", help="the benchmark's, before all flags; or `status` and a folder of results")
    option("--partition", help="SLURM's (default: the cluster's)")
    option("--constraint", nargs="+", default=[], help="features of nodes, each with its own jobs (default: any node)")
    option("--jobs", type=int, default=1, help="per constraint, a shard of the rounds each (default: 1)")
    option("--time", default="4:00:00", help="limit of a job as SLURM writes it, 5 minutes or more (default: 4:00:00)")
    option("--local", type=int, metavar="N", help="run N shards here, one after the other (default: on the cluster)")
    option("--threads", type=int, help="the script's, also more than this machine has cores (default: all cores)")
    option("--out", type=Path, help="folder that all jobs write to (default: the script's)")
    given, flags = parser.parse_known_args(arguments)
    try:
        return fleet_jobs.status(flags) if given.script == "status" else submit(given, flags)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise Problem(" ".join(str(error).split())) from None


if __name__ == "__main__":
    exit_with(main, "submitted jobs are not: see fleet.py status, and scancel")
