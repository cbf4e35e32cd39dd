"""The networks. `build` is the one place that makes one from a case."""

from torch import nn

from ..cases import Case
from ..zoo import VOLUMES
from .encoder import build_encoder
from .peers import PEERS, build_peer
from .segmenter import DECODERS, build_segmenter
from .volume import build_volume

__all__ = ["DECODERS", "build", "build_segmenter", "count", "decoder_parts"]


def build(case: Case) -> nn.Module:
    """The network of a case in eval mode, FP32, reparameterised, with weights that keep activations in range.

    Its forward takes (B, 3, H, W), or (B, 1, D, H, W) for the 3D networks, and returns a tuple of tensors: what is
    timed is what is checked.
    Raises RuntimeError or ValueError where the network cannot be made at that size.
    """
    if case.model in VOLUMES:
        return build_volume(case.model, case.classes, case.size, case.seed, case.weights)
    if case.decoder in PEERS:
        return build_peer(case.model, case.decoder, case.classes, case.pretrained, case.seed)
    if case.decoder:
        return build_segmenter(case.model, case.decoder, case.classes, case.size, case.pretrained, case.seed)
    return build_encoder(case.model, case.size, case.pretrained, case.seed)


def count(module: nn.Module) -> int:
    """Its parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def decoder_parts(module: nn.Module) -> dict[str, nn.Module]:
    """What a network has beside its encoder, by name."""
    names = ("neck", "decoder", "net.decoder", "net.segmentation_head")
    return {name: part for name, part in module.named_modules() if name in names}
