"""What is run: the jobs of a model. Without torch, which is for the process of each run."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from segbench import zoo
from segbench.problem import Problem

if TYPE_CHECKING:
    from .scan import Scan

CLASSES = 117  # of STU-Net
# What is run, by the name of --models: nnU-Net models are exported as nnU-Net does, TotalSegmentator's as it does.
NETWORKS = {
    "stunet_s": ("nnunet", "STU-Net-S, 1.5 mm"),
    "stunet_b": ("nnunet", "STU-Net-B, 1.5 mm"),
    "totalsegmentator": ("official", "TotalSegmentator, 1.5 mm"),
    "totalsegmentator_fast": ("official", "TotalSegmentator --fast, 3 mm"),
}
RELEASED = {run.name: run for run in zoo.RELEASED}
TASKS = (291, 292, 293, 294, 295)  # TotalSegmentator's five networks: organs, vertebrae, cardiac, muscles, ribs
STEPS = {"nnunet": 0.5, "official": 0.8}  # of a tile, from one to the next: nnU-Net's default, TotalSegmentator's


class Job(msgspec.Struct):
    way: str  # nnunet, official or optimised
    as_in: str  # what the optimised way does the same as: nnunet or official
    model: str
    classes: tuple[int, ...]  # of each network
    resolution_mm: float
    step: float  # of a tile, from one to the next
    mode: str
    voxels: tuple[int, int, int]  # of the synthetic CT, (D, H, W)
    spacing_mm: tuple[float, float, float]
    labels: str  # a file to write them to, .npy
    volume: str = ""  # .npy of (D, H, W), Hounsfield units; instead of the synthetic CT, which is normalised
    weights: tuple[str, ...] = ()  # a checkpoint per network
    intensities: tuple[tuple[float, float, float, float], ...] = ()  # per network: HU at which it clips, mean and std
    merge: tuple[tuple[int, ...], ...] = ()  # per network the label of each of its classes among all; or as they are
    export: str = "torch"  # of EXPORTS
    exact: bool = False  # nnU-Net's sums in FP32: for labels to compare with, not to be timed


class JobResult(msgspec.Struct):
    parts_s: dict[str, float]
    peaks_mb: dict[str, float]  # of the resident set, by part
    whole_s: float
    prepare_s: float  # once per network and machine, not part of the whole
    peak_mb: float
    tiles: int


def jobs_of(settings: object, model: str, folder: Path, scan: "Scan | None") -> tuple[Job | None, list[Job]]:
    """Of a model: what gives the labels to compare with, where the stock way is run, and what is run in each repeat.

    `settings`: those of benchmark.py.
    """
    kind, name = NETWORKS[model]
    run = RELEASED[name]
    parts = tables_of_parts() if run.networks > 1 else ()
    common = {
        "as_in": kind,
        "model": run.model,
        "classes": tuple(len(part) for part in parts) or (run.classes or CLASSES,),
        "resolution_mm": run.resolution_mm,
        "step": STEPS[kind],
        "voxels": scan.values.shape if scan else settings.voxels,
        "spacing_mm": scan.spacing_mm if scan else (1.5, 0.75, 0.75),
        "volume": str(folder / "volume.npy") if scan else "",
        "weights": tuple(str(path.resolve()) for path in settings.weights),
        "intensities": intensities(scan.values, settings.weights, run.networks) if scan else (),
        "merge": parts,
    }
    exact, timed = None, []
    if "stock" in settings.ways:
        exact = Job(way=kind, mode="baseline", labels=str(folder / "exact.npy"), exact=True, **common)
        for export in settings.export if kind == "nnunet" else ("",):
            timed.append(Job(way=kind, mode="baseline", export=export, labels="", **common))
    if "optimised" in settings.ways:
        timed += [Job(way="optimised", mode=mode, labels="", **common) for mode in settings.modes]
    for number, job in enumerate(timed):
        job.labels = str(folder / f"{number}.npy")
    return exact, timed


def tables_of_parts() -> tuple[tuple[int, ...], ...]:
    """Of TotalSegmentator's five networks: the label among all 117 of each of its classes, the background first."""
    from totalsegmentator.map_to_binary import class_map, class_map_5_parts, map_taskid_to_partname_ct

    number = {name: label for label, name in class_map["total"].items()}
    parts = [class_map_5_parts[map_taskid_to_partname_ct[task]] for task in TASKS]
    return tuple((0, *(number[part[label]] for label in sorted(part))) for part in parts)


def too_large(job: Job, free_gb: float) -> str:
    """Why nnU-Net's export will not fit: all logits at the original spacing in FP32, and those it makes them from."""
    if job.way != "nnunet":
        return ""
    here = np.prod([count * mm / job.resolution_mm for count, mm in zip(job.voxels, job.spacing_mm, strict=True)])
    needed = job.classes[0] * (4 * np.prod(job.voxels, dtype=float) + 6 * here) / 1e9 + 2
    return f"needs about {needed:.0f} GB, {free_gb:.0f} GB are free" if needed > free_gb else ""


def intensities(values: np.ndarray, weights: tuple[Path, ...], networks: int) -> tuple[tuple[float, ...], ...]:
    """HU at which each network clips, mean and standard deviation: quantiles and moments of the foreground that it saw
    in training, by its checkpoint's plans; values that these lack are those of this CT above -500 HU."""
    seen = values[values > -500] if (values > -500).any() else values
    measured_here = (*np.quantile(seen, (0.005, 0.995)), seen.mean(), seen.std())
    plans = [foreground(path) for path in weights] or [{}] * networks
    fallback = dict(zip(("percentile_00_5", "percentile_99_5", "mean", "std"), measured_here, strict=True))
    return tuple(tuple(float(plan.get(key, value)) for key, value in fallback.items()) for plan in plans)


def foreground(weights: Path) -> dict[str, float]:
    """Intensities that nnU-Net saw in training, from its checkpoint; {} for a state dict alone."""
    from segbench.models import states

    plans = states.read(weights)
    for key in ("init_args", "plans", "foreground_intensity_properties_per_channel", "0"):
        plans = plans.get(key, {}) if isinstance(plans, dict) else {}
    return plans


def names_of(model: str) -> list[str]:
    from segbench.models.totalsegmentator import class_names

    return class_names() if model.startswith("totalsegmentator") else [f"class {n}" for n in range(1, CLASSES)]


def check_weights(model: str, weights: tuple[Path, ...]) -> None:
    """Raises Problem for a checkpoint that is not of its network."""
    from segbench.models import states, volume

    run = RELEASED[NETWORKS[model][1]]
    classes = [len(part) for part in tables_of_parts()] if run.networks > 1 else [run.classes or CLASSES]
    for path, count in zip(weights, classes, strict=True):
        try:
            states.load(volume.assemble(run.model, count), path)
        except ValueError as error:
            raise Problem(f"--weights {error}") from None
