"""What the networks look at."""

from functools import cache

import numpy as np
import skimage.data
import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Channel means and standard deviations of ImageNet's training images, as timm's IMAGENET_DEFAULT_MEAN and _STD.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@cache
def astronaut() -> np.ndarray:
    """(512, 512, 3), uint8. Decoding it takes 0.6 s: the server does so once, before it forks."""
    return np.array(skimage.data.astronaut())


def photograph(size: tuple[int, int], batch_size: int = 1) -> Tensor:
    """The 512x512 astronaut of scikit-image (NASA, public domain), normalised, `batch_size` times: (B, 3, H, W), FP32.

    A photograph, not noise: its statistics are those that networks meet, so activations are as sparse as in use.
    """
    image = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    image = (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    if tuple(size) != tuple(image.shape[2:]):
        image = interpolate(image, size=tuple(size), mode="bilinear", antialias=True)
    return image.repeat(batch_size, 1, 1, 1)
