"""The networks. `build` is the one place that makes one from a case."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..cases import Case
from ..inputs import picture
from ..zoo import VOLUMES
from .custom import build_custom
from .encoder import build_encoder
from .labelled import labelled
from .peers import PEERS, build_peer
from .segmenter import DECODERS, build_segmenter
from .volume import build_volume

__all__ = ["DECODERS", "build", "build_segmenter", "count", "count_gmacs", "decoder_params", "labelled"]


def build(case: Case, source: Path | str = "") -> nn.Module:
    """The network of a case in eval mode, FP32, reparameterised, with weights that keep activations in range, or those
    of the file `source`; a user's own network as its function returns it, from the folder `source` or from what is
    installed.

    Its forward takes (B, in_chans, H, W), or (B, 1, D, H, W) for 3D networks, and returns a tuple of tensors: what is
    timed is what is checked. Its `encoder` is the module that a decoder comes behind, itself where there is none.
    Raises RuntimeError or ValueError where the network cannot be made at that size.
    """
    if case.own:
        return build_custom(case.model, str(source), case.seed, picture(case))
    if case.model in VOLUMES:
        return build_volume(case.model, case.classes, case.size, case.seed, source)
    how = {"pretrained": case.pretrained, "seed": case.seed, "in_chans": case.in_chans}
    if case.decoder in PEERS:
        return build_peer(case.model, case.decoder, case.classes, **how)
    if case.decoder:
        return build_segmenter(case.model, case.decoder, case.classes, case.size, **how, weights=source)
    return build_encoder(case.model, case.size, **how, weights=source)


def count(module: nn.Module) -> int:
    """Its parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def decoder_params(network: nn.Module) -> int:
    """Parameters of what a network of `build` has behind its encoder; 0 where there is no decoder."""
    return count(network) - count(network.encoder)


@torch.inference_mode()
def count_gmacs(network: nn.Module, image: Tensor) -> tuple[float, float]:
    """Multiply-adds of one inference in 10^9: of all, and of what comes behind the encoder."""
    with FlopCounterMode(display=False) as flops:
        network(image)
    place = next(name for name, module in network.named_modules() if module is network.encoder)
    of_module = flops.get_flop_counts()[".".join([type(network).__name__, *filter(None, [place])])]
    total, encoder = flops.get_total_flops(), sum(of_module.values())
    return total / 2e9, (total - encoder) / 2e9
