"""STU-Net: "Scalable and Transferable Medical Image Segmentation Models" (Huang et al. 2023, arXiv 2304.06716)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Variant(NamedTuple):
    width: int  # channels of the first stage
    blocks: int  # residual blocks per stage


# Table 1 of arXiv 2304.06716.
VARIANTS = {
    "stunet_s": Variant(16, 1),
    "stunet_b": Variant(32, 1),
    "stunet_l": Variant(64, 2),
    "stunet_h": Variant(96, 3),
}
FACTORS = (1, 2, 4, 8, 16, 16)  # widths of the six stages over the first


class ResidualBlock(nn.Module):
    """conv, norm, LeakyReLU, conv, norm, plus the skip, LeakyReLU; `conv3` projects the skip where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, project: bool = False):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm1 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.InstanceNorm3d(outputs, affine=True)
        self.conv3 = nn.Conv3d(inputs, outputs, 1, stride=stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.conv3 is None else self.conv3(x)
        x = F.leaky_relu(self.norm1(self.conv1(x)), 0.01)
        return F.leaky_relu(self.norm2(self.conv2(x)) + skip, 0.01)


class Upsample(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def stage(inputs: int, outputs: int, blocks: int, stride: int = 1) -> nn.Sequential:
    first = ResidualBlock(inputs, outputs, stride, project=True)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs) for _ in range(blocks - 1)))


class STUNet(nn.Module):
    """(B, 1, D, H, W), every side divisible by 32 -> logits (B, classes, D, H, W).

    Modules are named as in the released state dicts. Those hold a head per decoder level; inference needs the finest
    alone, `seg_outputs.4`. With `deep_supervision` all five are computed, as the authors do: a list, the finest first.
    """

    def __init__(self, width: int, blocks: int, classes: int, inputs: int = 1, deep_supervision: bool = False):
        super().__init__()
        self.deep_supervision = deep_supervision
        widths = [width * factor for factor in FACTORS]
        self.conv_blocks_context = nn.ModuleList(
            stage(before, after, blocks, stride=1 if level == 0 else 2)
            for level, (before, after) in enumerate(zip([inputs, *widths[:-1]], widths, strict=True))
        )
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))  # (from, to), the coarsest first
        self.upsample_layers = nn.ModuleList(Upsample(before, after) for before, after in steps)
        self.conv_blocks_localization = nn.ModuleList(stage(2 * after, after, blocks) for _, after in steps)
        self.seg_outputs = nn.ModuleList(nn.Conv3d(after, classes, 1) for _, after in steps)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        skips, outputs = [], []
        for blocks in self.conv_blocks_context:
            x = blocks(x)
            skips.append(x)
        skips.pop()
        steps = zip(self.upsample_layers, self.conv_blocks_localization, self.seg_outputs, strict=True)
        for upsample, blocks, head in steps:
            x = blocks(torch.cat([upsample(x), skips.pop()], dim=1))
            if self.deep_supervision:
                outputs.append(head(x))
        return outputs[::-1] if self.deep_supervision else self.seg_outputs[-1](x)
