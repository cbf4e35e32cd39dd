"""Labels made without full-resolution logits, compared with plain torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.fpn_decoder import benchmark as fpn_decoder
from benchmarks.labels import benchmark
from segbench import inputs, models
from segbench.cases import Case
from segbench.kernels import labels
from segbench.models import build
from segbench.models.unet import folded

SAME = 0.9999  # share of the pixels: a tie within rounding may go either way


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layouts(values: torch.Tensor) -> list[torch.Tensor]:
    """NCHW, NHWC, every second value of something larger, and NCWH."""
    nhwc = values.movedim(1, -1).contiguous().movedim(-1, 1)
    every_second = torch.stack([values, values + 1], dim=-1)[..., 0]
    ncwh = values.transpose(-1, -2).contiguous().transpose(-1, -2)
    return [values, nhwc, every_second, ncwh]


def check(made, values: torch.Tensor, least: float = SAME) -> None:
    """Every pixel has the class of its largest value, or of one that is not smaller beyond rounding."""
    made = torch.as_tensor(np.asarray(made)).long()
    largest, expected = values.max(dim=1)
    assert made.shape == expected.shape and float((made == expected).double().mean()) >= least
    chosen = values.gather(1, made[:, None])[:, 0]
    assert float((largest - chosen).max()) <= 1e-5


@pytest.mark.parametrize("classes", [1, 2, 117, 256, 257])
@pytest.mark.parametrize(("factor", "height", "width"), [(4, 16, 24), (1, 5, 7), (2, 1, 9), (3, 33, 17), (5, 7, 1)])
def test_upsampled_labels_are_those_of_upsampled_logits(classes, factor, height, width):
    for logits in layouts(noise(2, classes, height, width)):
        upsampled = F.interpolate(logits, scale_factor=float(factor), mode="bilinear")
        check(labels.upsample_labels(logits, factor, 2), upsampled)
        low = logits.bfloat16()  # of 8 bits: many ties
        upsampled = F.interpolate(low.float(), scale_factor=float(factor), mode="bilinear")
        check(labels.upsample_labels(low, factor, 2), upsampled, least=0.99)
        assert labels.upsample_labels(logits, factor).dtype == (torch.uint8 if classes <= 256 else torch.int16)


@pytest.mark.parametrize("size", [(5, 31, 40), (1, 1, 1), (9, 16, 20), (10, 40, 17), (3, 50, 64)])
def test_resampled_labels_are_those_of_resampled_logits(size):
    for logits in layouts(noise(1, 6, 5, 16, 20)):
        check(labels.resample_labels(logits, size, 2), F.interpolate(logits, size=size, mode="trilinear"))
    array = labels.resample_labels(noise(1, 6, 5, 16, 20).numpy(), size)
    assert isinstance(array, np.ndarray) and array.dtype == np.uint8


@pytest.mark.parametrize("depth", [4, 9, 20])
def test_slabs_give_the_labels_of_the_whole(depth):
    logits, size = noise(1, 6, 9, 8, 10), (depth, 12, 15)
    whole, slabs = labels.resample_labels(logits, size), np.full((1, *size), 99, np.uint8)
    for first, last in ((0, 4), (3, 5), (4, 9)):
        labels.resample_labels(logits[:, :, first:last], size, first=first, depth=9, out=slabs)
    assert np.array_equal(slabs, whole)


@pytest.mark.parametrize(("channels", "classes", "stride"), [(32, 117, 2), (3, 1, 2), (9, 4, 3), (8, 300, 1)])
def test_the_folded_head_gives_the_labels_of_both_layers(channels, classes, stride):
    torch.manual_seed(1)
    up = torch.nn.ConvTranspose2d(channels, channels, stride, stride=stride).requires_grad_(False)
    head = torch.nn.Conv2d(channels, classes, 1).requires_grad_(False)
    weight, bias = folded(up, head)
    for features in layouts(noise(2, channels, 7, 261)):
        expected = head(up(features))
        assert (F.conv_transpose2d(features, weight, bias, stride=stride) - expected).abs().max() < 1e-5
        check(labels.head_labels(features, weight, bias, 2), expected)
    low = features.bfloat16()
    check(labels.head_labels(low, weight, bias), head(up(low.float())))


def test_a_tie_goes_to_the_lower_class_and_nan_never_wins():
    logits = torch.zeros(1, 4, 3, 3)
    assert not labels.upsample_labels(logits, 4).any()
    logits[0, 1] = float("nan")
    logits[0, 3] = 1
    assert (labels.upsample_labels(logits, 4) == 3).all()
    assert not labels.upsample_labels(torch.full((1, 4, 3, 3), float("nan")), 4).any()
    assert not labels.upsample_labels(torch.full((1, 4, 3, 3), -float("inf")), 2).any()
    weight, bias = torch.zeros(8, 3, 2, 2), torch.tensor([float("nan"), 2.0, 2.0])
    assert (labels.head_labels(noise(1, 8, 4, 4), weight, bias) == 1).all()


def test_threads_change_nothing():
    logits = noise(3, 5, 40, 33)
    alone = labels.upsample_labels(logits, 4, 1)
    assert all(torch.equal(alone, labels.upsample_labels(logits, 4, threads)) for threads in (2, 3, 0))


def slab(out: np.ndarray, first: int = 0, depth: int = 0):
    return labels.resample_labels(noise(1, 2, 3, 3, 3), (4, 4, 4), first=first, depth=depth, out=out)


def test_arrays_that_cannot_be_written_and_parameters_of_a_network_are_read():
    values = noise(1, 3, 4, 4).numpy()
    values.flags.writeable = False
    logits = F.interpolate(torch.from_numpy(values.copy()), scale_factor=2.0, mode="bilinear")
    check(labels.upsample_labels(values, 2), logits)
    up = torch.nn.ConvTranspose2d(3, 5, 2, stride=2)
    features = noise(1, 3, 4, 4)
    expected = up(features).detach()
    check(labels.head_labels(features, up.weight, up.bias), expected)
    half = up.to(torch.bfloat16)
    assert labels.head_labels(features, half.weight, half.bias).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: labels.upsample_labels(noise(1, 2, 3), 4), ValueError, "not of 4 dimensions"),
        (lambda: labels.upsample_labels(noise(1, 0, 3, 3), 4), ValueError, "something in each"),
        (lambda: labels.upsample_labels(noise(1, 2, 3, 3), 0), ValueError, "factor of 0"),
        (lambda: labels.upsample_labels(noise(1, 2, 3, 3).double(), 2), TypeError, "float64"),
        (lambda: labels.resample_labels(noise(1, 2, 3, 3, 3), (2, 2)), ValueError, "no size of a volume"),
        (lambda: labels.upsample_labels(noise(1, 2, 3, 3), 1.5), ValueError, "by whole numbers"),
        (lambda: labels.upsample_labels(noise(1, 40000, 1, 1), 1), ValueError, "more than 32768"),
        (lambda: labels.upsample_labels(noise(1, 2, 3, 3), 2, threads=-1), ValueError, "-1 threads"),
        (lambda: slab(np.empty((1, 4, 4, 4), "u1"), first=2, depth=4), ValueError, "not within a depth of 4"),
        (lambda: slab(np.empty((1, 4, 4, 3), "u1"), depth=4), ValueError, "wanted is uint8"),
        (lambda: slab(None, depth=4), ValueError, "a slab of a volume needs an out"),
        (lambda: slab(np.empty((1, 4, 4, 4), "i2"), depth=4), ValueError, "out is int16"),
        (lambda: labels.head_labels(noise(1, 2, 3, 3), noise(3, 2, 2, 2), noise(2)), ValueError, "does not fit"),
        (lambda: labels.head_labels(noise(1, 2, 3, 3), noise(2, 4, 2, 2), noise(2)), ValueError, "4 classes"),
    ],
)
def test_what_labels_cannot_be_made_of_is_said(call, error, says):
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("decoder", ["fpn", "unet"])
def test_every_way_gives_the_same_labels(decoder):
    size = (70, 100)  # padded to 96x128
    network = build(Case(model="lcnet_100", mode="baseline", size=size, decoder=decoder, classes=9))
    image = inputs.photograph(size)
    with torch.inference_mode():
        (logits,) = network(image)
        for output in ("argmax", "graph", "labels"):
            timed, to_labels = models.labelled(network, output, size, 2)
            (first,) = timed(image)
            check(to_labels(first) if to_labels else first, logits)
    with pytest.raises(ValueError, match="Argmax has no fused argmax"):
        models.labelled(models.labelled(network, "graph", size, 1)[0], "labels", size, 1)


@pytest.mark.slow
def test_a_decoder_all_the_way_to_labels(script, run_here):
    flags = ("--models", "lcnet_100", "--modes", "baseline", "--output", "labels", "--rounds", "1")
    assert run_here(fpn_decoder.BENCHMARK, *flags, "--out", str(script.out)) == 0
    rows = script.table().set_index("decoder")
    assert rows.output.to_dict() == {"features": "logits", "fpn": "labels"} and (rows.status == "ok").all()
    assert rows.argmax_agreement["fpn"] >= SAME and np.isnan(rows.rel_error["fpn"])
    assert script.folder().name.endswith("-labels")


def test_eager_mode_has_no_graph_and_peers_only_argmax():
    settings = replace(benchmark.BENCHMARK.defaults, models=("lcnet_100",), modes=benchmark.MODES)
    cases = benchmark.cases(settings)
    assert len(cases) == len(set(cases))
    assert {case.output for case in cases if case.mode == "baseline"} == {"argmax", "labels"}
    assert {case.output for case in cases if case.mode == "openvino+nhwc"} == {"argmax", "graph", "labels"}
    peers = [case for case in cases if case.decoder.startswith("smp-")]
    assert {case.output for case in peers} == {"argmax"} and {case.mode for case in peers} == {
        "baseline",
        "openvino+nhwc",
    }


@pytest.mark.slow
def test_all_ways_side_by_side(script, run_here):
    flags = ("--models", "lcnet_100", "--modes", "openvino+nhwc", "--num-classes", "9", "--rounds", "1")
    assert run_here(benchmark.BENCHMARK, *flags, "--out", str(script.out)) == 0
    rows = script.table()
    ways = {("fpn", output) for output in ("argmax", "graph", "labels")} | {("smp-fpn", "argmax")}
    assert set(zip(rows.decoder, rows.output, strict=True)) >= ways
    assert (rows.status == "ok").all() and (rows.argmax_agreement > SAME).all()
    compared = script.table("benchmark_results.csv")
    assert set(compared.decoder) == {"fpn", "unet"} and (compared["mode"] == "openvino+nhwc").all()
    latency_ms = rows.groupby(["decoder", "output"]).latency_ms.min()  # eager mode is measured beside it
    for row in compared.itertuples():
        others = latency_ms[row.decoder].drop("labels")
        assert row.other_output == others.idxmin()
        assert row.other_img_s == pytest.approx(1e3 / others.min(), rel=1e-4)
        assert row.over_smp == pytest.approx(
            latency_ms[f"smp-{row.decoder}", "argmax"] / latency_ms[row.decoder, "labels"], rel=1e-4
        )
