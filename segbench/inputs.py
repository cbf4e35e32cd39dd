"""What the networks look at."""

from functools import cache

import numpy as np
import skimage.data
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .cases import Case

# Channel means and standard deviations of ImageNet's training images, as timm's IMAGENET_DEFAULT_MEAN and _STD.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FURTHER = ("brick", "camera", "cat", "coffee", "coins", "grass", "immunohistochemistry", "moon", "retina", "rocket")
GREY = (0.299, 0.587, 0.114)  # luma of red, green and blue (Recommendation ITU-R BT.601)


@cache
def astronaut() -> np.ndarray:
    """(512, 512, 3), uint8. Decoding it takes 0.6 s: the server does so once, before it forks."""
    return np.array(skimage.data.astronaut())


def photograph(size: tuple[int, int], batch_size: int = 1, channels: int = 3) -> Tensor:
    """The 512x512 astronaut of scikit-image (NASA, public domain), normalised, `batch_size` times: (B, channels, H, W),
    FP32. One channel is grey; more than three are red, green and blue again, as timm repeats pretrained weights.

    A photograph, not noise: its statistics are those that networks meet, so activations are as sparse as in use.
    """
    return normalised(astronaut(), size, channels).repeat(batch_size, 1, 1, 1)


def normalised(picture: np.ndarray, size: tuple[int, int], channels: int = 3) -> Tensor:
    """(H, W, 3), uint8 -> (1, channels, *size), FP32, with ImageNet's mean 0 and standard deviation 1."""
    image = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    mean, std, grey = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD, GREY))
    if channels == 1:
        image, mean, std = (image * grey).sum(1, keepdim=True), mean.mean(), std.mean()
    else:
        colours = [channel % 3 for channel in range(channels)]
        image, mean, std = image[:, colours], mean[:, colours], std[:, colours]
    image = (image - mean) / std
    if tuple(size) != tuple(image.shape[2:]):
        image = interpolate(image, size=tuple(size), mode="bilinear", antialias=True)
    return image


def calibration(example: Tensor) -> list[Tensor]:
    """Inputs like `example`, (B, C, H, W) or (B, C, D, H, W), to choose the ranges of INT8 by: further pictures of
    scikit-image, or CTs with other noise; never the one that is measured."""
    batch_size, channels, *size = example.shape
    if len(size) == 3:
        return [ct(tuple(size), batch_size, channels, seed) for seed in (1, 2)]
    pictures = [np.array(getattr(skimage.data, name)())[..., :3] for name in FURTHER]
    coloured = [np.stack([array] * 3, axis=-1) if array.ndim == 2 else array for array in pictures]
    return [normalised(array, tuple(size), channels).repeat(batch_size, 1, 1, 1) for array in coloured]


def picture(case: Case) -> Tensor:
    """What a case looks at: the photograph, or for three sides the synthetic CT."""
    if len(case.size) == 3:
        return ct(case.size, case.batch_size, case.channels)
    return photograph(case.size, case.batch_size, case.channels)


# (centre, radii) in units of half a side, from head to feet, from back to front, from right to left; Hounsfield units.
ORGANS = {
    "body": ((0, 0, 0), (9, 0.7, 0.9), 40),
    "lungs": ((-0.9, 0.05, 0.42), (0.9, 0.42, 0.32), -800),
    "left lung": ((-0.9, 0.05, -0.42), (0.9, 0.42, 0.32), -800),
    "heart": ((-0.5, 0.2, -0.08), (0.35, 0.25, 0.25), 45),
    "liver": ((0.3, 0.1, 0.4), (0.4, 0.4, 0.4), 60),
    "spleen": ((0.25, -0.1, -0.6), (0.25, 0.25, 0.15), 50),
    "right kidney": ((0.6, -0.3, 0.35), (0.3, 0.14, 0.13), 30),
    "left kidney": ((0.55, -0.3, -0.35), (0.3, 0.14, 0.13), 30),
    "aorta": ((0, -0.25, -0.08), (9, 0.06, 0.06), 45),
    "spine": ((0, -0.48, 0), (9, 0.14, 0.13), 350),
    "spinal canal": ((0, -0.56, 0), (9, 0.04, 0.04), 30),
}
AIR, NOISE = -1000, 15  # Hounsfield units: outside the body, standard deviation


def hounsfield(size: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic chest and abdomen (D, H, W), FP32, in Hounsfield units: air, a body of soft tissue, organs as
    ellipsoids, noise; and which voxels are of the body."""
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in size), indexing="ij", sparse=True)
    volume = np.full(size, AIR, dtype=np.float32)
    body = np.zeros(size, dtype=bool)
    for name, (centre, radii, units) in ORGANS.items():
        inside = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) <= 1
        volume[inside] = units
        body = inside if name == "body" else body
    volume += np.random.default_rng(seed).normal(0, NOISE, size).astype(np.float32)
    return volume, body


def ct(size: tuple[int, int, int], batch_size: int = 1, channels: int = 1, seed: int = 0) -> Tensor:
    """The synthetic CT (B, C, D, H, W), FP32, the same in every channel.

    Normalised as nnU-Net does a CT ("nnU-Net", Isensee et al. 2021, Nature Methods 18, supplement): clipped to the 0.5
    and 99.5 % quantiles of the foreground, here the body, then z-scored with its mean and standard deviation.
    """
    volume, body = hounsfield(size, seed)
    seen = volume[body]
    low, high = np.quantile(seen, (0.005, 0.995))
    volume = (volume.clip(low, high) - seen.mean()) / seen.std()
    return torch.from_numpy(volume.astype(np.float32)).repeat(batch_size, channels, 1, 1, 1)
