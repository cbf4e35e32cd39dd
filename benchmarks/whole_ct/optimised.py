"""The optimised way: the same networks on the same tiles as the stock way, with a deployment runtime, resampling by
matrices, sums of the unfinished planes alone, and labels straight from logits (segbench/kernels/labels.py)."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from msgspec.structs import asdict
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from scipy.ndimage import zoom
from skimage.transform import resize
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.whole_ct import common, scan
from benchmarks.whole_ct.common import Laps
from benchmarks.whole_ct.jobs import Job
from benchmarks.whole_ct.plans import Plans, Resampling
from segbench import inputs, machine, modes, runtimes
from segbench.kernels.labels import dtype_of, resample_labels

Network = Callable[[Tensor], Tensor]  # a tile (1, 1, D, H, W) to logits (1, C, D, H, W)


def optimised(job: Job, lap: Laps) -> np.ndarray:
    """Labels (D, H, W) in the order of the job's file, as job.as_in makes them."""
    with lap("resampling in"):
        canonical = job.as_in == "official" or job.plans[0].reader.endswith("WithReorient")
        values, spacing_mm = scan.read(job.volume, canonical)
    labels = as_official(job, values, spacing_mm, lap) if job.as_in == "official" else None
    if labels is None:
        with lap("preparing"):
            network = prepared(job, 0)
        labels = segmented(values, spacing_mm, job.plans[0], job.step, network, lap)
    return scan.undo_canonical(labels, job.volume) if canonical else labels


def as_official(job: Job, values: np.ndarray, spacing_mm: list[float], lap: Laps) -> np.ndarray:
    """Labels (D, H, W) as of TotalSegmentator, which resamples before and behind nnU-Net: each network sees whole
    Hounsfield units at its resolution, and labels are resampled."""
    shape, isotropic = values.shape, [job.resolution_mm] * 3
    with lap("resampling in"):
        if spacing_mm != isotropic:
            size = [round(count * mm / job.resolution_mm) for count, mm in zip(shape, spacing_mm, strict=True)]
            for axis in range(3):
                values = along(values, axis, zoom_matrix(shape[axis], size[axis], job.order))
            values = np.trunc(values)
    merged = np.zeros(values.shape, np.uint8)
    for number, plans in enumerate(job.plans):
        with lap("preparing"):
            network = prepared(job, number)
        labels = segmented(values, isotropic, plans, job.step, network, lap)
        with lap("sliding window"):
            network = None  # its memory goes back before the next takes some
        with lap("labels merged"):
            merge(merged, labels, job.merge[number] if job.merge else ())
    with lap("labels resampled"):
        return merged[np.ix_(*map(nearest, merged.shape, shape))] if spacing_mm != isotropic else merged


def prepared(job: Job, number: int) -> Network:
    """A network under the job's mode."""
    mode, network = modes.MODES[job.mode], common.network_of(job, number)
    runtime = runtimes.of_mode(mode)
    runtime.preload(mode)
    example = inputs.ct(job.plans[number].patch)
    prepared_network = runtime.prepare(network, example, mode, machine.usable_cores(), machine.cache_folder())

    def call(tile: Tensor) -> Tensor:
        prepared_network.feed(tile)
        return prepared_network.outputs(prepared_network.call())[0]

    return call


def segmented(
    values: np.ndarray, spacing_mm: list[float], plans: Plans, step: float, network: Network, lap: Laps
) -> np.ndarray:
    """Labels (D, H, W) as of nnU-Net: transposed, cropped to what is not 0, normalised, resampled, tiled, and back."""
    with lap("resampling in"):
        values = values.transpose(plans.transpose)
        spacing_mm = [spacing_mm[axis] for axis in plans.transpose]
        box = nonzero(values)
        image = normalised(values[box], plans)
        shape = image.shape
        size = tuple(int(side) for side in compute_new_shape(shape, spacing_mm, plans.spacing_mm))
        image = resampled(image, size, spacing_mm, list(plans.spacing_mm), plans.image)
    axis = plans.logits.separate_axis(list(plans.spacing_mm), spacing_mm) if size != shape else None
    apart = axis is not None and plans.logits.order_z == 0
    between = tuple(size[n] if apart and n == axis else side for n, side in enumerate(shape))
    classes, threads = len(plans.names), torch.get_num_threads()
    labels = np.empty((1, *between), dtype_of(classes))
    for first, logits in slabs(image, plans.patch, step, classes, network, lap):
        with lap("labels"):
            resample_labels(logits[None], between, threads, first, size[0], labels)
    with lap("labels"):
        labels = labels[0]
        if apart:  # the nearest of thick slices
            labels = labels.take(centred(size[axis], shape[axis]), axis)
        whole = np.zeros(values.shape, labels.dtype)
        whole[box] = labels
        return whole.transpose(plans.backward)


def nonzero(values: np.ndarray) -> tuple[slice, ...]:
    """The box (D, H, W) of what is not 0, as nnU-Net crops to; all of a volume of zeros."""
    mask, box = values != 0, []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(there[0], there[-1] + 1) if there.size else slice(0, values.shape[axis]))
    return tuple(box)


def normalised(image: np.ndarray, plans: Plans) -> np.ndarray:
    """By nnU-Net's own class, as the plans name it."""
    import nnunetv2.preprocessing.normalization.default_normalization_schemes as schemes

    seen = np.where(create_nonzero_mask(image[None]), 0, -1) if plans.masked else None
    known = asdict(plans.intensities) if plans.intensities else {}
    scheme = getattr(schemes, plans.scheme)(use_mask_for_norm=plans.masked, intensityproperties=known)
    return scheme.run(np.array(image, np.float32), seen)


def resampled(
    image: np.ndarray, size: tuple[int, ...], spacing_mm: list[float], wanted_mm: list[float], rule: Resampling
) -> Tensor:
    """An image (D, H, W) at another spacing, as nnU-Net's plans say: splines, which it cuts off at the extremes of the
    image, or slice by slice where slices are thick, and along these by splines of another order."""
    if image.shape == size:
        return torch.from_numpy(image)
    axis = rule.separate_axis(spacing_mm, wanted_mm)
    image = torch.from_numpy(image)
    within = tuple(n for n in range(3) if n != axis)
    low, high = image.amin(within, keepdim=True), image.amax(within, keepdim=True)
    for n in within:
        image = along(image, n, matrix(image.shape[n], size[n], rule.order))
    image = image.clamp(low, high)
    return (
        image if axis is None else along(image, axis, matrix(image.shape[axis], size[axis], rule.order_z)).contiguous()
    )


def along(values: Tensor | np.ndarray, axis: int, matrix: np.ndarray | None) -> Tensor | np.ndarray:
    """A product with a matrix along one axis. Splines are separable, and FP32 is enough."""
    if matrix is None:
        return values
    product = torch.tensordot(torch.from_numpy(matrix), torch.as_tensor(values), dims=([1], [axis])).movedim(0, axis)
    return product.numpy() if isinstance(values, np.ndarray) else product


def matrix(count: int, wanted: int, order: int) -> np.ndarray | None:
    """(wanted, count), FP32: what scikit-image's splines do along an axis; None where that is nothing."""
    if count == wanted:
        return None
    if order == 0:
        return np.eye(count, dtype=np.float32)[centred(count, wanted)]
    return resize(np.eye(count), (wanted, count), order, mode="edge", anti_aliasing=False, clip=False).astype(
        np.float32
    )


def zoom_matrix(count: int, wanted: int, order: int) -> np.ndarray | None:
    """(wanted, count), FP32: what scipy's zoom does along an axis; None where that is nothing."""
    if count == wanted:
        return None
    return zoom(np.eye(count), (wanted / count, 1), order=order, mode="nearest").astype(np.float32)


def centred(count: int, wanted: int) -> np.ndarray:
    """Which of `count` values is the nearest to each of `wanted`: voxels that fill the same length."""
    places = np.floor(count / wanted * (np.arange(wanted) + 0.5) - 0.5 + 0.5).astype(np.int64)
    return places.clip(0, count - 1)


def nearest(count: int, wanted: int) -> np.ndarray:
    """Which of `count` values scipy's zoom takes for each of `wanted`: corners on corners."""
    places = np.arange(wanted) * ((count - 1) / max(wanted - 1, 1))
    return np.floor(places + 0.5).astype(np.int64)


def merge(merged: np.ndarray, labels: np.ndarray, label_among_all: tuple[int, ...]) -> None:
    """As TotalSegmentator does: a later part wins wherever it has a label other than 0. Without `label_among_all`, the
    label of each of its classes among all, labels stay as they are."""
    table = np.array(label_among_all or range(256), np.uint8)
    renumbered = table[labels]
    np.copyto(merged, renumbered, where=renumbered != 0)


def slabs(
    image: Tensor, tile: tuple[int, ...], step: float, classes: int, network: Network, lap: Laps
) -> Iterator[tuple[int, Tensor]]:
    """The first plane and finished logits (C, d, H, W) of slab after slab; each but the first begins with the last
    plane of the one before. nnU-Net's tiles and weights; the accumulator is as deep as a tile."""
    size = image.shape
    before = [max(0, side - count) // 2 for side, count in zip(tile, size, strict=True)]  # as nnU-Net pads
    after = [max(0, side - count) - start for side, count, start in zip(tile, size, before, strict=True)]
    padding = [amount for pair in zip(before[::-1], after[::-1], strict=True) for amount in pair]
    image = nn.functional.pad(image, padding)
    z_steps, y_steps, x_steps = compute_steps_for_sliding_window(tuple(image.shape), tile, step)
    depth, height, width = tile
    with lap("sliding window"):
        gaussian = compute_gaussian(tile, 1 / 8, 10, device=torch.device("cpu")).float()
        sums = torch.zeros(classes, depth + 1, *image.shape[1:])  # the first plane is of the slab before
        weights = torch.zeros(depth, *image.shape[1:])
    inner = (slice(before[1], before[1] + size[1]), slice(before[2], before[2] + size[2]))
    bar = tqdm(total=len(z_steps) * len(y_steps) * len(x_steps), desc="tiles", mininterval=1)

    def add(z: int, y: int, x: int) -> None:
        tile_area = (..., slice(y, y + height), slice(x, x + width))
        with lap("network"):
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
        with lap("sliding window"):
            for y, x in product(y_steps, x_steps):
                add(z, y, x)
            done = z_steps[number + 1] - z if number + 1 < len(z_steps) else depth
            sums[:, 1 : done + 1].div_(weights[:done])
        begin, end = max(z - 1, 0) if number else before[0], min(z + done, before[0] + size[0])
        yield begin - before[0], sums[:, 1 + begin - z : 1 + end - z][(..., *inner)]
        if number + 1 < len(z_steps):
            with lap("sliding window"):
                move(done)
    bar.close()
