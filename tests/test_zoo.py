"""The table of encoders against what timm and torch count."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segbench import inputs, models, zoo
from segbench.cases import Case
from segbench.models import encoder


def test_names_mean_models_families_and_patterns():
    models_of_zoo = [known.model for known in zoo.ENCODERS]
    assert len({*models_of_zoo}) == len(models_of_zoo) and {*zoo.FIVE} < {*models_of_zoo}
    assert zoo.match("resnet18") == ["resnet18"]
    assert {"lcnet_100", "lcnet_150"} <= {*zoo.match("lcnet")} and "resnet18" not in zoo.match("lcnet")
    assert zoo.match("regnet?_002") == ["regnetx_002", "regnety_002"]
    assert zoo.match("all") == models_of_zoo and zoo.match("five") == list(zoo.FIVE)
    assert zoo.match("no_such_model") == []
    assert zoo.family("resnet18.a1_in1k") == zoo.family("resnet18") == "ResNet"
    assert zoo.family("swin_tiny_patch4_window7_224.ms_in1k") == "swin"


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(known, id=known.model, marks=() if known.model in zoo.FIVE else pytest.mark.slow)
        for known in zoo.ENCODERS
        if known.model in (*zoo.FIVE, zoo.match(known.family)[0])  # test_volumes counts every line of the table
    ],
)
def test_what_is_built_is_what_the_table_says(known, monkeypatch):
    counted = known.model in zoo.FIVE or encoder.is_fixed(known.model)  # then the parameters depend on the size
    size = (512, 512) if counted else (64, 64)
    monkeypatch.setattr(encoder, "CALIBRATION_SIZE", (128, 128))
    network = models.build(Case(model=known.model, mode="baseline", size=size))
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        features, logits = network(inputs.photograph(size))
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(known.params_m, abs=6e-4)
    if counted:
        assert flops.get_total_flops() / 2e9 == pytest.approx(known.gmacs, abs=6e-3)
    assert features.isfinite().all() and 1e-3 < float(features.std()) < 1e3
    assert logits.shape == (1, 1000) and logits.isfinite().all()


def test_calibration_normalises_every_channel_of_the_photograph():
    torch.manual_seed(0)
    norm, tiny = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    seen = []
    norm.register_forward_hook(lambda module, args, output: seen.append(output))
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=16), norm, nn.AdaptiveAvgPool2d(3), tiny).eval()
    encoder.calibrate(network, inputs.photograph((128, 128)))
    seen.clear()
    network(inputs.photograph((128, 128)))
    assert seen[0].mean((0, 2, 3)).tolist() == pytest.approx([encoder.SHIFT] * 8, abs=1e-4)
    assert seen[0].std((0, 2, 3)).tolist() == pytest.approx([1] * 8, abs=1e-3)
    assert tiny.running_var.tolist() == [1] * 8, "9 values a channel are too few for a variance"
    assert not any(module.training for module in network.modules())


def test_weights_follow_from_model_and_seed_not_from_the_size():
    small, large, other = (
        next(models.build(Case(model="lcnet_100", mode="baseline", size=size, seed=seed)).parameters())
        for size, seed in (((64, 64), 0), ((96, 64), 0), ((64, 64), 1))
    )
    assert torch.equal(small, large) and not torch.equal(small, other)


def test_photograph_is_the_normalised_astronaut():
    image = inputs.photograph((512, 512), 2)
    assert image.shape == (2, 3, 512, 512) and torch.equal(image[0], image[1])
    # The mean of the picture's own bytes, 114.5 of 255 over all channels, undone by hand.
    grey = (image[0] * torch.tensor(inputs.STD).view(3, 1, 1) + torch.tensor(inputs.MEAN).view(3, 1, 1)) * 255
    assert grey.min() >= -0.01 and grey.max() <= 255.01 and float((grey - grey.round()).abs().max()) < 1e-3
    assert inputs.photograph((33, 65)).shape == (1, 3, 33, 65)
    # One channel is what Pillow makes grey, five are the three and the first two again.
    one, five = inputs.photograph((512, 512), channels=1)[0, 0], inputs.photograph((512, 512), channels=5)[0]
    mean, std = (sum(values) / 3 for values in (inputs.MEAN, inputs.STD))
    pillow = np.asarray(Image.fromarray(inputs.astronaut()).convert("L"), dtype=np.float32)
    assert np.abs((one.numpy() * std + mean) * 255 - pillow).max() < 1  # it rounds
    assert torch.equal(five, image[0, [0, 1, 2, 0, 1]])
