"""A whole CT from voxels to labels at the scan's own spacing, on a CPU.

The stock way is nnU-Net's or TotalSegmentator's own. The optimised way runs the same networks on the same tiles with a
deployment runtime, and resamples logits to labels without writing them. Every run is a fresh process; the ways take
turns.

Writes runs/<machine>.csv (a line per run: seconds and peak memory of every part), and from those of all machines
benchmark_results.csv and benchmark_plot.png. Some minutes for a synthetic CT, or a real one (--volume) with weights:

    uv run benchmark.py --models stunet_s
    uv run benchmark.py --models totalsegmentator --ways optimised
    uv run benchmark.py --models stunet_s --volume ct.nii.gz --weights s.pth
"""

import itertools
import math
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

try:
    import filelock
    import msgspec
    import numpy as np

    from benchmarks.whole_ct.jobs import NETWORKS, RELEASED, Job, JobResult, jobs_of, names_of, plans_of, too_large
    from benchmarks.whole_ct.scan import Scan, check_file, check_labels, synthetic
    from segbench import machine, modes, runtimes, zoo
    from segbench.cases import Case, sides
    from segbench.problem import Problem, exit_with
    from segbench.run_log import replacing
    from segbench.settings import default_is, find_modes, parse
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

HERE = Path(__file__).resolve().parent
OWN = HERE / "own"  # git leaves it alone


@dataclass
class Settings:
    models: tuple[Literal[*NETWORKS], ...] = ("stunet_s", "totalsegmentator_fast")
    ways: tuple[Literal["stock", "optimised"], ...] = ("stock", "optimised")
    modes: tuple[str, ...] = ("openvino", "openvino-bf16")
    """Of the optimised way; what this machine has no native precision for is left out."""
    export: tuple[Literal["torch", "scipy"], ...] = ("torch",)
    """nnU-Net's resampling of logits: by torch, all classes at once, or by scipy, class by class."""
    voxels: tuple[int, int, int] = (128, 320, 320)
    """Of the synthetic CT, 1.5x0.75x0.75 mm."""
    repeats: int = 2
    """Runs of every way, in turn."""
    volume: Path | None = None
    """A CT in NIfTI instead, in Hounsfield units."""
    weights: tuple[Path, ...] = ()
    """Checkpoints of nnU-Net or state dicts, one per network."""
    labels: Path | None = None
    """Where the last run's label map goes, in NIfTI, with the names of the classes."""
    out: Annotated[Path | None, default_is("this folder, with --volume its own/")] = None
    """Folder of runs, CSV and PNG."""
    report: bool = False
    """Tables and picture from the runs that are there, no run."""


def started(job: Job) -> JobResult:
    """One run in a fresh process. Its progress goes to the terminal. Raises Problem where it fails."""
    quietly = ("-P", "-W", "ignore")  # libraries warn of each other
    command = [sys.executable, *quietly, str(HERE / "segment.py"), msgspec.json.encode(job).decode()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Problem(f"{job.model} {job.way} {job.mode} ended with status {done.returncode}, see above")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=JobResult)


def measure(settings: Settings, evidence: Path) -> bool:
    """Every model in turn: labels to compare with, then each way, so often as asked for. Whether any ran."""
    any_ran = False
    for model in settings.models:
        with tempfile.TemporaryDirectory() as folder:
            scan = Scan(settings.volume) if settings.volume else synthetic(settings.voxels, Path(folder))
            exact, timed = jobs_of(settings, model, Path(folder), scan)
            has_reference = exact and run_job(exact, "sums in FP32, for its labels")
            reference = np.load(exact.labels) if has_reference else None
            before, last = turns_before(evidence, model, scan.name, sides(timed[0].voxels)), None
            for turn, job in itertools.product(range(before + 1, before + settings.repeats + 1), timed):
                if result := run_job(job, f"run {turn}"):
                    row = {"model": model, "ct": scan.name, "repeat": turn}
                    record(evidence, row | described(job, result, reference))
                    last, any_ran = job, True
            if settings.labels and last:
                scan.save(np.load(last.labels), names_of(last), settings.labels)
                print(f"wrote {settings.labels}, labels of {model}, {last.way}, {last.mode}")
    return any_ran


def run_job(job: Job, what: str) -> JobResult | None:
    """What a job measured; None where it was skipped. Raises Problem where it fails."""
    if reason := too_large(job, machine.free_gb()):
        print(f"{job.model} {job.way}: skipped, {reason}")
        return None
    print(f"{job.model}, {job.way}, {job.mode}, {what}", flush=True)
    result = started(job)
    print(f"  {result.whole_s:.1f} s, {result.peak_mb / 1e3:.1f} GB")
    return result


def described(job: Job, result: JobResult, reference: np.ndarray | None) -> dict:
    """A row of the evidence; `reference`: labels to compare with, (D, H, W)."""
    here = machine.describe()
    row = {"machine": here.name, "cpu": here.title, "threads": machine.usable_cores()}
    row |= machine.installed(("torch", "openvino", "onnxruntime", "nnunetv2", "totalsegmentator"))
    row |= {"way": job.way, "mode": job.mode, "export": job.export if job.way == "nnunet" else ""}
    row |= {"voxels": sides(job.voxels), "step": job.step, "classes": sum(len(plans.names) for plans in job.plans)}
    row["started"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    row |= {f"{part.replace(' ', '_')}_s": seconds for part, seconds in result.parts_s.items()}
    row |= {f"{part.replace(' ', '_')}_mb": peak for part, peak in result.peaks_mb.items()}
    row |= {key: getattr(result, key) for key in ("whole_s", "prepare_s", "peak_mb", "tiles")}
    row |= dict(zip(("reference_before_ms", "reference_after_ms"), result.reference_ms, strict=True))
    same = np.nan if reference is None else float((np.load(job.labels) == reference).mean())
    return row | {"same_labels": same}


def turns_before(evidence: Path, model: str, ct: str, voxels: str) -> int:
    """How often a model went over a CT in earlier commands: what is compared is of one turn."""
    from benchmarks.whole_ct import report

    if not evidence.exists():
        return 0
    runs = report.checked(evidence)
    same = runs[(runs.model == model) & (runs.ct == ct) & (runs.voxels == voxels)]
    return 0 if same.empty else int(same["repeat"].max())


def record(evidence: Path, row: dict) -> None:
    """Append a row; runs of other models have other parts. One process at a time; a lock goes with its process."""
    import pandas as pd

    from benchmarks.whole_ct import report

    with filelock.FileLock(evidence.with_name(f".lock-{evidence.stem}")):
        before = [report.read(evidence)] if evidence.exists() else []
        with replacing(evidence) as draft:
            pd.concat([*before, pd.DataFrame([row])], ignore_index=True).to_csv(draft, index=False, float_format="%.6g")


def check(settings: Settings) -> Path:
    """Where the evidence goes. Raises Problem for what cannot be run."""
    find_modes(settings.modes)
    here = machine.describe()
    for flag in ("models", "ways", "modes", "export"):
        if not getattr(settings, flag):
            raise Problem(f"--{flag} names nothing: there is nothing to measure")
    asked = settings.modes
    settings.modes = tuple(m for m in asked if modes.MODES[m].precision != "bf16" or here.native_bf16)
    if not settings.modes and "optimised" in settings.ways:
        raise Problem(f"--modes {' '.join(asked)}: this machine has no native BF16, and nothing else is asked for")
    for name in settings.modes:
        case = Case(model="stunet_s", mode=name, size=zoo.TILE)
        if reason := runtimes.missing(modes.MODES[name], case, here):
            raise Problem(f"--modes {name}: {reason}")
    if min(settings.voxels) < 8:
        raise Problem("--voxels are 8 or more on each side")
    needed_gb, free_gb = 25 * math.prod(settings.voxels) / 1e9, machine.free_gb()  # FP64 while it is made
    if not settings.volume and needed_gb > free_gb:
        raise Problem(f"--voxels: a CT of {sides(settings.voxels)} needs {needed_gb:.0f} GB, {free_gb:.0f} GB are free")
    if settings.repeats < 1:
        raise Problem(f"--repeats {settings.repeats} is not positive")
    for flag, paths in {"volume": [settings.volume] if settings.volume else [], "weights": settings.weights}.items():
        for path in paths:
            check_file(flag, path)
    if settings.labels and not settings.volume:
        raise Problem("--labels is for a CT of --volume")
    if settings.labels and len(settings.models) > 1:
        raise Problem("--labels takes those of one model: name it with --models")
    if settings.labels:
        check_labels(settings.labels)
    for model in settings.models:
        wanted = RELEASED[NETWORKS[model].released].networks
        if settings.weights and len(settings.weights) != wanted:
            raise Problem(f"--weights: {model} has {wanted} networks, {len(settings.weights)} files are named")
        for path, plans in zip(settings.weights, plans_of(model, settings.weights), strict=False):
            if plans.mirrored:
                print(f"{path.name}: no way averages over mirrored tiles, as with nnU-Net's --disable_tta")
    settings.out = settings.out or (OWN if settings.volume else HERE)
    from benchmarks import catalogue
    from benchmarks.whole_ct import report

    evidence = catalogue.evidence_path(settings.out, "runs", here.name)
    report.evidence(settings.out)  # what cannot be read is known before anything runs
    return evidence


def main() -> None:
    warnings.simplefilter("ignore")  # libraries warn of each other
    settings = parse(Settings(), __doc__)
    from benchmarks.whole_ct import report

    if settings.report:
        settings.out = settings.out or HERE
        if report.evidence(settings.out).empty:
            raise Problem(f"{settings.out / 'runs'} holds no run; run without --report first")
    else:
        evidence = check(settings)
        try:
            any_ran = measure(settings, evidence)
        except (OSError, MemoryError) as error:
            raise Problem(f"{error}: what ran to its end before is kept") from None
        if not any_ran:
            raise Problem("nothing was measured, see above")
        print(f"wrote {evidence}")
    for path in report.write(settings.out, settings.out):
        print(f"wrote {path}")
    print(report.terminal(settings.out))


if __name__ == "__main__":
    exit_with(main, "what ran to its end is kept")
