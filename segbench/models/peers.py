"""The decoders of segmentation-models-pytorch, to compare with: a development dependency."""

import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

from ..inputs import photograph
from .encoder import CALIBRATION_SIZE, calibrate

PEERS = {"smp-fpn": "FPN", "smp-unet": "Unet"}


class Peer(nn.Module):
    """(B, in_chans, H, W), both divisible by 32 -> logits (B, classes, H, W)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    @property
    def encoder(self) -> nn.Module:
        return self.net.encoder

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.net(x),)


def build_peer(
    model: str, decoder: str, classes: int, pretrained: bool = False, seed: int = 0, in_chans: int = 3
) -> Peer:
    """The library's decoder of that name, with its own default widths, on the same timm encoder."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(seed)
    weights = "imagenet" if pretrained else None
    net = getattr(smp, PEERS[decoder])(f"tu-{model}", encoder_weights=weights, in_channels=in_chans, classes=classes)
    trained, classifier = net.encoder if pretrained else None, net.segmentation_head[0]
    calibrate(net.eval(), photograph(CALIBRATION_SIZE, channels=in_chans), trained, classifier)
    return reparameterize_model(Peer(net)).eval().requires_grad_(False)
