"""A task like a CT's, generated: large and small organs, lesions, vessels and thin walls in noise.

Slice number `n` is always the same, whatever was made before it. Its number says whether it is for training, for
calibration or held out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage import draw

if TYPE_CHECKING:
    from torch import Tensor

NOISE, BLUR = 0.35, 0.6  # standard deviations: of the noise, and of the point spread in pixels
CALIBRATION = 500_000  # first number of the slices by which INT8 chooses its ranges
HELD_OUT = 1_000_000  # first number of the slices that are never trained on


def ellipse(side: int, chance: np.random.Generator, radii: tuple[float, float]) -> np.ndarray:
    """(side, side), bool: an ellipse somewhere in the body; radii in shares of the image's side."""
    centre = chance.uniform(0.25, 0.75, 2) * side
    axes = chance.uniform(*radii, 2) * side
    mask = np.zeros((side, side), dtype=bool)
    mask[draw.ellipse(*centre, *axes, shape=mask.shape, rotation=chance.uniform(-np.pi, np.pi))] = True
    return mask


def wall(side: int, chance: np.random.Generator) -> np.ndarray:
    """A closed wall of two pixels at 256x256, as of a bowel: an ellipse without a smaller one inside it."""
    centre, radii = chance.uniform(0.25, 0.75, 2) * side, chance.uniform(0.06, 0.14, 2) * side
    rotation, mask = chance.uniform(-np.pi, np.pi), np.zeros((side, side), dtype=bool)
    mask[draw.ellipse(*centre, *radii, shape=mask.shape, rotation=rotation)] = True
    mask[draw.ellipse(*centre, *(radii - side / 128), shape=mask.shape, rotation=rotation)] = False
    return mask


def vessel(side: int, chance: np.random.Generator) -> np.ndarray:
    """A bent tube of three to five pixels at 256x256."""
    ends, mask = chance.uniform(0.15, 0.85, (3, 2)) * side, np.zeros((side, side), dtype=bool)
    t = np.linspace(0, 1, 4 * side)[:, None]
    path = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * ends[1] + t**2 * ends[2]  # a quadratic Bezier curve
    width = chance.uniform(3, 5) * side / 256
    rows, columns = np.ogrid[:side, :side]
    for row, column in path[:: max(1, side // 64)]:
        mask |= (rows - row) ** 2 + (columns - column) ** 2 <= (width / 2) ** 2
    return mask


# Name of a class, its mean in the image (air is -1, the body 0), how many a slice has at least and at most, and what
# draws one. Later classes are drawn over earlier ones.
SHAPES = (
    ("large organ", 0.35, (1, 2), partial(ellipse, radii=(0.1, 0.22))),
    ("small organ", -0.3, (2, 4), partial(ellipse, radii=(0.04, 0.09))),
    ("thin wall", 0.6, (1, 3), wall),
    ("vessel", 0.9, (2, 4), vessel),
    ("lesion", -0.7, (2, 6), partial(ellipse, radii=(0.01, 0.025))),
)
CLASSES = ("background", *(name for name, *_ in SHAPES))


def make(number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Slice `number`: an image (side, side), FP32, of about mean 0 and standard deviation 1, and its labels, uint8."""
    chance = np.random.default_rng(number)
    body = np.zeros((side, side), dtype=bool)
    body[draw.ellipse(side / 2, side / 2, 0.42 * side, 0.46 * side, shape=body.shape)] = True
    image, labels = np.where(body, 0.0, -1.0), np.zeros((side, side), dtype=np.uint8)
    for label, (_, mean, (least, most), shape) in enumerate(SHAPES, start=1):
        for _ in range(chance.integers(least, most + 1)):
            where = shape(side, chance) & body
            image[where], labels[where] = mean, label
    image = gaussian_filter(image, BLUR) + gaussian_filter(chance.normal(0, 2 * NOISE, image.shape), BLUR)
    return (2 * image).astype(np.float32), labels


def batch(numbers: Iterable[int], side: int) -> tuple[Tensor, Tensor]:
    """Images (B, 1, side, side) and labels (B, side, side), int64."""
    import torch

    images, labels = zip(*(make(number, side) for number in numbers), strict=True)
    return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(labels)).long()
