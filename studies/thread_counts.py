"""How many threads? Networks and whole CTs within a quota of CPUs, as each tool chooses its threads, and chosen well.

A container's quota is no smaller number of CPUs: a program that counts CPUs starts a thread for each, and all of them
are stopped for the rest of every period once they have used the quota up. Each line is a fresh process in a control
group with that quota, in turn with the others; it prints what the tool chose by itself. Needs root, for the control
groups. Prints a table, and keeps it in checks/, from which a page is made.

    uv run studies/thread_counts.py --rounds 4
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import msgspec

from segbench import machine, settings
from segbench.analysis import stats
from segbench.measure import server
from segbench.problem import Problem, exit_with
from studies import common
from studies.runtime_checks import SIZE

HERE = Path(__file__).resolve().parent
CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000  # the kernel's default
BUDGET_S = 3
TOOLS = ("eager", "onnxruntime", "openvino")
# Loads a network as its first page says; `threads` is 0 where the tool chooses.
RUN = """
import json, os, sys, time
tool, folder, threads, budget_s = json.loads(sys.argv[1])
import numpy as np
image = np.random.default_rng(0).standard_normal((1, 3, 512, 512), dtype=np.float32)
if tool == "eager":
    import torch
    from segbench import models
    from segbench.cases import Case
    network = models.build(Case(model="resnet18", mode="baseline", size=(512, 512), decoder="fpn", classes=117))
    if threads: torch.set_num_threads(threads)
    chosen, given = torch.get_num_threads(), torch.from_numpy(image)
    def call():
        with torch.inference_mode(): return network(given)
elif tool == "onnxruntime":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder + "/model.onnx", options)
    call = lambda: session.run(None, {"image": image})
    chosen = None
else:
    import openvino
    how = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads: how["INFERENCE_NUM_THREADS"] = threads
    model = openvino.Core().compile_model(folder + "/model.xml", "CPU", how)
    chosen = model.get_property("INFERENCE_NUM_THREADS")
    call = lambda: model(image)
call()
if chosen is None:  # of ONNX Runtime: its pool and the caller
    chosen = len(os.listdir("/proc/self/task"))
taken, end = [], time.perf_counter() + budget_s
while time.perf_counter() < end or len(taken) < 3:
    start = time.perf_counter()
    call()
    taken.append(time.perf_counter() - start)
print(json.dumps([sum(taken) / len(taken), chosen]))
"""
# A whole CT by the stock way; with `threads` the tools are told that there are so many CPUs.
CT = """
import json, multiprocessing, os, sys
job, threads = json.loads(sys.argv[1])
if threads:
    os.cpu_count = multiprocessing.cpu_count = lambda: threads
import msgspec, torch
from benchmarks.whole_ct import segment
from benchmarks.whole_ct.jobs import Job
set_threads, chosen = torch.set_num_threads, []
torch.set_num_threads = lambda count: (chosen.append(count), set_threads(count))
segment.machine.usable_cores = lambda: threads or os.cpu_count()  # as torch counts by itself
result = segment.run(msgspec.convert(job, Job))
print(json.dumps([result.whole_s, max(chosen)]))
"""


@dataclass
class Settings:
    rounds: int = 4
    """Processes per line, in turn."""
    quota: float = 0
    """CPUs of the quota; half of the cores by default."""
    cts: tuple[str, ...] = ("stunet_s", "totalsegmentator_fast")
    """3D networks of benchmarks/whole_ct; --cts with nothing behind it measures none."""
    voxels: tuple[int, int, int] = (96, 256, 256)
    """Of the CT."""
    out: Annotated[Path, settings.default_is("studies/checks")] = common.CHECKS
    """Folder for the table."""


@contextlib.contextmanager
def quota_group(cpus: float) -> Iterator[Path | None]:
    """A control group whose processes get so many CPUs, None for 0. Raises Problem where none can be made."""
    if not cpus:
        yield None
        return
    unified = (CGROUPS / "cgroup.controllers").exists()
    group = (CGROUPS if unified else CGROUPS / "cpu") / f"segbench-{os.getpid()}"
    try:
        group.mkdir()
        if unified:
            (group / "cpu.max").write_text(f"{round(cpus * PERIOD_US)} {PERIOD_US}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(cpus * PERIOD_US)))
    except OSError as error:
        raise Problem(f"no control group with a quota can be made ({error.strerror}): it needs root") from None
    try:
        yield group
    finally:
        for _ in range(50):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def measured(code: str, argument: list, group: Path | None) -> tuple[float, int]:
    """Seconds, and the threads that were chosen. Raises Problem where the process fails."""

    def join() -> None:
        if group:
            (group / "cgroup.procs").write_text("0")

    command = [sys.executable, "-P", "-W", "ignore", "-c", code, json.dumps(argument)]
    done = subprocess.run(command, capture_output=True, text=True, env=server.cleaned(), preexec_fn=join)
    if done.returncode:
        raise Problem((done.stderr.strip().splitlines() or ["the process failed"])[-1])
    seconds, chosen = json.loads(done.stdout.splitlines()[-1])
    return seconds, chosen


def lines(options: Settings, folder: Path, cores: int) -> dict[tuple, tuple[str, list]]:
    """(what, quota, threads) -> code and arguments; 0 threads: as the tool chooses."""
    quotas, found = (0, options.quota), {}
    for tool, runtime in zip(TOOLS, ("", "onnxruntime", "openvino"), strict=True):
        artefact = str(folder / runtime)
        if runtime:
            export = [sys.executable, str(HERE.parent / "tools" / "export.py"), "resnet18", "--decoder", "fpn"]
            done = subprocess.run([*export, "--runtime", runtime, "--out", artefact], capture_output=True, text=True)
            if done.returncode:
                raise Problem(done.stderr.strip().splitlines()[-1])
        for quota, threads in product(quotas, sorted({0, round(options.quota) or 1, 8 * cores})):
            found[f"{tool}, resnet18 + FPN", quota, threads] = RUN, [tool, artefact, threads, BUDGET_S]
    return found | ct_lines(options, folder, quotas)


def ct_lines(options: Settings, folder: Path, quotas: tuple[float, ...]) -> dict[tuple, tuple[str, list]]:
    if not options.cts:
        return {}
    from benchmarks.whole_ct import benchmark, jobs
    from benchmarks.whole_ct.scan import synthetic

    scan, found = synthetic(options.voxels, folder), {}
    for model in options.cts:
        asked = benchmark.Settings(models=(model,), ways=("stock",), voxels=options.voxels)
        _, (job,) = jobs.jobs_of(asked, model, folder, scan)
        for quota, threads in product(quotas, (0, round(options.quota) or 1)):
            found[f"whole CT, {model}", quota, threads] = CT, [msgspec.to_builtins(job), threads]
    return found


def table(options: Settings, cores: int) -> list[dict]:
    seconds: dict[tuple, list[float]] = {}
    chosen = {}
    with tempfile.TemporaryDirectory() as name, quota_group(options.quota) as group:
        wanted = lines(options, Path(name), cores)
        for _, (key, (code, argument)) in product(range(options.rounds), wanted.items()):
            taken, chosen[key] = measured(code, argument, group if key[1] else None)
            seconds.setdefault(key, []).append(taken)
            print(*key, f"{taken:.3g} s", flush=True, file=sys.stderr)
    rows = []
    for (what, quota, threads), taken in seconds.items():
        best = min(
            (key for key in seconds if key[:2] == (what, quota)), key=lambda key: statistics.median(seconds[key])
        )
        ratios = [one / other for one, other in zip(taken, seconds[best], strict=True)]
        row = {"what": what, "CPUs": quota or cores, "threads": threads or "as it comes"}
        row |= {"chosen": chosen[what, quota, threads], "s": statistics.median(taken)}
        low, high = stats.interval(ratios) if len(ratios) > 1 else (float("nan"),) * 2
        rows.append(row | {"times the best": statistics.geometric_mean(ratios), "low": low, "high": high})
    return rows


def main() -> None:
    options, here = settings.parse(Settings(), __doc__), machine.describe()
    if options.rounds < 1 or options.quota < 0:
        raise Problem("--rounds and --quota are positive")
    options.quota = options.quota or max(0.5, here.cores / 2)
    common.print_setting(here, ("torch", "onnxruntime", "openvino", "nnunetv2", "totalsegmentator"))
    print(f"quota: {options.quota:g} CPUs; input {SIZE[0]}x{SIZE[1]}; CT {'x'.join(map(str, options.voxels))}")
    rows = table(options, here.cores)
    common.print_table("thread counts", rows)
    common.keep("thread_counts", rows, here, options.out)


if __name__ == "__main__":
    exit_with(main)
