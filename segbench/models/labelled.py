"""Networks whose output is a map of labels, in each way of cases.OUTPUTS."""

from collections.abc import Callable

from torch import Tensor, nn

from .segmenter import Segmenter

ToLabels = Callable[[Tensor], Tensor]  # the first output -> labels


class Argmax(nn.Module):
    """A network with argmax in its graph: -> labels (B, H, W)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.network(x)[0].argmax(dim=1),)


class Trunk(nn.Module):
    """A decoder up to its last linear layer."""

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder = decoder

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.decoder.trunk(features)


def labelled(network: nn.Module, output: str, size: tuple[int, ...], threads: int) -> tuple[nn.Module, ToLabels | None]:
    """The part of a network to prepare for an output of cases.OUTPUTS, and what makes labels (B, *size) of its first
    output; None where nothing follows. Raises ValueError for a network without a fused argmax."""
    if output == "logits":
        return network, None
    if output == "argmax":
        return network, lambda logits: logits.argmax(dim=1)
    if output == "graph":
        return Argmax(network), None
    if not isinstance(network, Segmenter) or network.decoder is None:
        raise ValueError(f"{type(network).__name__} has no fused argmax: only FPN and UNet have")
    trunk = Segmenter(network.encoder, network.neck, Trunk(network.decoder), network.levels).eval()
    to_labels, (height, width) = network.decoder.fused_argmax(threads), size
    return trunk, lambda maps: to_labels(maps)[:, :height, :width]
