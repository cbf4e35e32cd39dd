"""The official 3D models by name."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..cases import sides
from ..models import states, stunet, totalsegmentator

OTHERS = {
    "totalsegmentator": totalsegmentator.plain_conv_unet,
    "totalsegmentator_small": totalsegmentator.small,
    "resenc": totalsegmentator.resenc,
    "segresnet": totalsegmentator.segresnet,
}
DEEPEST = {"segresnet": 8}  # voxels that one of the coarsest level spans; 32 for the others


class Volume(nn.Module):
    """(B, 1, D, H, W) -> one tensor, the logits (B, classes, D, H, W)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @property
    def encoder(self) -> nn.Module:
        return self

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.net(x),)


def check_size(model: str, size: tuple[int, ...]) -> None:
    """Raises ValueError for sides (D, H, W) that the network cannot halve as often as it has to, and for a volume of
    which a single voxel would be left: an instance norm of one value is 0."""
    deepest = DEEPEST.get(model, 32)
    if len(size) != 3 or any(side < 1 or side % deepest for side in size) or max(size) == deepest:
        raise ValueError(
            f"{model} takes D, H and W divisible by {deepest}, one of them larger than that, not {sides(size)}"
        )


def assemble(model: str, classes: int) -> nn.Module:
    """A network of zoo.VOLUMES with torch's random weights: instance norms keep its activations in range."""
    if model in stunet.VARIANTS:
        return stunet.STUNet(*stunet.VARIANTS[model], classes)
    return OTHERS[model](classes)


def build_volume(
    model: str, classes: int, size: tuple[int, int, int], seed: int = 0, weights: Path | str = ""
) -> Volume:
    """Ready for inference on (B, 1, *size). Raises ValueError where the network cannot take that, and where the state
    dict in `weights` is not its own."""
    check_size(model, size)
    torch.manual_seed(seed)
    net = assemble(model, classes)
    if weights:
        states.load(net, weights)
    return Volume(net).eval().requires_grad_(False)
