"""A whole CT from voxels to labels at the original spacing: nnU-Net and TotalSegmentator stock on a CPU, beside
the same networks and tiles with a deployment runtime and logits resampled to labels without writing them.

Every run is a fresh process; the ways take turns. Writes runs/<machine>.csv (a line per run: seconds and peak memory of
every part), and from those of all machines benchmark_results.csv and benchmark_plot.png.

    uv run benchmarks/whole_ct/benchmark.py --models stunet_s                       # some minutes, a synthetic CT
    uv run benchmarks/whole_ct/benchmark.py --models totalsegmentator --ways fast --voxels 300 512 512
    uv run benchmarks/whole_ct/benchmark.py --models totalsegmentator --volume ct.nii.gz --weights 1.pth 2.pth 3.pth \
        4.pth 5.pth --labels labels.nii.gz      # a real one, in the order of TotalSegmentator's parts
"""

import subprocess
import sys
import tempfile
import warnings
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

try:
    import msgspec
    import numpy as np
    import pandas as pd
    import tyro

    from benchmarks.whole_ct import report
    from benchmarks.whole_ct.job import Job
    from segbench import machine, modes, runtimes, zoo
    from segbench.cases import Case, sides
    from segbench.problem import Problem
    from segbench.run_log import replacing
    from segbench.settings import find_modes
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run benchmark.py`, which installs what is missing") from None

HERE = Path(__file__).resolve().parent
OWN = HERE / "own"  # git leaves it alone
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


@dataclass
class Settings:
    models: tuple[Literal[*NETWORKS], ...] = ("stunet_s", "totalsegmentator_fast")
    ways: tuple[Literal["stock", "fast"], ...] = ("stock", "fast")
    modes: tuple[str, ...] = ("openvino", "openvino-bf16")
    """Of the fast way; what this machine has no native precision for is left out."""
    export: tuple[Literal["torch", "scipy"], ...] = ("torch",)
    """nnU-Net's resampling of logits: by torch, all classes at once, or by scipy, class by class."""
    voxels: tuple[int, int, int] = (160, 384, 384)
    """Of the synthetic CT, 1.5x0.75x0.75 mm."""
    repeats: int = 2
    """Runs of every way, in turn."""
    volume: Path | None = None
    """A CT in NIfTI instead, in Hounsfield units."""
    weights: tuple[Path, ...] = ()
    """Checkpoints of nnU-Net or state dicts, one per network."""
    labels: Path | None = None
    """Where the last run's label map goes, in NIfTI, with the names of the classes."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """By default this folder, with --volume its own/."""
    report: bool = False
    """Tables and picture from the runs that are there, no run."""


class Scan:
    """A CT as the networks want it: (D, H, W), from head to feet or back, in Hounsfield units or normalised."""

    def __init__(self, path: Path):
        import nibabel

        try:
            self.original = nibabel.load(path)
            canonical = nibabel.as_closest_canonical(self.original)
            values = np.asarray(canonical.dataobj, np.float32)
        except (nibabel.filebasedimages.ImageFileError, EOFError, OSError, zlib.error) as error:
            raise Problem(f"--volume {path}: {error}") from None
        if values.ndim != 3:
            raise Problem(f"--volume {path} has {values.ndim} dimensions, not three")
        if not np.isfinite(values).all():
            raise Problem(f"--volume {path}: {int((~np.isfinite(values)).sum())} voxels are no numbers")
        self.name, self.affine, self.values = path.name, canonical.affine, values.transpose(2, 1, 0)
        self.spacing_mm = tuple(float(side) for side in canonical.header.get_zooms()[::-1])

    def save(self, labels: np.ndarray, names: list[str], path: Path) -> None:
        """Beside the scan: its orientation, its header, and the names and colours of the classes in an extension, as
        TotalSegmentator writes them."""
        import nibabel
        from totalsegmentator.alignment import undo_canonical
        from totalsegmentator.nifti_ext_header import add_label_map_to_nifti

        image = nibabel.Nifti1Image(np.ascontiguousarray(labels.transpose(2, 1, 0)), self.affine)
        image = undo_canonical(image, self.original)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj, np.uint8), self.original.affine)
        nibabel.save(add_label_map_to_nifti(image, names), path)


def jobs(settings: Settings, model: str, folder: Path, scan: Scan | None) -> list[Job]:
    """Of a model: what gives the labels to compare with, then what is run in each repeat."""
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
    chosen = []
    if "stock" in settings.ways:
        chosen.append(Job(way=kind, mode="baseline", export="torch", labels="", exact=True, **common))
        exports = settings.export if kind == "nnunet" else ("",)
        chosen += [Job(way=kind, mode="baseline", export=export, labels="", **common) for export in exports]
    if "fast" in settings.ways:
        chosen += [Job(way="fast", mode=mode, labels="", **common) for mode in settings.modes]
    for number, job in enumerate(chosen):
        job.labels = str(folder / f"{model}-{number}.npy")
    return chosen


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


def started(job: Job) -> dict:
    """One run in a fresh process. Its progress goes to the terminal. Raises Problem where it fails."""
    quietly = ("-P", "-W", "ignore")  # libraries warn of each other
    command = [sys.executable, *quietly, str(HERE / "segment.py"), msgspec.json.encode(job).decode()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Problem(f"{job.model} {job.way} {job.mode} ended with status {done.returncode}, see above")
    return msgspec.json.decode(done.stdout.splitlines()[-1])


def measure(settings: Settings, scan: Scan | None, evidence: Path) -> None:
    """A row per run, written when it has ended."""
    here = machine.describe()
    about = {"machine": here.name, "cpu": here.label, "threads": machine.usable_cores()}
    about |= machine.installed(("torch", "openvino", "onnxruntime", "nnunetv2", "totalsegmentator"))
    for model in settings.models:
        with tempfile.TemporaryDirectory() as folder:
            if scan:
                np.save(Path(folder) / "volume.npy", scan.values)
            chosen, reference, saved = jobs(settings, model, Path(folder), scan), None, None
            ct = scan.name if scan else report.SYNTHETIC
            before = turns_before(evidence, model, ct, sides(chosen[0].voxels))
            for repeat in range(before + 1, before + settings.repeats + 1):
                for job in chosen:
                    if job.exact and reference is not None:
                        continue
                    row = about | {"model": model, "way": job.way, "mode": job.mode, "export": job.export}
                    row["export"] = job.export if job.way == "nnunet" else ""
                    row |= {
                        "ct": ct,
                        "voxels": sides(job.voxels),
                        "step": job.step,
                        "classes": sum(job.classes),
                        "repeat": repeat,
                    }
                    row["started"] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
                    if reason := too_large(job, machine.free_gb()):
                        print(f"{model} {job.way}: skipped, {reason}")
                        continue
                    what = "sums in FP32, for its labels" if job.exact else f"run {repeat}"
                    print(f"{model}, {job.way}, {job.mode}, {what}", flush=True)
                    told = started(job)
                    labels = np.load(job.labels)
                    if job.exact:
                        reference = labels
                        continue
                    saved = (job, labels)
                    row |= {f"{part.replace(' ', '_')}_s": seconds for part, seconds in told["parts_s"].items()}
                    row |= {f"{part.replace(' ', '_')}_mb": peak for part, peak in told["peaks_mb"].items()}
                    row |= {key: told[key] for key in ("whole_s", "prepare_s", "peak_mb", "tiles")}
                    same = np.nan if reference is None else float((labels == reference).mean())
                    record(evidence, row | {"same_labels": same})
                    print(f"  {told['whole_s']:.1f} s, {told['peak_mb'] / 1e3:.1f} GB")
            if settings.labels and saved:
                scan.save(saved[1], names_of(model), settings.labels)
                print(f"wrote {settings.labels}, labels of {model}, {saved[0].way}, {saved[0].mode}")


def turns_before(evidence: Path, model: str, ct: str, voxels: str) -> int:
    """How often a model went over a CT in earlier commands: what is compared is of one turn."""
    if not evidence.exists():
        return 0
    runs = report.read(evidence)
    own = runs[(runs.model == model) & (runs.ct == ct) & (runs.voxels == voxels)]
    return 0 if own.empty else int(own["repeat"].max())


def record(evidence: Path, row: dict) -> None:
    """Append a row; runs of other models have other parts."""
    before = [report.read(evidence)] if evidence.exists() else []
    with replacing(evidence) as draft:
        pd.concat([*before, pd.DataFrame([row])], ignore_index=True).to_csv(draft, index=False, float_format="%.6g")


def names_of(model: str) -> list[str]:
    from segbench.models.totalsegmentator import class_names

    return class_names() if model.startswith("totalsegmentator") else [f"class {n}" for n in range(1, CLASSES)]


def intensities(values: np.ndarray, weights: tuple[Path, ...], networks: int) -> tuple[tuple[float, ...], ...]:
    """HU at which each network clips, mean and standard deviation: quantiles and moments of the foreground that it saw
    in training, as its checkpoint's plans hold them, or where they do not those of this CT above -500 HU."""
    seen = values[values > -500] if (values > -500).any() else values
    own = (*np.quantile(seen, (0.005, 0.995)), seen.mean(), seen.std())
    known = [foreground(path) for path in weights] or [{}] * networks
    wanted = ("percentile_00_5", "percentile_99_5", "mean", "std")
    return tuple(tuple(float(of.get(key, value)) for key, value in zip(wanted, own, strict=True)) for of in known)


def foreground(weights: Path) -> dict[str, float]:
    """Intensities that nnU-Net saw in training, from its checkpoint; {} for a state dict alone."""
    from segbench.models import states

    found = states.read(weights)
    for key in ("init_args", "plans", "foreground_intensity_properties_per_channel", "0"):
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return found


def check(settings: Settings) -> Settings:
    """Raises Problem for what cannot be run."""
    find_modes(settings.modes)
    here = machine.describe()
    settings.modes = tuple(m for m in settings.modes if modes.MODES[m].precision != "bf16" or here.native_bf16)
    for name in settings.modes:
        case = Case(model="stunet_s", mode=name, size=zoo.TILE)
        if reason := runtimes.of_mode(modes.MODES[name]).missing(modes.MODES[name], case, here):
            raise Problem(f"--modes {name}: {reason}")
    if min(settings.voxels) < 8:
        raise Problem("--voxels are 8 or more on each side")
    if settings.repeats < 1:
        raise Problem(f"--repeats {settings.repeats} is not positive")
    for flag, paths in {"volume": [settings.volume] if settings.volume else [], "weights": settings.weights}.items():
        for path in paths:
            if not path.is_file():
                raise Problem(f"--{flag} {path} is {'a folder' if path.is_dir() else 'no such file'}")
    if settings.labels:
        check_labels(settings)
    for model in settings.models:
        wanted = RELEASED[NETWORKS[model][1]].networks
        if settings.weights and len(settings.weights) != wanted:
            raise Problem(f"--weights: {model} has {wanted} networks, {len(settings.weights)} files are named")
        if settings.weights:
            check_weights(model, settings.weights)
    settings.out = settings.out or (OWN if settings.volume else HERE)
    try:
        (settings.out / "runs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"--out {settings.out} cannot be written to ({error.strerror})") from None
    return settings


def check_labels(settings: Settings) -> None:
    """Raises Problem where labels cannot be written, before anything runs for them."""
    path = settings.labels
    if not settings.volume:
        raise Problem("--labels is for a CT of --volume")
    if len(settings.models) > 1:
        raise Problem("--labels takes those of one model: name it with --models")
    if not path.name.endswith((".nii", ".nii.gz")):
        raise Problem(f"--labels {path} is not named as NIfTI, .nii or .nii.gz")
    if path.exists():
        raise Problem(f"--labels {path} is there already: nothing is overwritten")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise Problem(f"--labels {path} cannot be written ({error.strerror})") from None


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


def main() -> int:
    warnings.simplefilter("ignore")  # libraries warn of each other
    settings = tyro.cli(Settings, description=__doc__)

    if not settings.report:
        settings = check(settings)
        scan = Scan(settings.volume) if settings.volume else None
        evidence = settings.out / "runs" / f"{machine.describe().name}.csv"
        measure(settings, scan, evidence)
        print(f"wrote {evidence}")
    else:
        settings.out = settings.out or HERE
        if report.evidence(settings.out).empty:
            raise Problem(f"{settings.out / 'runs'} holds no run; run without --report first")
    for path in report.write(settings.out, settings.out):
        print(f"wrote {path}")
    print(report.terminal(settings.out))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"benchmark.py: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nbenchmark.py: stopped; what ran to its end is kept", file=sys.stderr)
        sys.exit(130)
