"""A user's network: what a function of theirs returns."""

import contextlib
import dataclasses
import importlib
import operator
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class CustomNetwork(nn.Module):
    """(B, C, H, W) or (B, C, D, H, W) -> a tuple of the output's tensors, whatever structure held them."""

    def __init__(self, network: nn.Module, made_by: object = None):
        super().__init__()
        self.encoder = network  # its parts are unknown: it all counts as encoder
        self.made_by = made_by  # whose code is a part of what the network is

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensors(self.encoder(image)))


def tensors(output: object) -> Iterator[Tensor]:
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            yield leaf
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            yield from tensors([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])


def build_custom(name: str, folder: str, seed: int = 0, image: Tensor | None = None) -> CustomNetwork:
    """The network that `package.module:function` returns, in eval mode, with its weights unchanged. The module is
    installed or lies in `folder`. Layers that wait for their first input to be made are given `image`.

    Raises ImportError or AttributeError where there is no such function, TypeError where it returns something else, and
    whatever the function raises.
    """
    if folder not in sys.path:
        sys.path.append(folder)
    torch.manual_seed(seed)  # for one without trained weights
    try:
        make = function_of(name, folder)
        network = make()
    except SystemExit as error:
        raise RuntimeError(f"it calls sys.exit: {error.code}") from None
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name} returned {type(network).__name__}, not a torch.nn.Module")
    network = getattr(network, "_orig_mod", network)  # what torch.compile wraps: modes say what is compiled
    custom = CustomNetwork(network, make)
    with contextlib.suppress(NotImplementedError):  # what torch.export returned has one mode only
        custom.eval()
    if image is not None and any(map(nn.parameter.is_lazy, (*custom.parameters(), *custom.buffers()))):
        with torch.no_grad():
            custom(image)
    return custom.requires_grad_(False)


def function_of(name: str, folder: str) -> Callable[[], nn.Module]:
    """Raises ImportError or AttributeError where there is none."""
    path, _, function = name.partition(":")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if not f"{path}.".startswith(f"{error.name}."):
            raise
        raise ModuleNotFoundError(f"{error}: it is neither installed nor in {folder}") from None
    try:
        return operator.attrgetter(function)(module)
    except AttributeError:
        file = module.__file__ or path
        hint = "" if file.startswith(folder) else f" (if you mean a file in {folder}, give it another name)"
        raise AttributeError(f"{file} has no {function}{hint}") from None
