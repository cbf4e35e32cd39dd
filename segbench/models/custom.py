"""Networks that are not this project's: what a function of the user's returns."""

import importlib
import operator
import sys

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class CustomNetwork(nn.Module):
    """A network as it is, (B, C, H, W) or (B, C, D, H, W) -> a tuple of its tensors, whatever held them."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.encoder = network  # nothing is known of its parts

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in tree_leaves(self.encoder(image)) if isinstance(leaf, Tensor))


def build_custom(name: str, folder: str, seed: int = 0) -> CustomNetwork:
    """The network that `package.module:function` returns, in eval mode, its weights as they are. The module is one that
    is installed, or else lies in `folder`.

    Raises ImportError or AttributeError where there is no such function, TypeError where it returns something else, and
    whatever it raises.
    """
    module, _, function = name.partition(":")
    if folder not in sys.path:
        sys.path.append(folder)
    torch.manual_seed(seed)  # for one without trained weights
    network = operator.attrgetter(function)(importlib.import_module(module))()
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name} returned {type(network).__name__}, not a torch.nn.Module")
    return CustomNetwork(network).eval().requires_grad_(False)
