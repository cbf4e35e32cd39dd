"""The optimised way: the same networks on the same tiles as the stock way, with a deployment runtime, resampling by
matrices, sums of the unfinished planes alone, and labels straight from logits (segbench/kernels/labels.py)."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.official.costs import resampled
from benchmarks.whole_ct.common import IMAGES, Laps, Timed, finish, merge, normalised, small
from benchmarks.whole_ct.jobs import Job
from segbench import zoo
from segbench.kernels.labels import resample_labels


def optimised(job: Job, volume: np.ndarray, lap: Laps, networks: Iterator[Timed]) -> np.ndarray:
    """Labels (D, H, W) of a volume (D, H, W), as job.as_in makes them."""
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
            network_image = normalised(image, job, number)
        for first, logits in slabs(job, network_image, network, lap):
            with lap("labels"):
                part = small(resample_labels(logits[None], tuple(logits.shape[1:]), threads)[0])
            with lap("labels merged"):
                merge(merged[first : first + len(part)], part, job.merge[number] if job.merge else ())
    with lap("labels resampled"):
        places = [nearest(count, wanted) for count, wanted in zip(size, volume.shape, strict=True)]
        return merged[places[0]][:, places[1]][:, :, places[2]]


def by_matrices(
    volume: np.ndarray, size: tuple[int, ...], resample: Callable[[np.ndarray, tuple], np.ndarray]
) -> Tensor:
    """A volume (D, H, W) resampled to `size` by splines. They are separable: what `resample` does to the columns of a
    unit matrix is what it does along an axis. A product with that matrix takes less time, and FP32 is enough."""
    values = torch.from_numpy(volume)
    for axis, (count, wanted) in enumerate(zip(volume.shape, size, strict=True)):
        if count != wanted:
            matrix = torch.from_numpy(resample(np.eye(count), (wanted, count)).astype(np.float32))
            values = torch.tensordot(matrix, values, dims=([1], [axis])).movedim(0, axis)
    return values.contiguous()


def nearest(count: int, wanted: int) -> np.ndarray:
    """Which of `count` values scipy's zoom takes for each of `wanted`: corners on corners."""
    places = np.arange(wanted) * ((count - 1) / max(wanted - 1, 1))
    return np.floor(places + 0.5).astype(np.int64)


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
        tile_area = (..., slice(y, y + height), slice(x, x + width))
        logits = network(image[None, None, z : z + depth, y : y + height, x : x + width])[0]
        sums[:, 1:][tile_area].addcmul_(logits, gaussian)
        weights[tile_area] += gaussian
        bar.update()

    def move(done: int) -> None:
        for class_sums in sums:  # one by one, as source and target overlap: a copy of all would take gigabytes
            class_sums[: depth + 1 - done] = class_sums[done:].clone()
            class_sums[depth + 1 - done :] = 0
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
