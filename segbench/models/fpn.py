"""Semantic FPN in a simple form: a pyramid of 128 channels, of which the finest level is read out."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 128
STRIDE = 4  # of the finest level


class SemanticFPN(nn.Module):
    """C2 to C5 (strides 4, 8, 16, 32) -> logits (B, classes, H, W) at four times C2's size.

    After "Panoptic Feature Pyramid Networks" (Kirillov et al. 2019, arXiv 1901.02446), with half its channels and
    without its branch that sums all levels. As the feature pyramid has it, every level owns a smoothing convolution
    (`smooth`); the output needs that of P2 alone, so `smooth.1` to `smooth.3` are weights that inference never uses.
    """

    def __init__(self, channels: list[int], classes: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(count, WIDTH, 1) for count in channels[-4:])
        self.smooth = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in self.lateral)
        self.head = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(WIDTH, classes, 1),
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        return F.interpolate(self.trunk(features), scale_factor=float(STRIDE), mode="bilinear")

    def trunk(self, features: list[Tensor]) -> Tensor:
        """All but the upsampling at the end: (B, classes, H/4, W/4)."""
        *finer, coarsest = [lateral(level) for lateral, level in zip(self.lateral, features[-4:], strict=True)]
        x = coarsest  # (B, 128, H/32, W/32)
        for level in reversed(finer):
            x = level + F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.head(self.smooth[0](x))

    def fused_argmax(self, threads: int) -> Callable[[Tensor], Tensor]:
        """What makes labels (B, H, W) of the output of `trunk` without writing the upsampled logits."""
        from ..kernels import labels

        return lambda logits: labels.upsample_labels(logits, STRIDE, threads)
