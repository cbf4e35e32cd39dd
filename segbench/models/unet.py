"""UNet's decoder on the feature maps of any encoder."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

WIDTHS = (256, 128, 64, 32)


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNetDecoder(nn.Module):
    """C1 to C5 (strides 2, 4, 8, 16, 32) -> logits (B, classes, H, W) at twice C1's size.

    After "U-Net" (Ronneberger et al. 2015, arXiv 1505.04597), figure 1: upsampling by a transposed convolution,
    concatenation with the skip, two convolutions; here padded, with batch norm, and 256 to 32 channels. An encoder that
    starts at stride 4 has no C1: the step to stride 2 then has no skip.
    """

    def __init__(self, channels: list[int], classes: int):
        super().__init__()
        *skips, inputs = channels
        skips = [0] * (len(WIDTHS) - len(skips)) + skips
        self.up, self.convs = nn.ModuleList(), nn.ModuleList()
        for width, skip in zip(WIDTHS, reversed(skips), strict=True):
            self.up.append(nn.ConvTranspose2d(inputs, width, 2, stride=2))
            self.convs.append(double_conv(width + skip, width))
            inputs = width
        self.last = nn.ConvTranspose2d(inputs, inputs, 2, stride=2)
        self.head = nn.Conv2d(inputs, classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.head(self.last(self.trunk(features)))  # (B, classes, H, W)

    def trunk(self, features: list[Tensor]) -> Tensor:
        """All but the last transposed convolution and the head, which are linear: (B, 32, H/2, W/2)."""
        *skips, x = features  # (B, C5, H/32, W/32)
        for up, convs in zip(self.up, self.convs, strict=True):
            x = up(x)
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
            x = convs(x)  # (B, 256, H/16, W/16) ... (B, 32, H/2, W/2)
        return x

    def fused_argmax(self, threads: int) -> Callable[[Tensor], Tensor]:
        """What makes labels (B, H, W) of the output of `trunk` without writing the logits."""
        from ..kernels import labels

        weight, bias = folded(self.last, self.head)
        return lambda features: labels.head_labels(features, weight, bias, threads)


def folded(up: nn.ConvTranspose2d, head: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight (K, C, s, s) and bias (C) of the one transposed convolution that computes what a transposed convolution
    and a 1x1 convolution behind it do: both are linear, so their product is taken once, as RepVGG does with its
    branches (Ding et al. 2021, arXiv 2101.03697, section 3.3)."""
    mixing = head.weight[:, :, 0, 0].double()
    weight = torch.einsum("cm,kmyx->kcyx", mixing, up.weight.double())
    return weight.float(), (head.bias + mixing @ up.bias.double()).float()
