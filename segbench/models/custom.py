"""A user's network: what a function of theirs returns."""

import importlib
import operator
import sys

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class CustomNetwork(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W) -> a tuple of the output's tensors, whatever structure held them."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.encoder = network  # its parts are unknown: it all counts as encoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in tree_leaves(self.encoder(image)) if isinstance(leaf, Tensor))


def build_custom(name: str, folder: str, seed: int = 0) -> CustomNetwork:
    """The network that `package.module:function` returns, in eval mode, with its weights unchanged. The module is
    installed or lies in `folder`.

    Raises ImportError or AttributeError where there is no such function, TypeError where it returns something else, and
    whatever the function raises.
    """
    module, _, function = name.partition(":")
    if folder not in sys.path:
        sys.path.append(folder)
    torch.manual_seed(seed)  # for one without trained weights
    network = operator.attrgetter(function)(importlib.import_module(module))()
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name} returned {type(network).__name__}, not a torch.nn.Module")
    return CustomNetwork(network).eval().requires_grad_(False)
