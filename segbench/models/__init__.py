"""The networks. `build` is the one place that makes one from a case."""

from torch import nn

from ..cases import Case
from .encoder import build_encoder


def build(case: Case) -> nn.Module:
    """The network of a case in eval mode, FP32, reparameterised, with weights that keep activations in range.

    Its forward takes (B, 3, H, W) and returns a tuple of tensors: what is timed is what is checked.
    Raises RuntimeError or ValueError where timm cannot make the network at that size.
    """
    return build_encoder(case.model, case.size, case.pretrained, case.seed)
