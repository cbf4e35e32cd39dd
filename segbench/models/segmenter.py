"""An encoder's feature maps, and what turns them into logits of every pixel."""

from pathlib import Path

import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F

from ..inputs import photograph
from ..models import states
from .encoder import CALIBRATION_SIZE, calibrate, create, is_fixed
from .fpn import SemanticFPN
from .unet import UNetDecoder

DECODERS = {"fpn": SemanticFPN, "unet": UNetDecoder}
DEEPEST = 32  # stride of C5


class SimplePyramid(nn.Module):
    """The last map (B, C, H/16, W/16) of a network of one scale -> maps of strides 4, 8, 16 and 32.

    After "Exploring Plain Vision Transformer Backbones for Object Detection" (Li et al. 2022, arXiv 2203.16527),
    figure 2 and section 3: transposed convolutions up, the map itself, a max-pooling down.
    """

    def __init__(self, channels: int):
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.channels = [quarter, half, channels, channels]
        self.to_4 = nn.Sequential(
            nn.ConvTranspose2d(channels, half, 2, stride=2),
            nn.BatchNorm2d(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.to_8 = nn.ConvTranspose2d(channels, half, 2, stride=2)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        x = features[-1]
        return [self.to_4(x), self.to_8(x), x, F.max_pool2d(x, 2)]


class Segmenter(nn.Module):
    """(B, in_chans, H, W) of any size -> one tensor, the logits (B, classes, H, W); without a decoder the maps, the
    deepest first.

    The input is padded to the deepest stride at its right and lower edge, and the output cropped back.
    """

    layout = torch.channels_last  # of what the decoder gets, see forward

    def __init__(
        self,
        encoder: nn.Module,
        neck: nn.Module | None,
        decoder: nn.Module | None,
        levels: list[tuple[int, int]],
    ):
        """`levels`: (stride, channels) of the encoder's maps, as timm describes them."""
        super().__init__()
        self.encoder, self.neck, self.decoder, self.levels = encoder, neck, decoder, levels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        height, width = x.shape[-2:]
        if height % DEEPEST or width % DEEPEST:
            x = F.pad(x, (0, -width % DEEPEST, 0, -height % DEEPEST))
        pairs = zip(self.encoder(x), self.levels, strict=True)
        # A level of stride 1, which VGG and DarkNet have, is finer than what a decoder takes.
        features = [fitted(level, *about, x.shape[-2:]) for level, about in pairs if about[0] > 1]
        if self.decoder is None:
            return tuple(features[::-1])
        if self.neck is not None:
            features = self.neck(features)
        # Channels, and so the classes, innermost: mobilenetv3_small_100 with 117 classes is then 1.2 (FPN, eager) to
        # 2.4 times (FPN, autocast+compile+freezing) as fast on two Zen 4 cores, and argmax over the logits 4 times
        # (studies/decoder_parts.py).
        features = [level.contiguous(memory_format=self.layout) for level in features]
        logits = self.decoder(features)
        return (logits[..., :height, :width],)


def fitted(level: Tensor, stride: int, channels: int, size: tuple[int, int]) -> Tensor:
    """A feature map as (B, C, H / stride, W / stride): Swin's and MambaOut's have their channels last, Inception's and
    NASNet's are some pixels short of it."""
    wanted = tuple(side // stride for side in size)
    if level.shape[1] != channels or (level.shape[3] == channels and level.shape[1:3] == wanted):
        level = level.permute(0, 3, 1, 2)
    return level if tuple(level.shape[2:]) == wanted else F.interpolate(level, size=wanted, mode="bilinear")


def padded(size: tuple[int, int]) -> tuple[int, int]:
    """The size that an image is padded to."""
    return tuple(side + -side % DEEPEST for side in size)


def assemble(
    model: str, decoder: str, classes: int, size: tuple[int, int], pretrained: bool = False, in_chans: int = 3
) -> Segmenter:
    """Any timm model that offers feature maps, with a decoder: "fpn", "unet", or "features" for the maps alone; random
    weights are torch's, nothing is folded yet.

    Raises ValueError where the maps are not of strides (2,) 4, 8, 16, 32 or of one stride, 16, and for images smaller
    than the deepest stride; RuntimeError where timm has no feature maps of the model.
    """
    if min(size) < DEEPEST:
        raise ValueError(f"{size[0]}x{size[1]} is smaller than the deepest stride, {DEEPEST}")
    encoder = create(model, padded(size), pretrained=pretrained, in_chans=in_chans, features_only=True).eval()
    levels = [*zip(encoder.feature_info.reduction(), encoder.feature_info.channels(), strict=True)]
    strides, channels = (list(values) for values in zip(*(level for level in levels if level[0] > 1), strict=True))
    neck = None
    if set(strides) == {DEEPEST // 2}:
        neck = SimplePyramid(channels[-1])
        channels = neck.channels
    elif strides not in ([2, 4, 8, 16, 32], [4, 8, 16, 32]):
        raise ValueError(f"{model} offers feature maps of strides {strides}; needed are (2,) 4, 8, 16, 32, or 16 alone")
    head = DECODERS[decoder](channels, classes) if decoder != "features" else None
    return Segmenter(encoder, neck if head else None, head, levels).eval()


def build_segmenter(
    model: str,
    decoder: str,
    classes: int,
    size: tuple[int, int],
    pretrained: bool = False,
    seed: int = 0,
    in_chans: int = 3,
    weights: Path | str = "",
) -> Segmenter:
    """The same, calibrated or with the weights of a file, reparameterised and ready for inference. Raises what
    `assemble` does, and ValueError for a state dict that is not its own."""
    torch.manual_seed(seed)
    network = assemble(model, decoder, classes, size, pretrained, in_chans)
    if weights:
        states.load(network, weights)
        return reparameterize_model(network).eval().requires_grad_(False)
    seen = padded(size) if is_fixed(model) else CALIBRATION_SIZE
    trained = network.encoder if pretrained else None
    *_, classifier = network.decoder.modules() if network.decoder else [None]  # the last layer of either decoder
    calibrate(network, photograph(seen, channels=in_chans), trained, classifier)
    return reparameterize_model(network).eval().requires_grad_(False)
