"""Semantic FPN and UNet against published counts and an independent computation."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from segbench import models, zoo
from segbench.models import encoder, segmenter
from segbench.models.fpn import SemanticFPN
from segbench.models.unet import UNetDecoder

# Parameters with 117 classes: the encoder's feature maps, + FPN, + UNet (the reference project's tables have them
# rounded), and the decoders' GMACs at 512x512. test_volumes counts the parameters of more.
TOTALS = {
    "mobileone_s0": (1_053_504, 1_993_525, 4_629_973, 5.31, 9.32),
    "mobilenetv4_conv_small": (1_261_664, 2_162_773, 4_316_405, 5.22, 8.17),
    "regnetx_002": (2_315_792, 3_146_245, 4_879_525, 5.19, 8.03),
}
CHANNELS = [3, 5, 7, 9, 11]


@pytest.fixture
def uncalibrated(monkeypatch):
    """Shapes and counts do not depend on the weights."""
    monkeypatch.setattr(segmenter, "calibrate", lambda *_, **__: None)


def counted_alone(model: str) -> float:
    """GMACs of the encoder's feature maps by torch's counter, apart from any decoder."""
    network = segmenter.build_segmenter(model, "features", 0, (512, 512)).to("meta")
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        network(torch.zeros(1, 3, 512, 512, device="meta"))
    return flops.get_total_flops() / 2e9


@pytest.mark.parametrize("model", TOTALS)
@pytest.mark.parametrize("decoder", ["fpn", "unet"])
def test_parameters_and_gmacs_are_the_published_ones(uncalibrated, model, decoder):
    network = segmenter.build_segmenter(model, decoder, 117, (512, 512))
    alone, fpn, unet, fpn_gmacs, unet_gmacs = TOTALS[model]
    assert models.count(network.encoder) == alone
    assert models.count(network) == (fpn if decoder == "fpn" else unet)
    assert models.decoder_params(network) == models.count(network) - alone
    total, behind = models.count_gmacs(network.to("meta"), torch.zeros(1, 3, 512, 512, device="meta"))
    assert behind == pytest.approx(fpn_gmacs if decoder == "fpn" else unet_gmacs, abs=6e-3)
    assert total - behind == pytest.approx(counted_alone(model), rel=1e-6)


FAST = ("lcnet_100", "edgenext_x_small", "vit_tiny_patch16_224")  # five levels, four, one
FIRST = [zoo.match(family)[0] for family in zoo.FAMILIES]  # a family's encoders differ in their widths


@pytest.mark.parametrize(
    "model", [*FAST, *(pytest.param(model, marks=pytest.mark.slow) for model in FIRST if model not in FAST)]
)
def test_every_family_takes_both_decoders_at_any_size(uncalibrated, model):
    size = (97, 64)
    network = segmenter.build_segmenter(model, "unet", 4, size)
    image = torch.rand(1, 3, *size)
    with torch.inference_mode():
        (logits,) = network(image)
        channels = network.neck.channels if network.neck else network.encoder.feature_info.channels()
        network.decoder = SemanticFPN(channels, 4).eval()
        (others,) = network(image)
    assert logits.shape == others.shape == (1, 4, *size)


@pytest.mark.parametrize("size", [(513, 511), (500, 333)])
def test_padding_is_cropped_back(uncalibrated, size):
    network = segmenter.build_segmenter("lcnet_100", "fpn", 3, size)
    image = torch.rand(1, 3, *size)
    padded = F.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    with torch.inference_mode():
        (logits,), (whole,) = network(image), network(padded)
    assert logits.shape == (1, 3, *size) and torch.equal(logits, whole[..., : size[0], : size[1]])


def features(channels: list[int], side: int = 64, first: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, count, *[side // (first << level)] * 2) for level, count in enumerate(channels)]


def norm(x: torch.Tensor, weights: dict, name: str) -> torch.Tensor:
    mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    shape = (1, -1, 1, 1)
    x = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
    return x * weights[f"{name}.weight"].view(shape) + weights[f"{name}.bias"].view(shape)


def with_random_norms(module: torch.nn.Module) -> dict:
    for name, buffer in [*module.named_parameters(), *module.named_buffers()]:
        if buffer.is_floating_point():
            torch.nn.init.uniform_(buffer, 0.1 if "running_var" in name else -0.5, 1.0)
    return module.eval().state_dict()


@torch.no_grad()
def test_fpn_is_what_its_formula_says():
    decoder = SemanticFPN(CHANNELS, 6)
    w, maps = with_random_norms(decoder), features(CHANNELS)
    p = None
    for level in (3, 2, 1, 0):  # from C5 to C2
        lateral = F.conv2d(maps[level + 1], w[f"lateral.{level}.weight"], w[f"lateral.{level}.bias"])
        p = lateral if p is None else lateral + p.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    p2 = F.conv2d(p, w["smooth.0.weight"], w["smooth.0.bias"], padding=1)
    x = norm(F.conv2d(p2, w["head.0.weight"], padding=1), w, "head.1").clamp(min=0)
    x = F.conv2d(x, w["head.3.weight"], w["head.3.bias"])
    expected = F.interpolate(x, size=(64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(decoder(maps), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("levels", [5, 4])
def test_unet_is_what_its_formula_says(levels):
    """With four levels, from stride 4 on, the step to stride 2 has no skip."""
    channels = CHANNELS[-levels:]
    decoder = UNetDecoder(channels, 6)
    w, maps = with_random_norms(decoder), features(channels, first=2 if levels == 5 else 4)
    x = maps[-1]
    for step in range(4):
        x = F.conv_transpose2d(x, w[f"up.{step}.weight"], w[f"up.{step}.bias"], stride=2)
        if step < levels - 1:
            x = torch.cat([x, maps[-2 - step]], dim=1)
        for conv, bn in ((0, 1), (3, 4)):
            x = F.conv2d(x, w[f"convs.{step}.{conv}.weight"], padding=1)
            x = norm(x, w, f"convs.{step}.{bn}").clamp(min=0)
    x = F.conv_transpose2d(x, w["last.weight"], w["last.bias"], stride=2)
    expected = F.conv2d(x, w["head.weight"], w["head.bias"])
    assert expected.shape[-1] == 64
    torch.testing.assert_close(decoder(maps), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "idle"), [(UNetDecoder, set()), (SemanticFPN, {"smooth.1", "smooth.2", "smooth.3"})])
def test_every_weight_has_a_say_but_the_named(kind, idle):
    decoder = kind(CHANNELS, 6)
    decoder(features(CHANNELS)).square().sum().backward()
    without = {name.rsplit(".", 1)[0] for name, weight in decoder.named_parameters() if weight.grad is None}
    assert without == idle
    assert all(weight.grad.abs().sum() > 0 for weight in decoder.parameters() if weight.grad is not None)


def test_what_cannot_be_segmented_is_said_in_a_line():
    with pytest.raises(ValueError, match="smaller than the deepest stride"):
        segmenter.build_segmenter("lcnet_100", "fpn", 3, (16, 64))


@pytest.mark.parametrize(
    "model",
    [
        "swin_tiny_patch4_window7_224",  # channels last
        pytest.param("mambaout_femto", marks=pytest.mark.slow),  # the same
        "inception_v3",  # maps that are not a whole number of strides
        "vgg11",  # a level of stride 1
    ],
)
@pytest.mark.parametrize("size", [(224, 224), (250, 190)])
def test_maps_of_other_layouts_sizes_and_strides_fit_both_decoders(uncalibrated, model, size):
    image = torch.rand(1, 3, *size)
    for decoder in ("fpn", "unet"):
        network = segmenter.build_segmenter(model, decoder, 3, size)
        with torch.inference_mode():
            (logits,) = network(image)
        assert logits.shape == (1, 3, *size) and logits.isfinite().all()


@torch.no_grad()
def test_a_map_is_turned_and_resized_only_where_it_has_to_be():
    planar = torch.rand(1, 6, 8, 4)
    assert segmenter.fitted(planar, 4, 6, (32, 16)) is planar
    assert torch.equal(segmenter.fitted(planar.permute(0, 2, 3, 1), 4, 6, (32, 16)), planar)
    assert segmenter.fitted(planar, 4, 6, (36, 20)).shape == (1, 6, 9, 5)


@pytest.mark.parametrize("model", ["crossvit_9_240", "efficientvit_m0"])
def test_encoders_of_other_kinds_are_built_alone(monkeypatch, model):
    monkeypatch.setattr(encoder, "calibrate", lambda *_, **__: None)
    network = encoder.build_encoder(model, (240, 240))
    with torch.inference_mode():
        features, logits = network(torch.rand(1, 3, 240, 240))
    assert isinstance(features, torch.Tensor) and logits.shape == (1, 1000)
