"""One whole CT from the scanner's voxels to labels at the same spacing, in one fresh process: started by benchmark.py
with a Job as JSON, prints a Run as JSON.

Ways: `nnunet` is nnU-Net's own predictor and export (logits resampled to the original spacing, then argmax), `official`
TotalSegmentator's (argmax at the networks' resolution, then the label map resampled, five networks merged by the order
of their parts), both in eager FP32. `optimised` does what one of them does, tile by tile the same, but
with a deployment runtime, resampling by matrices, an accumulator that holds only the planes that are not yet finished,
and logits resampled to labels by segbench/labels.py.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import msgspec
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from scipy.ndimage import zoom
from skimage.transform import resize
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.official.costs import resampled
from benchmarks.whole_ct.jobs import Job, JobResult
from segbench import inputs, machine, modes, runtimes, zoo
from segbench.kernels.labels import resample_labels
from segbench.measure import timing
from segbench.models.volume import build_volume

# Both of nnU-Net: class by class, its default (with these flags), and by torch.
EXPORTS = {
    "scipy": partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None),
    "torch": resample_torch_fornnunet,
}
CUBIC = 3  # order of the splines that an image is resampled by, in nnU-Net as in TotalSegmentator


class Laps:
    """Seconds and the peak of the resident set, by part."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}
        self.peaks_mb: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        forget_peak()
        start = time.perf_counter()
        yield
        self.spent_s[part] = self.spent_s.get(part, 0) + time.perf_counter() - start
        self.peaks_mb[part] = max(self.peaks_mb.get(part, 0), peak_mb())


def forget_peak() -> None:
    with suppress(OSError):  # sandboxes have no such file: peaks are then of all that was before, too
        Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5)


def peak_mb() -> float:
    return timing.status_kb("VmHWM") * 1024 / 1e6


def by_matrices(volume: np.ndarray, size: tuple[int, ...], resample: Callable[[np.ndarray, tuple], np.ndarray]):
    """(D, H, W) resampled by splines, which are separable: what a function does to the columns of a unit matrix is all
    that it does along an axis. A product with that matrix takes a fraction of the time, and FP32 is enough."""
    values = torch.from_numpy(volume)
    for axis, (count, wanted) in enumerate(zip(volume.shape, size, strict=True)):
        if count != wanted:
            matrix = torch.from_numpy(resample(np.eye(count), (wanted, count)).astype(np.float32))
            values = torch.tensordot(matrix, values, dims=([1], [axis])).movedim(0, axis)
    return values.contiguous()


def as_nnunet(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return resize(values, size, order=CUBIC, mode="edge", anti_aliasing=False, clip=False)


def as_official(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return zoom(values, np.divide(size, values.shape), order=CUBIC, mode="nearest")


def finish(image: Tensor, volume: np.ndarray, kind: str, job: Job) -> None:
    """What is done with a resampled image: nnU-Net's resampling by scikit-image cuts off what splines overshoot,
    TotalSegmentator keeps whole Hounsfield units."""
    if kind == "nnunet":
        image.clamp_(float(volume.min()), float(volume.max()))
    elif job.intensities:
        image.trunc_()


def normalised(values: Tensor, job: Job, number: int) -> Tensor:
    """As nnU-Net does a CT for a network: clipped and z-scored, as its plans say. nnU-Net does so before it resamples;
    TotalSegmentator's networks are given what is resampled already."""
    if not job.intensities:
        return values
    low, high, mean, std = job.intensities[number]
    return values.clamp(low, high).sub_(mean).div_(max(std, 1e-8))


IMAGES = {"nnunet": as_nnunet, "official": as_official}


def nearest(count: int, wanted: int) -> np.ndarray:
    """Which of `count` values scipy's zoom takes for each of `wanted`: corners on corners."""
    places = np.arange(wanted) * ((count - 1) / max(wanted - 1, 1))
    return np.floor(places + 0.5).astype(np.int64)


def predictor_of(net: "Timed", job: Job) -> nnUNetPredictor:
    """nnU-Net's predictor around a network that it did not train."""
    predictor = nnUNetPredictor(job.step, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=True)
    predictor.network = net
    predictor.configuration_manager = SimpleNamespace(patch_size=zoo.TILE)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=net.classes)
    return predictor


class Timed(nn.Module):
    """A network that knows how long it was at work."""

    def __init__(self, network: Callable[[Tensor], Tensor], classes: int):
        super().__init__()
        self.network, self.classes, self.calls, self.seconds = network, classes, 0, 0.0

    def forward(self, tile: Tensor) -> Tensor:
        start = time.perf_counter()
        logits = self.network(tile)
        self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - start
        return logits

    def let_go(self) -> None:
        """Its memory back to the system, which takes tenths of a second for gigabytes."""
        start = time.perf_counter()
        self.network = None
        self.seconds += time.perf_counter() - start


def small(labels: Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(labels).astype(np.uint8)


def predicted(network: Timed, job: Job, image: Tensor) -> Tensor:
    """By nnU-Net's predictor. It calls the type of its sums torch.half."""
    with patch.object(torch, "half", torch.float32) if job.exact else nullcontext():
        return predictor_of(network, job).predict_sliding_window_return_logits(image)


def stock(job: Job, volume: np.ndarray, lap: Laps, networks: Iterator[Timed]) -> np.ndarray:
    """By nnU-Net's or TotalSegmentator's own means."""
    size = resampled(volume.shape, job.spacing_mm, job.resolution_mm)
    with lap("resampling in"):
        if job.way == "nnunet":
            volume = normalised(torch.from_numpy(volume), job, 0).numpy()
        image = torch.from_numpy(IMAGES[job.way](volume, size).astype(np.float32))[None]
        finish(image, volume, job.way, job)
    if job.way == "nnunet":
        network = next(networks)
        with lap("sliding window"):
            logits = predicted(network, job, image)
        with lap("logits resampled"):
            how = {"num_threads": torch.get_num_threads()} if job.export == "torch" else {}
            spacing_mm = [job.resolution_mm] * 3
            logits = EXPORTS[job.export](logits, volume.shape, spacing_mm, list(job.spacing_mm), **how)
        with lap("argmax"):
            return small(torch.as_tensor(logits).argmax(0))
    merged = np.zeros(size, np.uint8)
    for number, network in enumerate(networks):
        with lap("resampling in"):
            own = normalised(image, job, number)
        with lap("sliding window"):
            logits = predicted(network, job, own)
        with lap("argmax"):
            labels = small(logits.argmax(0))
            del logits
        with lap("labels merged"):
            merge(merged, labels, job.merge[number] if job.merge else ())
    with lap("labels resampled"):
        return zoom(merged, np.divide(volume.shape, size), order=0, mode="nearest")


def merge(merged: np.ndarray, labels: np.ndarray, of_all: tuple[int, ...]) -> None:
    """As TotalSegmentator does: a later part wins wherever it sees something. Without a table, classes are counted
    on."""
    table = np.array(of_all or range(256), np.uint8)[: labels.max() + 1]
    seen = table[labels]
    np.copyto(merged, seen, where=seen != 0)


def optimised(job: Job, volume: np.ndarray, lap: Laps, networks: Iterator[Timed]) -> np.ndarray:
    """The same with other means."""
    size, threads = resampled(volume.shape, job.spacing_mm, job.resolution_mm), torch.get_num_threads()
    with lap("resampling in"):
        if job.as_in == "nnunet":
            volume = normalised(torch.from_numpy(volume), job, 0).numpy()
        image = by_matrices(volume, size, IMAGES[job.as_in])
        finish(image, volume, job.as_in, job)
    if job.as_in == "nnunet":
        labels = np.empty((1, *volume.shape), np.uint8)
        for first, logits in slabs(job, image, next(networks), lap):
            with lap("labels"):
                resample_labels(logits[None], volume.shape, threads, first, size[0], labels)
        return labels[0]
    merged = np.zeros(size, np.uint8)
    for number, network in enumerate(networks):
        with lap("resampling in"):
            own = normalised(image, job, number)
        for first, logits in slabs(job, own, network, lap):
            with lap("labels"):
                part = small(resample_labels(logits[None], tuple(logits.shape[1:]), threads)[0])
            with lap("labels merged"):
                merge(merged[first : first + len(part)], part, job.merge[number] if job.merge else ())
    with lap("labels resampled"):
        places = [nearest(count, wanted) for count, wanted in zip(size, volume.shape, strict=True)]
        return merged[places[0]][:, places[1]][:, :, places[2]]


def slabs(job: Job, image: Tensor, network: Timed, lap: Laps) -> Iterator[tuple[int, Tensor]]:
    """The first plane and finished logits (C, d, H, W) of slab after slab; each but the first begins with the last
    plane of the one before. nnU-Net's tiles and weights; the accumulator is as deep as a tile."""
    size, tile = image.shape, zoo.TILE
    before = [max(0, side - count) // 2 for side, count in zip(tile, size, strict=True)]  # as nnU-Net pads
    after = [max(0, side - count) - start for side, count, start in zip(tile, size, before, strict=True)]
    padding = [amount for pair in zip(before[::-1], after[::-1], strict=True) for amount in pair]
    image = nn.functional.pad(image, padding)
    z_steps, y_steps, x_steps = compute_steps_for_sliding_window(tuple(image.shape), tile, job.step)
    depth, height, width = tile
    with lap("sliding window"):
        gaussian = compute_gaussian(tile, 1 / 8, 10, device=torch.device("cpu")).float()
        sums = torch.zeros(network.classes, depth + 1, *image.shape[1:])  # the first plane is of the slab before
        weights = torch.zeros(depth, *image.shape[1:])
    inner = (slice(before[1], before[1] + size[1]), slice(before[2], before[2] + size[2]))
    bar = tqdm(total=len(z_steps) * len(y_steps) * len(x_steps), desc="tiles", mininterval=1)

    def add(z: int, y: int, x: int) -> None:
        there = (..., slice(y, y + height), slice(x, x + width))
        logits = network(image[None, None, z : z + depth, y : y + height, x : x + width])[0]
        sums[:, 1:][there].addcmul_(logits, gaussian)
        weights[there] += gaussian
        bar.update()

    def move(done: int) -> None:
        for of_class in sums:  # one by one, for source and target overlap: a copy of all would be gigabytes
            of_class[: depth + 1 - done] = of_class[done:].clone()
            of_class[depth + 1 - done :] = 0
        weights[: depth - done] = weights[done:].clone()
        weights[depth - done :] = 0

    for number, z in enumerate(z_steps):
        for y in y_steps:
            for x in x_steps:
                with lap("sliding window"):
                    add(z, y, x)
        done = z_steps[number + 1] - z if number + 1 < len(z_steps) else depth
        with lap("sliding window"):
            sums[:, 1 : done + 1].div_(weights[:done])
        begin, end = max(z - 1, 0) if number else before[0], min(z + done, before[0] + size[0])
        yield begin - before[0], sums[:, 1 + begin - z : 1 + end - z][(..., *inner)]
        if number + 1 < len(z_steps):
            with lap("sliding window"):
                move(done)
    bar.close()


@torch.inference_mode()
def run(job: Job) -> JobResult:
    threads = machine.usable_cores()
    torch.set_num_threads(threads)
    volume = np.load(job.volume) if job.volume else inputs.ct(job.voxels)[0, 0].numpy()
    made, lap, start = [], Laps(), time.perf_counter()
    labels = (optimised if job.way == "optimised" else stock)(job, volume, lap, networks(job, threads, made, lap))
    whole_s = time.perf_counter() - start
    np.save(job.labels, labels)
    inside, parts = sum(network.seconds for network in made), dict(lap.spent_s)
    prepare_s = parts.pop("preparing")
    parts = {"network": inside, "stitching": parts.pop("sliding window") - inside} | parts
    tiles = sum(network.calls for network in made)
    return JobResult(parts, lap.peaks_mb, whole_s - prepare_s, prepare_s, max(lap.peaks_mb.values()), tiles)


def networks(job: Job, threads: int, made: list[Timed], lap: Laps) -> Iterator[Timed]:
    """One after the other, each when it is needed, and let go of before the next is made."""
    sources = job.weights or ("",) * len(job.classes)
    for seed, (classes, source) in enumerate(zip(job.classes, sources, strict=True)):
        with lap("preparing"):
            network = build_volume(job.model, classes, zoo.TILE, seed, source)
            timed = Timed(prepared(network, job.mode, threads) if job.way == "optimised" else network.net, classes)
        del network
        made.append(timed)
        yield timed
        with lap("sliding window"):
            timed.let_go()


def prepared(network: nn.Module, name: str, threads: int) -> Callable[[Tensor], Tensor]:
    """A network under a mode, as a function of a tile."""
    mode = modes.MODES[name]
    runtime = runtimes.of_mode(mode)
    runtime.preload(mode)
    made = runtime.prepare(network, inputs.ct(zoo.TILE), mode, threads, machine.cache_folder())

    def call(tile: Tensor) -> Tensor:
        made.feed(tile)
        return made.outputs(made.call())[0]

    return call


if __name__ == "__main__":
    try:
        done = run(msgspec.json.decode(sys.argv[1], type=Job))
    except ValueError as error:  # weights that are not this network's
        sys.exit(f"segment.py: {error}")
    print(msgspec.json.encode(done).decode())
