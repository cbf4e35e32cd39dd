"""STU-Net against the published counts."""

import pytest
import torch

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


def test_the_output_has_the_inputs_size():
    with torch.inference_mode():
        logits = STUNet(width=2, blocks=1, classes=5).eval()(torch.rand(1, 1, 64, 32, 96))
    assert logits.shape == (1, 5, 64, 32, 96) and logits.isfinite().all()
