"""What is run: the jobs of a model. Without torch, which is for the process of each run."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from benchmarks.whole_ct.plans import Intensities, Plans, read, simple
from segbench import zoo
from segbench.cases import sides
from segbench.problem import Problem

if TYPE_CHECKING:
    from .scan import Scan

CLASSES = 117  # of STU-Net


class Network(NamedTuple):
    kind: str  # of its export: nnU-Net's (nnunet) or TotalSegmentator's (official)
    released: str  # name in zoo.RELEASED
    task: str = "total"  # of TotalSegmentator
    size: str = "big"  # the other of its task total_v3 is small


# What is run, by the name of --models.
NETWORKS = {
    "stunet_s": Network("nnunet", "STU-Net-S, 1.5 mm"),
    "stunet_b": Network("nnunet", "STU-Net-B, 1.5 mm"),
    "totalsegmentator": Network("official", "TotalSegmentator, 1.5 mm"),
    "totalsegmentator_fast": Network("official", "TotalSegmentator --fast, 3 mm"),
    "totalsegmentator_v3": Network("official", "TotalSegmentator, 1.5 mm", "total_v3"),
    "totalsegmentator_v3_small": Network("official", "TotalSegmentator v3, small, 1.5 mm", "total_v3", "small"),
}
RELEASED = {run.name: run for run in zoo.RELEASED}
# By task, the data sets of TotalSegmentator's five networks: organs, vertebrae, cardiac, muscles, ribs.
TASKS = {"total": (291, 292, 293, 294, 295), "total_v3": (831, 832, 833, 834, 835)}
STEPS = {"nnunet": 0.5, "official": 0.8}  # of a tile, from one to the next: nnU-Net's default, TotalSegmentator's


class Job(msgspec.Struct):
    way: str  # nnunet, official or optimised
    as_in: str  # what the optimised way does the same as: nnunet or official
    model: str
    plans: tuple[Plans, ...]  # of each network
    resolution_mm: float  # that TotalSegmentator resamples to
    step: float  # of a tile, from one to the next
    mode: str
    volume: str  # a NIfTI file, in Hounsfield units
    voxels: tuple[int, int, int]  # that it has, (D, H, W)
    spacing_mm: tuple[float, float, float]
    labels: str  # a file to write them to, .npy
    weights: tuple[str, ...] = ()  # a checkpoint per network
    merge: tuple[tuple[int, ...], ...] = ()  # per network the label of each of its classes among all; or as they are
    order: int = 1  # of the splines that TotalSegmentator resamples a CT by
    export: str = "torch"  # how nnU-Net resamples logits: by torch, all classes at once; anything else: as planned
    exact: bool = False  # nnU-Net's sums in FP32: for labels to compare with, not to be timed
    task: str = "total"  # of TotalSegmentator
    size: str = "big"  # of its network, or small


class JobResult(msgspec.Struct):
    parts_s: dict[str, float]
    peaks_mb: dict[str, float]  # of the resident set, by part
    whole_s: float
    prepare_s: float  # once per network and machine, not part of the whole
    peak_mb: float
    tiles: int
    reference_ms: tuple[float, float]  # of the reference convolution before and after it: the state of the machine


def jobs_of(settings: object, model: str, folder: Path, scan: "Scan") -> tuple[Job | None, list[Job]]:
    """Of a model: what gives the labels to compare with, where the stock way is run, and what is run in each repeat.
    Raises Problem for a CT that would have no voxels at a network's spacing, or billions.

    `settings`: those of benchmark.py.
    """
    network = NETWORKS[model]
    kind, run = network.kind, RELEASED[network.released]
    plans = plans_of(model, settings.weights)
    for network_plans in plans:
        if network_plans.scheme == "CTNormalization" and not network_plans.intensities:
            network_plans.intensities = intensities(scan.values)
        check_size(scan, run.resolution_mm if kind == "official" else 0, network_plans)
    common = {
        "as_in": kind,
        "model": run.model,
        "plans": plans,
        "resolution_mm": run.resolution_mm,
        "step": STEPS[kind],
        "volume": str(scan.file(folder)),
        "voxels": scan.values.shape,
        "spacing_mm": scan.spacing_mm,
        "weights": tuple(str(path.resolve()) for path in settings.weights),
        "merge": tables_of_parts(network.task) if run.networks > 1 else (),
        "task": network.task,
        "size": network.size,
        "order": spline_order() if kind == "official" else 0,
    }
    exact, timed = None, []
    if "stock" in settings.ways:
        exact = Job(way=kind, mode="baseline", labels=str(folder / "exact.npy"), exact=True, export="scipy", **common)
        for export in settings.export if kind == "nnunet" else ("",):
            timed.append(Job(way=kind, mode="baseline", export=export, labels="", **common))
    if "optimised" in settings.ways:
        timed += [Job(way="optimised", mode=mode, labels="", **common) for mode in settings.modes]
    for number, job in enumerate(timed):
        job.labels = str(folder / f"{number}.npy")
    return exact, timed


def spline_order() -> int:
    """That the installed TotalSegmentator resamples a CT by."""
    from inspect import signature

    from totalsegmentator.python_api import totalsegmentator

    return signature(totalsegmentator).parameters["resampling_order"].default


def check_size(scan: "Scan", resolution_mm: float, plans: Plans) -> None:
    """Raises Problem where nothing is left at a network's spacing, or far more than memory holds."""
    order = plans.transpose if not resolution_mm else (0, 1, 2)
    spacing = [resolution_mm] * 3 if resolution_mm else plans.spacing_mm
    size = [round(scan.values.shape[n] * scan.spacing_mm[n] / mm) for n, mm in zip(order, spacing, strict=True)]
    if min(size) < 1 or np.prod(size, dtype=float) > 2**31:
        at = " x ".join(f"{mm:g}" for mm in spacing)
        raise Problem(f"{scan.path} would have {sides(tuple(size))} voxels of {at} mm, which the network sees")


def names_of_parts(task: str = "total") -> list[list[str]]:
    """Classes of each of TotalSegmentator's five networks, the background left out."""
    from totalsegmentator import map_to_binary as maps

    version = task.removeprefix("total")  # "", "_v3"
    classes = getattr(maps, f"class_map_5_parts{f'_{task}' if version else ''}")
    part_of = getattr(maps, f"map_taskid_to_partname_ct{version}")
    parts = [classes[part_of[data_set]] for data_set in TASKS[task]]
    return [[part[label] for label in sorted(part)] for part in parts]


def tables_of_parts(task: str = "total") -> tuple[tuple[int, ...], ...]:
    """Of TotalSegmentator's five networks: the label among all 117 of each of its classes, the background first."""
    from totalsegmentator.map_to_binary import class_map

    number = {name: label for label, name in class_map[task].items()}
    return tuple((0, *(number[name] for name in part)) for part in names_of_parts(task))


def too_large(job: Job, free_gb: float) -> str:
    """Why nnU-Net's export will not fit: all logits at the original spacing, and those it makes them from. By torch
    they are in FP32; by scipy there are two copies of them, in half precision or, of sums in FP32, in that."""
    if job.way != "nnunet":
        return ""
    voxels = np.prod(job.voxels, dtype=float)
    of_network = voxels * np.prod(job.spacing_mm) / np.prod(job.plans[0].spacing_mm)
    copies = 2 if job.exact else 1
    needed = len(job.plans[0].names) * copies * (4 * voxels + 6 * of_network) / 1e9 + 2
    return f"needs about {needed:.0f} GB, {free_gb:.0f} GB are free" if needed > free_gb else ""


def intensities(values: np.ndarray) -> Intensities:
    """Where plans say none: quantiles and moments of this CT above -500 HU."""
    seen = values[values > -500] if (values > -500).any() else values
    low, high = np.quantile(seen, (0.005, 0.995))
    return Intensities(float(low), float(max(high, low + 1)), float(seen.mean()), float(seen.std()))


def plans_of(model: str, weights: tuple[Path, ...]) -> tuple[Plans, ...]:
    """Of each of its networks: those of the checkpoints, or as released. Raises Problem for a checkpoint that is not of
    its network, and for plans that are not followed."""
    from segbench.models.totalsegmentator import class_names

    task, run = NETWORKS[model].task, RELEASED[NETWORKS[model].released]
    count, names = run.classes or CLASSES, class_names(task)
    whole = names if count == len(names) + 1 else [f"class {n}" for n in range(1, count)]
    names = [["background", *part] for part in names_of_parts(task)] if run.networks > 1 else [["background", *whole]]
    if not weights:
        return tuple(Plans((run.resolution_mm,) * 3, part) for part in names)
    return tuple(of_checkpoint(model, path, number, names) for number, path in enumerate(weights))


def of_checkpoint(model: str, path: Path, number: int, names: list[list[str]]) -> Plans:
    """Of the checkpoint of one of a model's networks, whose classes are called `names[number]`."""
    from segbench.models import states, volume

    kind, released, network_task, _ = NETWORKS[model]
    run, at = RELEASED[released], f"--weights {path.name}"
    try:
        checkpoint = states.read(path)
        state = states.unwrapped(checkpoint)
    except ValueError as error:
        raise Problem(f"{at}: {error}") from None
    plans = read(path, state, checkpoint, run.resolution_mm, names[number])
    try:
        volume.check_size(run.model, plans.patch)
        states.put(volume.assemble(run.model, max(len(plans.names), 1)), state, path.name)
    except ValueError as error:
        raise Problem(f"{at}: {error}") from None
    mirrored = checkpoint.get("inference_allowed_mirroring_axes") if isinstance(checkpoint, dict) else None
    plans.mirrored = kind == "nnunet" and bool(simple(mirrored))  # TotalSegmentator never does
    if kind == "official":
        check_part(at, plans, number, names, TASKS[network_task])
    return plans


def check_part(at: str, plans: Plans, number: int, names: list[list[str]], tasks: tuple[int, ...]) -> None:
    """Raises Problem for a checkpoint of another of TotalSegmentator's networks, by its classes or its data set, which
    should be that of `tasks`."""
    if len(plans.names) != len(names[number]):
        raise Problem(f"{at} has {len(plans.names)} classes, {len(names[number])} are wanted")
    expected, given = names[number][1:], plans.names[1:]
    if given != expected and given != [f"class {n}" for n in range(1, len(names[number]))]:
        first = next(pair for pair in zip(given, expected, strict=True) if pair[0] != pair[1])
        raise Problem(f"{at} segments {first[0]} where {first[1]} is wanted: name the files in the order of the parts")
    task, known = (
        re.match(r"Dataset(\d+)_", plans.dataset),
        {number for of_task in TASKS.values() for number in of_task},
    )
    if len(names) > 1 and task and int(task[1]) in known and int(task[1]) != tasks[number]:
        raise Problem(f"{at} is of {plans.dataset}, not of data set {tasks[number]}: name the files in order")


def names_of(job: Job) -> list[str]:
    """Of the labels of a job, the background left out."""
    from segbench.models.totalsegmentator import class_names

    return class_names(job.task) if job.as_in == "official" else job.plans[0].names[1:]
