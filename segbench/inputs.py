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
    image = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    mean, std, grey = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD, GREY))
    if channels == 1:
        image, mean, std = (image * grey).sum(1, keepdim=True), mean.mean(), std.mean()
    else:
        colours = [channel % 3 for channel in range(channels)]
        image, mean, std = image[:, colours], mean[:, colours], std[:, colours]
    image = (image - mean) / std
    if tuple(size) != tuple(image.shape[2:]):
        image = interpolate(image, size=tuple(size), mode="bilinear", antialias=True)
    return image.repeat(batch_size, 1, 1, 1)


def picture(case: Case) -> Tensor:
    """What a case looks at: the photograph, or for three sides the synthetic CT."""
    if len(case.size) == 3:
        return ct(case.size, case.batch_size)
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


def ct(size: tuple[int, int, int], batch_size: int = 1, seed: int = 0) -> Tensor:
    """A synthetic chest and abdomen (B, 1, D, H, W), FP32: air, a body of soft tissue, organs as ellipsoids, noise.

    Normalised as nnU-Net does a CT ("nnU-Net", Isensee et al. 2021, Nature Methods 18, supplement): clipped to the 0.5
    and 99.5 % quantiles of the foreground, here the body, then z-scored with its mean and standard deviation.
    """
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in size), indexing="ij", sparse=True)
    volume = np.full(size, AIR, dtype=np.float32)
    body = np.zeros(size, dtype=bool)
    for name, (centre, radii, units) in ORGANS.items():
        inside = sum(((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=True)) <= 1
        volume[inside] = units
        body = inside if name == "body" else body
    volume += np.random.default_rng(seed).normal(0, NOISE, size).astype(np.float32)
    seen = volume[body]
    low, high = np.quantile(seen, (0.005, 0.995))
    volume = (volume.clip(low, high) - seen.mean()) / seen.std()
    return torch.from_numpy(volume.astype(np.float32)).repeat(batch_size, 1, 1, 1, 1)
