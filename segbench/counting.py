"""Parameters, multiply-adds and activations of a network, without running it: on torch's meta device."""

import copy
import weakref
from functools import partial
from typing import NamedTuple

import torch
from timm.utils import reparameterize_model
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .models import segmenter, volume
from .models.encoder import create
from .models.stunet import STUNet
from .zoo import VOLUMES

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)


class Alive(TorchDispatchMode):
    """Bytes of the tensors that are alive at a time, those made before it left out; `peak` is the most."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self.storages:
                    self.storages[id(storage)] = storage.nbytes()
                    weakref.finalize(storage, self.storages.pop, id(storage), None)
        self.peak = max(self.peak, sum(self.storages.values()))
        return made


class Counts(NamedTuple):
    params: int
    trainable: int
    buffers: int  # elements
    weights_mb: float  # parameters and buffers as they are stored
    gmacs: float  # from torch's FLOP counter
    activations_m: float  # M values that convolutions put out, as "activations" of arXiv 2003.13678, section 3.1
    peak_mb: float  # of the activations that are alive at a time in FP32, the output among them


def network(name: str, classes: int, size: tuple[int, ...], every_head: bool = False) -> nn.Module:
    """A network by name, without weights where it can be made so: `resnet18` (with its classifier of 1000 classes),
    `resnet18+fpn`, `resnet18+unet`, or one of zoo.VOLUMES; STU-Net with `every_head` as it is trained.

    Raises RuntimeError or ValueError where the model is unknown to timm or cannot be made, ImportError where a
    library is missing.
    """
    model, plus, decoder = name.partition("+")
    if name in VOLUMES:
        volume.check_size(name, size)
        with torch.device("meta"):
            made = volume.assemble(name, classes)
        if isinstance(made, STUNet):
            made.deep_supervision = every_head
        return made
    if plus and decoder not in segmenter.DECODERS:
        raise ValueError(f"unknown decoder {decoder!r}: {' or '.join(segmenter.DECODERS)}")
    make = partial(segmenter.assemble, model, decoder, classes, size) if decoder else partial(create, model, size)
    try:
        with torch.device("meta"):
            return make()
    except NotImplementedError:  # some compute with their weights while they are made, as RegNet
        return make().to("meta")


def reparameterised(module: nn.Module) -> nn.Module | None:
    """The same network with its branches folded, None where it has none."""
    if not any(hasattr(block, "reparameterize") for block in module.modules()):
        return None
    with torch.device("meta"):  # where timm makes the folded layers
        return reparameterize_model(copy.deepcopy(module))


@torch.inference_mode()
def count(module: nn.Module, size: tuple[int, ...], in_chans: int | None = None) -> Counts:
    """Of one inference on (1, in_chans, *size), by default three channels in 2D and one in 3D. Raises what the network
    raises where it cannot take the size."""
    parameters, buffers = [*module.parameters()], [*module.buffers()]
    trainable = [tensor for tensor in parameters if tensor.requires_grad]
    module.requires_grad_(False)  # the counter would hook gradients, which pit's parameters as arguments have not
    activations = 0

    def add(layer: nn.Module, args: tuple, output: torch.Tensor) -> None:
        nonlocal activations
        activations += output.numel()

    hooks = [layer.register_forward_hook(add) for layer in module.modules() if isinstance(layer, CONVOLUTIONS)]
    image = torch.empty(1, in_chans or (3 if len(size) == 2 else 1), *size, device="meta")
    with FlopCounterMode(display=False) as flops, Alive() as alive:
        module.eval()(image)
    for hook in hooks:
        hook.remove()
    for tensor in trainable:
        tensor.requires_grad_(True)
    return Counts(
        params=sum(tensor.numel() for tensor in parameters),
        trainable=sum(tensor.numel() for tensor in trainable),
        buffers=sum(tensor.numel() for tensor in buffers),
        weights_mb=sum(tensor.numel() * tensor.element_size() for tensor in [*parameters, *buffers]) / 1e6,
        gmacs=flops.get_total_flops() / 2e9,
        activations_m=activations / 1e6,
        peak_mb=alive.peak / 1e6,
    )
