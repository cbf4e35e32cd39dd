"""A timm encoder with its classifier, and the calibration of random weights."""

from pathlib import Path

import timm
import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

from ..inputs import photograph
from ..models import states

CALIBRATION_SIZE = (512, 512)
MIN_VALUES = 16  # a variance of fewer values blows rounding up: relative error 0.87 in mobilenetv4's head with two
SHIFT = 2.0  # standard deviations by which a batch norm lifts its output over the activation's kink, see calibrate


class Encoder(nn.Module):
    """(B, in_chans, H, W) -> last feature map (B, C, h, w) or tokens (B, N, C), and logits (B, 1000)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @property
    def encoder(self) -> nn.Module:
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net.forward_features(x)
        last = features[-1] if isinstance(features, list | tuple) else features  # crossvit has a list of branches
        return last, self.net.forward_head(features)


def build_encoder(
    model: str,
    size: tuple[int, int],
    pretrained: bool = False,
    seed: int = 0,
    in_chans: int = 3,
    weights: Path | str = "",
) -> Encoder:
    """Any timm model, ready for inference at `size`. Random weights are calibrated; pretrained ones are timm's, or
    those of the file `weights`. Raises what timm raises, and ValueError for a state dict that is not its own."""
    torch.manual_seed(seed)
    net = create(model, size, pretrained=pretrained, in_chans=in_chans).eval()
    if weights:
        states.load(net, weights)
    elif not pretrained:
        calibrate(net, photograph(size if is_fixed(model) else CALIBRATION_SIZE, channels=in_chans))
    return Encoder(reparameterize_model(net)).eval().requires_grad_(False)


def is_fixed(model: str) -> bool:
    """Whether it is built for one size, as ViT and its kin are."""
    return bool(timm.get_pretrained_cfg(model).fixed_input_size)


def create(model: str, size: tuple[int, int], **how: object) -> nn.Module:
    """timm's model for that size. Raises ValueError where it takes squares alone, and what timm raises."""
    if not is_fixed(model):
        return timm.create_model(model, **how)
    try:
        return timm.create_model(model, img_size=tuple(size), **how)
    except TypeError:  # some take one number
        if size[0] != size[1]:
            raise ValueError(f"{model} is built for squares, not {size[0]}x{size[1]}") from None
        return timm.create_model(model, img_size=size[0], **how)


@torch.no_grad()
def calibrate(
    net: nn.Module, image: Tensor, keep: nn.Module | None = None, classifier: nn.Module | None = None
) -> None:
    """Set every batch norm's statistics to those of its input in one pass over `image` (B, C, H, W).

    Plain random weights scale the output by anything from 4e-8 (lcnet_100) to 8e+14 (mobileone_s0). Layers that see
    fewer than MIN_VALUES values a channel keep mean 0 and variance 1. Always at one image size, so that the weights
    follow from model and seed alone.

    Random batch-normalised networks with zero biases are chaotic: a small difference grows by a factor per layer (Yang
    et al. 2019, arXiv 1902.08129), over mobileone_s0 by 970, which turns BF16's rounding into a relative error of 0.8
    with nothing wrong. Trained ones are not, so the biases are set to SHIFT: 2.1 instead of 970 (notes.md).

    Nothing behind the `classifier` is calibrated, so it sees one pixel: 40,000 maps of `image` would be 40 GB.
    """
    trained = set(keep.modules()) if keep is not None else set()  # a part whose weights are not random
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m not in trained]
    momenta = [norm.momentum for norm in norms]
    foldable = [block for block in net.modules() if hasattr(block, "reparameterize")]
    branches = {module for block in foldable for module in block.modules()}

    def train_if_enough(norm: nn.Module, args: tuple[Tensor]) -> None:
        norm.train(args[0].numel() // args[0].shape[1] >= MIN_VALUES)

    hooks = [norm.register_forward_pre_hook(train_if_enough) for norm in norms]
    if classifier is not None:
        hooks.append(classifier.register_forward_pre_hook(lambda _, args: (args[0][..., :1, :1],)))
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become those of this pass
        # timm's norms hold the activation behind them. One without (a linear bottleneck) keeps its mean of 0: along a
        # residual path means would add up, and BF16 would spend its eight bits on them. Not so the branches of a block
        # that will be folded into one: their sum is what the activation sees.
        linear = isinstance(getattr(norm, "act", None), nn.Identity) and norm not in branches
        if norm.bias is not None and not linear:
            nn.init.constant_(norm.bias, SHIFT)
    net(image)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for hook in hooks:
        hook.remove()
    net.eval()
