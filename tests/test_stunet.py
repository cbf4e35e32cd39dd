"""STU-Net against the published counts, and against its description."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segbench import counting
from segbench.models.stunet import VARIANTS, STUNet

# With five heads, for 105 and 117 classes; the paper (arXiv 2304.06716, table 1) rounds the first.
PUBLISHED = {
    "stunet_s": (14_596_941, 14_602_953),
    "stunet_b": (58_262_669, 58_274_633),
    "stunet_l": (440_302_605, 440_326_473),
    "stunet_h": (1_457_326_221, 1_457_361_993),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_are_the_published_ones(name):
    with torch.device("meta"):
        networks = [STUNet(*VARIANTS[name], classes) for classes in (105, 117)]
    assert tuple(sum(p.numel() for p in network.parameters()) for network in networks) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "gmacs", "saved"), [("stunet_s", 65.0, 0.0100), ("stunet_b", 253.7, 0.0051)])
def test_multiply_adds_with_five_heads_and_with_the_finest(name, gmacs, saved):
    """Counted apart from this project, 117 classes at 128x128x64."""
    size = (128, 128, 64)
    five, one = (counting.count(counting.network(name, 117, size, heads), size).gmacs for heads in (True, False))
    assert five == pytest.approx(gmacs, rel=1e-3) and 1 - one / five == pytest.approx(saved, abs=1e-4)


@torch.no_grad()
def test_the_output_has_the_inputs_size_and_comes_from_the_finest_head():
    net, image = STUNet(width=1, blocks=1, classes=5).eval(), torch.rand(1, 1, 64, 32, 96)
    logits = net(image)
    net.deep_supervision = True
    assert logits.shape == (1, 5, 64, 32, 96) and torch.equal(net(image)[0], logits)
    assert [head.shape[2] for head in net(image)] == [64, 32, 16, 8, 4]


def block(x: torch.Tensor, w: dict, name: str, stride: int = 1) -> torch.Tensor:
    """By the paper's figure, from the state dict alone."""

    def conv(x: torch.Tensor, part: str, **how: int) -> torch.Tensor:
        return F.conv3d(x, w[f"{name}.{part}.weight"], w[f"{name}.{part}.bias"], **how)

    def norm(x: torch.Tensor, part: str) -> torch.Tensor:
        mean, var = x.mean((2, 3, 4), keepdim=True), x.var((2, 3, 4), correction=0, keepdim=True)
        scale, shift = (w[f"{name}.{part}.{kind}"].view(1, -1, 1, 1, 1) for kind in ("weight", "bias"))
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def leaky(x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, 0.01 * x)

    skip = conv(x, "conv3", stride=stride) if f"{name}.conv3.weight" in w else x
    y = leaky(norm(conv(x, "conv1", stride=stride, padding=1), "norm1"))
    return leaky(norm(conv(y, "conv2", padding=1), "norm2") + skip)


@torch.no_grad()
def test_stunet_is_what_its_description_says():
    torch.manual_seed(0)
    net = STUNet(width=2, blocks=2, classes=3).eval()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    w, x = net.state_dict(), torch.rand(2, 1, 32, 32, 64)
    expected, skips = x, []
    for stage in range(6):
        for index in range(2):
            stride = 2 if stage and not index else 1
            expected = block(expected, w, f"conv_blocks_context.{stage}.{index}", stride)
        skips.append(expected)
    for step in range(5):
        for dim in (2, 3, 4):  # nearest interpolation
            expected = expected.repeat_interleave(2, dim=dim)
        name = f"upsample_layers.{step}.conv"
        expected = F.conv3d(expected, w[f"{name}.weight"], w[f"{name}.bias"])
        expected = torch.cat([expected, skips[4 - step]], dim=1)
        for index in range(2):
            expected = block(expected, w, f"conv_blocks_localization.{step}.{index}")
    expected = F.conv3d(expected, w["seg_outputs.4.weight"], w["seg_outputs.4.bias"])
    torch.testing.assert_close(net(x), expected, rtol=1e-3, atol=1e-3)
