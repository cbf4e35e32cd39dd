"""From logits to a map of labels, without the full-resolution logits in between.

What a decoder or a sliding window ends with is linear: interpolation, or a transposed convolution with a 1x1 head
behind it. Frameworks write its whole output, 117 maps of the image's size, and then read it again for argmax. Here
every pixel's values live only until its label is known: a row of pixels is computed class by class, and beside the
largest value so far stays its class, as a float, so that vectors of both are alike.

Inputs are torch tensors or numpy arrays, FP32, BF16 or FP16, with any strides (NCHW, NHWC and others); the labels are
of the same library: uint8 up to 256 classes, then int16. A tie goes to the lower class. Values beyond 1e38 count as
1e38. NaN counts as the lowest value, and so does what is interpolated from it; where all values are NaN the label is 0.
Numba compiles the kernels at the first import, which takes some seconds, and keeps them on disk where it can write.
Needs numpy and numba alone. Processes that fork, before or after the first call, can go on calling.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit

LOWEST, HIGHEST = np.float32(-1e38), np.float32(1e38)  # what values are clipped to: their differences are finite
ONE, TWO, THREE = (np.float32(number) for number in (1, 2, 3))
PIXELS = 256  # that the head computes at a time: 32 channels of them are 32 KB, what the first-level cache holds
LANES = 16  # values of a vector of AVX-512: rows are as long as a whole number of them, and begin at one
# By how much to shift the bits of a dtype to have those of FP32. FP16 then lacks a factor, for its exponent is biased
# by 15 and not by 127 (IEEE 754), and its sign is three places too low.
SHIFTS = {"float32": 0, "bfloat16": 16, "float16": 13}
HALF, HALF_FACTOR, HALF_INFINITE = np.uint32(SHIFTS["float16"]), np.float32(2.0**112), np.float32(2.0**16)
HALF_SIGN, HALF_MAGNITUDE, THREE_BITS = np.uint32(0x10000000), np.uint32(0x0FFFFFFF), np.uint32(3)
PIECES = 2  # of the work per thread, so that one that is slower does less; each needs scratch of its own
DTYPES = ("u1", "i2")  # of labels


def upsample_labels(logits: Any, factor: int, threads: int = 0) -> Any:
    """argmax over the classes of bilinearly upsampled logits: (B, C, H, W) -> (B, factor * H, factor * W).

    Half-pixel centres, as torch's interpolate with align_corners=False. `threads`: 0 for all that this process may use.
    Raises ValueError for other shapes and factors, TypeError for other dtypes.
    """
    bits, shift = as_bits(logits, 4)
    if factor < 1 or factor != int(factor):
        raise ValueError(f"a factor of {factor} is no upsampling by whole numbers")
    height, width = (int(factor) * side for side in bits.shape[2:])
    labels = resampled(bits[:, :, None], shift, (1, height, width), threads)
    return like(logits, labels[:, 0])


def resample_labels(
    logits: Any,
    size: tuple[int, int, int],
    threads: int = 0,
    first: int = 0,
    depth: int = 0,
    out: np.ndarray | None = None,
) -> Any:
    """argmax over the classes of trilinearly resampled logits: (B, C, D, H, W) -> (B, *size), any ratio per axis.

    Half-pixel centres, as torch's interpolate with align_corners=False, but without smoothing where it gets smaller.
    A volume that is too large for memory comes in slabs: `logits` are then the planes from `first` of `depth`, and
    into `out`, (B, *size), go those planes of labels whose neighbours are both there; slabs overlap by one plane.
    Raises ValueError for other shapes and sizes, TypeError for other dtypes.
    """
    bits, shift = as_bits(logits, 5)
    if len(size) != 3 or min(size) < 1:
        raise ValueError(f"{size} is no size of a volume")
    if first < 0 or first + bits.shape[2] > (depth or bits.shape[2]):
        raise ValueError(f"planes {first} to {first + bits.shape[2] - 1} are not within a depth of {depth}")
    if out is None and bits.shape[2] < (depth or bits.shape[2]):
        raise ValueError("a slab of a volume needs an out for its labels")
    wanted = (bits.shape[0], *size)
    if out is not None and (out.shape != wanted or out.dtype != dtype_of(bits.shape[1]) or not out.flags.writeable):
        raise ValueError(f"out is {out.dtype} {out.shape}, wanted is {dtype_of(bits.shape[1])} {wanted}, writable")
    return like(logits, resampled(bits, shift, tuple(size), threads, first, depth, out))


def head_labels(features: Any, weight: Any, bias: Any, threads: int = 0) -> Any:
    """argmax over the classes of a transposed convolution whose kernel is its stride: (B, K, H, W) -> (B, s*H, s*W).

    `weight` (K, C, s, s) and `bias` (C) as torch.nn.ConvTranspose2d has them. A transposed convolution with a 1x1
    convolution behind it is such a one again (models.unet.folded). Raises ValueError for shapes that do not fit.
    """
    bits, shift = as_bits(features, 4)
    weight, bias = as_fp32(weight), as_fp32(bias)
    if weight.ndim != 4 or weight.shape[0] != bits.shape[1] or weight.shape[2] != weight.shape[3]:
        raise ValueError(f"a weight of {weight.shape} does not fit features of {bits.shape}: (K, C, s, s) is wanted")
    inputs, classes, stride, _ = weight.shape
    if bias.shape != (classes,):
        raise ValueError(f"a bias of {bias.shape} does not fit {classes} classes")
    # Classes in threes, channels in eights: what is added changes nothing.
    filled = np.zeros((stride, stride, classes + -classes % 3, inputs + -inputs % 8), np.float32)
    filled[:, :, :classes, :inputs] = weight.transpose(2, 3, 1, 0)
    biases = np.full(filled.shape[2], -np.inf, np.float32)
    biases[:classes] = bias
    batch, _, height, width = bits.shape
    labels = empty_labels((batch, stride * height, stride * width), classes)

    def work(b: int, low: int, high: int) -> None:
        values = aligned((filled.shape[3], PIXELS))
        scratch = (aligned((PIXELS,)) for _ in range(5))
        head_rows(bits, shift, b, low, high, filled, biases, values, *scratch, labels)

    in_pieces(work, batch, height, threads)
    return like(features, labels)


def as_bits(values: Any, dimensions: int) -> tuple[np.ndarray, np.uint32]:
    """The values as unsigned integers in the same memory, and by how much to shift these to have an FP32's bits."""
    if len(values.shape) != dimensions or 0 in values.shape[1:]:
        raise ValueError(f"{tuple(values.shape)} is not of {dimensions} dimensions with something in each")
    name = str(values.dtype).removeprefix("torch.")
    if name not in SHIFTS:
        raise TypeError(f"labels are made of {', '.join(SHIFTS)}, not of {name}")
    if hasattr(values, "detach"):
        import torch

        values = values.detach().view(torch.int32 if name == "float32" else torch.int16).numpy()
    bits = values.view(np.uint32 if name == "float32" else np.uint16)
    bits = bits if bits.flags.writeable else bits.copy()  # the kernels are compiled for arrays that can be written
    return bits, np.uint32(SHIFTS[name])


def as_fp32(values: Any) -> np.ndarray:
    """Of a parameter of a network, too, and of any precision."""
    return np.asarray(values.detach().float() if hasattr(values, "detach") else values, np.float32)


def like(given: Any, labels: np.ndarray) -> Any:
    """As an array of the library that the input is of."""
    if not hasattr(given, "detach"):
        return labels
    import torch

    return torch.from_numpy(labels)


def empty_labels(shape: tuple[int, ...], classes: int) -> np.ndarray:
    return np.empty(shape, dtype_of(classes))


def dtype_of(classes: int) -> np.dtype:
    """Raises ValueError for more classes than the largest holds."""
    for dtype in DTYPES:
        if classes - 1 <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    raise ValueError(f"{classes} classes are more than {np.iinfo(DTYPES[-1]).max + 1}")


def aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, FP32, that begin at a cache line: a vector that crosses two takes twice as long to load."""
    count = int(np.prod(shape))
    values = np.zeros(count + LANES, np.float32)
    start = -values.ctypes.data % (4 * LANES) // 4
    return values[start : start + count].reshape(shape)


@cache
def pool(threads: int, process: int) -> ThreadPoolExecutor:
    """One of a process's own: a fork has none of the threads."""
    return ThreadPoolExecutor(threads)


def in_pieces(work: Callable[[int, int, int], None], batch: int, rows: int, threads: int) -> None:
    """Call work(image, low, high) for all rows of all images. Threads sleep when there is none: a pool of OpenMP's
    would spin beside the one of the network."""
    if threads < 0:
        raise ValueError(f"{threads} threads cannot work")
    threads = threads or len(os.sched_getaffinity(0))
    edges = np.linspace(0, rows, min(PIECES * threads, rows) + 1).astype(int) if threads > 1 else np.array([0, rows])
    pieces = [(b, low, high) for b in range(batch) for low, high in pairwise(edges)]
    if threads == 1:
        for piece in pieces:
            work(*piece)
    else:
        list(pool(threads, os.getpid()).map(lambda piece: work(*piece), pieces))


def cells(inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the outputs of an axis lie between the centres of its inputs. Cell i is between inputs i-1 and i, 0 before
    the first and `inputs` behind the last; cell i has the outputs from starts[i] to starts[i+1]. And the share of the
    upper neighbour in every output."""
    places = (np.arange(outputs) + 0.5) * inputs / outputs - 0.5
    lower = np.floor(places)
    starts = np.searchsorted(lower, np.arange(-1, inputs + 1))
    starts[-1] = outputs
    outside = (lower < 0) | (lower >= inputs - 1)
    return starts, np.where(outside, 0, places - lower).astype(np.float32)


def resampled(
    bits: np.ndarray,
    shift: np.uint32,
    size: tuple[int, ...],
    threads: int,
    first: int = 0,
    depth: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    batch, classes, planes, *sides = bits.shape
    depth = depth or planes
    z_starts, z_shares = cells(depth, size[0])
    (y_starts, y_shares), (x_starts, x_shares) = (cells(*pair) for pair in zip(sides, size[1:], strict=True))
    z_lower = (np.repeat(np.arange(depth + 1), np.diff(z_starts)) - 1).clip(0, depth - 1)
    # Output planes whose neighbours are both in this slab: cells from `first` to its last plane, and those at the ends.
    z_begin = z_starts[first + 1] if first else 0
    z_end = z_starts[first + planes] if first + planes < depth else size[0]
    # The n-th output of every cell at once: so neighbours in memory are computed together, whatever the ratio.
    counts = np.diff(x_starts)
    shares = np.zeros((counts.max(), len(counts)), np.float32)
    for n in range(len(shares)):
        there = np.flatnonzero(counts > n)
        shares[n, there] = x_shares[x_starts[there] + n]
    labels = empty_labels((batch, *size), classes) if out is None else out
    tables = (z_begin, z_end, z_lower - first, z_shares, y_starts, y_shares, x_starts, shares)
    pixels, tallest = shares.size + -shares.size % LANES, int(np.diff(y_starts).max())

    def work(b: int, low: int, high: int) -> None:
        planes = aligned((2, classes, sides[1] + 2))
        across = aligned((2, classes + -classes % 4, pixels))
        across[:, classes:] = LOWEST
        best, label = aligned((tallest, pixels)), aligned((tallest, pixels))
        interpolated_rows(bits, shift, b, low, high, *tables, planes, across, best, label, labels)

    in_pieces(work, batch, sides[0] + 1, threads)
    return labels


def kernel(signatures: list[str], **options: Any) -> Callable[[Callable], Callable]:
    """Compile for these types; what was compiled before is on disk, except where nothing can be written or read."""

    def compiled(function: Callable) -> Callable:
        try:
            return njit(signatures, nogil=True, cache=True, **options)(function)
        except (
            Exception
        ):  # no such place, a full disk, a file that is cut off; an error of the kernel itself comes again
            return njit(signatures, nogil=True, **options)(function)

    return compiled


@kernel(["(f4[:,::1], i8, i8, i8)"])
def complete_halves(values, rows, low, high):
    """FP16 that were only shifted, in the columns from `low` to `high` -> FP32: the sign goes to its place, and the
    exponent grows by the difference of the biases. All bits of an exponent mean infinity, or with a further bit NaN."""
    bits = values.view(np.uint32)
    for c in range(rows):
        for x in range(low, high):
            sign = (bits[c, x] & HALF_SIGN) << THREE_BITS
            bits[c, x] &= HALF_MAGNITUDE
            value = values[c, x] * HALF_FACTOR
            if value >= HALF_INFINITE:
                value = np.float32(np.inf) if value == HALF_INFINITE else np.float32(np.nan)
            values[c, x] = value
            bits[c, x] |= sign


@kernel(["(u4[:,:], u4, f4[:,::1])", "(u2[:,:], u4, f4[:,::1])"])
def load(row, shift, values):
    """(C, W) of any strides -> (C, W + 2) planes of finite values, with the first and the last one twice."""
    channels, width = row.shape
    bits = values.view(np.uint32)
    if row.strides[0] < row.strides[1]:
        for x in range(width):
            for c in range(channels):
                bits[c, x + 1] = np.uint32(row[c, x]) << shift
    else:
        for c in range(channels):
            for x in range(width):
                bits[c, x + 1] = np.uint32(row[c, x]) << shift
    if shift == HALF:
        complete_halves(values, channels, 1, width + 1)
    for c in range(channels):
        for x in range(1, width + 1):
            value = values[c, x]
            value = value if value > LOWEST else LOWEST  # NaN too
            values[c, x] = value if value < HIGHEST else HIGHEST
        values[c, 0], values[c, width + 1] = values[c, 1], values[c, width]


@kernel(
    [
        f"(u{size}[:,:,:,:,:], u4, i8, i8, i8, i8, i8, i8[::1], f4[::1], i8[::1], f4[::1], i8[::1], f4[:,::1], "
        f"f4[:,:,::1], f4[:,:,::1], f4[:,::1], f4[:,::1], {labels}[:,:,:,:])"
        for size in (4, 2)
        for labels in DTYPES
    ],
    fastmath={"contract"},
)
def interpolated_rows(
    source,
    shift,
    b,
    low,
    high,
    z_begin,
    z_end,
    z_lower,
    z_shares,
    y_starts,
    y_shares,
    x_starts,
    x_shares,
    planes,
    across,
    best,
    label,
    labels,
):
    """Labels of image b in the cells from `low` to `high` of the y axis.

    Scratch: planes (2, C, W + 2), one row of all classes in the planes below and above; across (2, C, pixels), rows
    that are as wide as the output, C divisible by 4; best and label (rows, pixels), the largest value and its class.
    No views of arrays in the inner loops: Numba would count their references, which takes longer than the arithmetic.
    """
    channels, _, height, width = source.shape[1:]
    most, count = x_shares.shape
    classes, pixels = across.shape[1:]
    holds = np.empty(2, np.int64)  # which rows `across` has
    for z in range(z_begin, z_end):
        holds[:] = -1
        lower, v = z_lower[z], z_shares[z]
        for j in range(low, high):
            first, count_y = y_starts[j], y_starts[j + 1] - y_starts[j]
            if count_y == 0:
                continue
            top, bottom = max(j - 1, 0), min(j, height - 1)
            for y in range(top, bottom + 1):
                if holds[y % 2] == y:
                    continue
                holds[y % 2] = y
                load(source[b, :, lower, y], shift, planes[0])
                if v > 0:
                    load(source[b, :, lower + 1, y], shift, planes[1])
                    for c in range(channels):
                        for x in range(width + 2):
                            planes[0, c, x] += v * (planes[1, c, x] - planes[0, c, x])
                for c in range(channels):
                    for n in range(most):
                        for i in range(count):
                            step = planes[0, c, i + 1] - planes[0, c, i]
                            across[y % 2, c, n * count + i] = planes[0, c, i] + x_shares[n, i] * step
            t, u = top % 2, bottom % 2
            for r in range(count_y):
                for k in range(pixels):
                    best[r, k], label[r, k] = -np.inf, 0
            for c in range(0, classes, 4):  # four at a time: the largest of them is compared with that so far
                c0 = np.float32(c)
                c1, c2, c3 = c0 + ONE, c0 + TWO, c0 + THREE
                for r in range(count_y):
                    w = y_shares[first + r]
                    for k in range(pixels):
                        v0 = across[t, c, k] + w * (across[u, c, k] - across[t, c, k])
                        v1 = across[t, c + 1, k] + w * (across[u, c + 1, k] - across[t, c + 1, k])
                        v2 = across[t, c + 2, k] + w * (across[u, c + 2, k] - across[t, c + 2, k])
                        v3 = across[t, c + 3, k] + w * (across[u, c + 3, k] - across[t, c + 3, k])
                        left, right = v1 if v1 > v0 else v0, v3 if v3 > v2 else v2
                        place = c1 if v1 > v0 else c0
                        place = (c3 if v3 > v2 else c2) if right > left else place
                        value = right if right > left else left
                        label[r, k] = place if value > best[r, k] else label[r, k]
                        best[r, k] = value if value > best[r, k] else best[r, k]
            for r in range(count_y):
                for i in range(count):
                    for n in range(x_starts[i + 1] - x_starts[i]):
                        labels[b, z, first + r, x_starts[i] + n] = int(label[r, n * count + i])


@kernel(
    [
        f"(u{size}[:,:,:,:], u4, i8, i8, i8, f4[:,:,:,::1], f4[::1], f4[:,::1], "
        f"f4[::1], f4[::1], f4[::1], f4[::1], f4[::1], {labels}[:,:,:])"
        for size in (4, 2)
        for labels in DTYPES
    ],
    fastmath={"contract"},
)
def head_rows(source, shift, b, low, high, weight, bias, values, one, two, three, best, label, labels):
    """Labels that the rows from `low` to `high` of image b give. weight (s, s, C, K), C divisible by 3, K by 8: eight
    channels of three classes at a time keep the weights in registers. Scratch: values (K, PIXELS), the
    features; (PIXELS) each, the values of three classes, the largest value and its class."""
    channels, width = source.shape[1], source.shape[3]
    stride, _, classes, inputs = weight.shape
    bits = values.view(np.uint32)
    for y in range(low, high):
        for x0 in range(0, width, PIXELS):
            there = min(PIXELS, width - x0)
            for x in range(there):
                for k in range(channels):
                    bits[k, x] = np.uint32(source[b, k, y, x0 + x]) << shift
            if shift == HALF:
                complete_halves(values, channels, 0, there)
            for dy in range(stride):
                for dx in range(stride):
                    for x in range(PIXELS):
                        best[x], label[x] = -np.inf, 0
                    for c in range(0, classes, 3):
                        for x in range(PIXELS):
                            one[x], two[x], three[x] = bias[c], bias[c + 1], bias[c + 2]
                        for k in range(0, inputs, 8):
                            a0, b0, d0 = weight[dy, dx, c, k], weight[dy, dx, c + 1, k], weight[dy, dx, c + 2, k]
                            a1, b1, d1 = (
                                weight[dy, dx, c, k + 1],
                                weight[dy, dx, c + 1, k + 1],
                                weight[dy, dx, c + 2, k + 1],
                            )
                            a2, b2, d2 = (
                                weight[dy, dx, c, k + 2],
                                weight[dy, dx, c + 1, k + 2],
                                weight[dy, dx, c + 2, k + 2],
                            )
                            a3, b3, d3 = (
                                weight[dy, dx, c, k + 3],
                                weight[dy, dx, c + 1, k + 3],
                                weight[dy, dx, c + 2, k + 3],
                            )
                            a4, b4, d4 = (
                                weight[dy, dx, c, k + 4],
                                weight[dy, dx, c + 1, k + 4],
                                weight[dy, dx, c + 2, k + 4],
                            )
                            a5, b5, d5 = (
                                weight[dy, dx, c, k + 5],
                                weight[dy, dx, c + 1, k + 5],
                                weight[dy, dx, c + 2, k + 5],
                            )
                            a6, b6, d6 = (
                                weight[dy, dx, c, k + 6],
                                weight[dy, dx, c + 1, k + 6],
                                weight[dy, dx, c + 2, k + 6],
                            )
                            a7, b7, d7 = (
                                weight[dy, dx, c, k + 7],
                                weight[dy, dx, c + 1, k + 7],
                                weight[dy, dx, c + 2, k + 7],
                            )
                            for x in range(PIXELS):
                                v0, v1, v2, v3 = values[k, x], values[k + 1, x], values[k + 2, x], values[k + 3, x]
                                v4, v5, v6 = values[k + 4, x], values[k + 5, x], values[k + 6, x]
                                v7 = values[k + 7, x]
                                first = a0 * v0 + a1 * v1 + a2 * v2 + a3 * v3 + a4 * v4 + a5 * v5 + a6 * v6 + a7 * v7
                                second = b0 * v0 + b1 * v1 + b2 * v2 + b3 * v3 + b4 * v4 + b5 * v5 + b6 * v6 + b7 * v7
                                third = d0 * v0 + d1 * v1 + d2 * v2 + d3 * v3 + d4 * v4 + d5 * v5 + d6 * v6 + d7 * v7
                                one[x] += first
                                three[x] += third
                                two[x] += second
                        c0 = np.float32(c)
                        c1 = c0 + ONE
                        c2 = c0 + TWO
                        for x in range(PIXELS):
                            value, place = best[x], label[x]
                            place = c0 if one[x] > value else place
                            value = one[x] if one[x] > value else value
                            place = c1 if two[x] > value else place
                            value = two[x] if two[x] > value else value
                            label[x] = c2 if three[x] > value else place
                            best[x] = three[x] if three[x] > value else value
                    for x in range(there):
                        labels[b, stride * y + dy, stride * (x0 + x) + dx] = int(label[x])
