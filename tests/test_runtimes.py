"""Deployment runtimes, by real conversions of a small network."""

import copy

import pytest
import torch

from benchmarks.runtimes import benchmark, report
from segbench import inputs, modes, runtimes
from segbench.analysis.tables import Results
from segbench.cases import Case
from segbench.machine import cache_folder, describe
from segbench.measure import errors
from segbench.models import build
from segbench.records import Run
from segbench.run_log import RunLog
from segbench.runtimes import conversion, ncnn, openvino

from .test_run_log import SPEED, header

FLOATING = ("onnxruntime", "openvino", "ncnn", "mnn")
NATIVE_BF16 = pytest.mark.skipif(not describe().native_bf16, reason="no native BF16")


class Tuple(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return (self.net(x),)


@pytest.fixture(scope="module")
def network():
    return build(Case(model="lcnet_100", mode="baseline", size=(64, 64), decoder="fpn", classes=5))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def prepared(name: str, network, cache) -> runtimes.Prepared:
    mode = modes.MODES[name]
    return runtimes.of_mode(mode).prepare(network, inputs.photograph((64, 64)), mode, 1, cache)


@pytest.mark.parametrize("name", FLOATING)
def test_a_runtime_computes_what_torch_does_and_caches_what_it_converted(network, cache, name):
    with torch.inference_mode():
        (expected,) = network(inputs.photograph((64, 64)))
    for cache_state in ("cold", "warm"):
        again = prepared(name, network, cache)
        again.call()
        (output,) = again.outputs(again.call())
        assert again.cache == cache_state and output.shape == expected.shape and again.model_mb > 1
        assert float((output - expected).norm() / expected.norm()) < modes.max_error(name)
        assert again.ran()["threads"] == "1"


def test_what_is_broken_on_disk_is_made_again(tmp_path):
    folder, made = tmp_path / "converted", []

    def make(draft):
        made.append(draft)
        (draft / "model").write_text("whole")

    assert [conversion.cached(folder, make).on_disk for _ in range(2)] == [False, True] and len(made) == 1
    (folder / "model").write_text("")
    assert not conversion.cached(folder, make).on_disk and (folder / "model").read_text() == "whole"
    (tmp_path / "converted.made").write_text("")
    assert [conversion.cached(folder, make).on_disk for _ in range(2)] == [False, True] and len(made) == 3


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("norm", [torch.nn.InstanceNorm3d(2, affine=True), torch.nn.GroupNorm(1, 2)])
def test_norms_of_volumes_are_computed_in_fp32(cache, name, norm):
    """Half of the volume is alike, as the air around a body: the runtimes' own kernels are wrong by 2e-4 there."""
    volume, mode = inputs.ct((128, 128, 64), channels=2).clamp(max=-0.3), modes.MODES[name]
    network = Tuple(norm).requires_grad_(False)
    torch.nn.init.uniform_(norm.weight), torch.nn.init.uniform_(norm.bias)
    again = runtimes.of_mode(mode).prepare(network, volume, mode, 1, cache)
    (output,) = again.outputs(again.call())
    expected = copy.deepcopy(network).double()(volume.double())[0].float()
    assert float((output - expected).norm() / expected.norm()) < 5e-5


def test_another_input_is_computed_too(network, cache):
    other = inputs.calibration(inputs.photograph((64, 64)))[0]
    with torch.inference_mode():
        (expected,) = network(other)
    for name in ("baseline", *FLOATING):
        again = prepared(name, network, cache)
        again.feed(other)
        (output,) = again.outputs(again.call())
        assert float((output - expected).norm() / expected.norm()) < modes.max_error(name), name


def test_what_ncnn_lacks_is_named(tmp_path):
    (tmp_path / "model.param").write_text("7767517\n2 1\nInput in0 0 1 x\npnnx.Expression e 0 1 y\nF.gelu g 1 1 y z\n")
    assert ncnn.unsupported_layers(tmp_path / "model.param") == ["F.gelu", "pnnx.Expression"]


@NATIVE_BF16
def test_openvino_computes_in_the_precision_of_the_mode_or_fails(network, cache, monkeypatch):
    """Asked for FP32, by itself it computes in BF16 where that is native."""
    assert prepared("openvino", network, cache).ran()["precision"].startswith("f32 ")
    assert prepared("openvino-bf16", network, cache).ran()["precision"].startswith("bf16 ")
    monkeypatch.setitem(openvino.HINTS, "fp32", "bf16")  # as if the hint were forgotten
    with pytest.raises(RuntimeError, match=r"OpenVINO ran {'bf16'"):
        prepared("openvino", network, cache)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime-int8", "openvino-int8"])
def test_int8_runs_in_int8_and_is_ranked_apart(network, cache, name):
    again = prepared(name, network, cache)
    (output,) = again.outputs(again.call())
    assert output.shape == (1, 5, 64, 64) and modes.ranking("int8") != modes.ranking("fp32")
    assert any(kernel in " ".join(again.ran().values()) for kernel in ("QLinearConv", "u8", "i8"))


def test_another_weight_is_another_model(network):
    image = inputs.photograph((64, 64))
    other = build(Case(model="lcnet_100", mode="baseline", size=(64, 64), decoder="fpn", classes=5, seed=1))
    names = {conversion.fingerprint(net, image, {"x": version}) for net in (network, other) for version in ("1", "2")}
    assert len(names) == 4 and conversion.fingerprint(network, image, {"x": "1"}) in names
    assert conversion.fingerprint(network, image[..., :32], {"x": "1"}) not in names


def test_ranges_of_int8_are_never_chosen_on_what_is_measured():
    measured = inputs.photograph((64, 64))
    pictures = inputs.calibration(measured)
    assert len(pictures) == 10 and all(picture.shape == measured.shape for picture in pictures)
    assert all(float((picture - measured).abs().mean()) > 0.3 for picture in pictures)
    patch = inputs.ct((32, 32, 32))
    assert not any(torch.equal(volume, patch) for volume in inputs.calibration(patch))


def test_what_a_runtime_cannot_take_is_said_before_it_is_tried():
    patch = Case(model="stunet_s", mode="ncnn", size=(128, 128, 64), classes=5)
    for name in ("ncnn", "mnn"):
        mode = modes.MODES[name]
        assert "no fast 3D convolution" in runtimes.of_mode(mode).missing(mode, patch, describe())
    two = Case(model="lcnet_100", mode="ncnn", size=(64, 64), batch_size=2)
    assert "one image" in runtimes.of_mode(modes.MODES["ncnn"]).missing(modes.MODES["ncnn"], two, describe())


def test_an_allocator_that_is_not_installed_is_said_before_it_is_tried(monkeypatch):
    case, mode = Case(model="lcnet_100", mode="baseline+tcmalloc", size=(64, 64)), modes.MODES["baseline+tcmalloc"]
    monkeypatch.setattr(runtimes, "library", lambda allocator: "")
    assert "libtcmalloc-minimal4" in runtimes.missing(mode, case, describe())
    monkeypatch.setattr(runtimes, "library", lambda allocator: "libx.so.1")
    assert runtimes.missing(mode, case, describe()) == "" and runtimes.environment(mode, 1)["LD_PRELOAD"] == "libx.so.1"
    assert "LD_PRELOAD" not in runtimes.environment(modes.MODES["baseline+retained"], 1)


def test_the_outputs_layout_is_an_option_and_their_values_are_not(network, cache):
    """Either way (B, C, H, W) comes back, in the memory that the runtime wrote."""
    for name in ("onnxruntime", "openvino", "mnn"):
        outputs = []
        for variant in (name, f"{name}+nhwc"):
            again = prepared(variant, network, cache)
            (output,) = again.outputs(again.call())
            outputs.append(output.clone())
            assert output.permute(0, 2, 3, 1).is_contiguous() == variant.endswith("nhwc"), variant
        assert torch.equal(*outputs) or float((outputs[0] - outputs[1]).norm() / outputs[0].norm()) < 1e-5


@pytest.mark.slow
def test_from_the_command_to_the_heat_map(script, run_here):
    """With OpenVINO; that of a custom network is with ONNX Runtime."""
    names = ("baseline", "openvino")
    flags = ("--models", "lcnet_100", "--volumes", "--num-classes", "5", "--modes", *names, "--rounds", "1")
    assert run_here(benchmark.BENCHMARK, *flags, "--out", str(script.out)) == 0
    rows = script.table()
    assert set(rows["mode"]) == set(names) and (rows.status == "ok").all()
    converted = rows[rows["mode"] != "baseline"]
    assert (converted.model_mb > 1).all() and (converted.compile_s > 0).all() and converted.rel_error.max() < 5e-3
    assert (script.out / "benchmark_plot.png").exists()


def test_throughput_under_background_load_is_images_over_seconds(tmp_path):
    """Half of the samples take three times as long: the mean doubles, the median would say nothing of it."""
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64), threads=1)
    run_logs = []
    for label, samples in (("", [10.0] * 40), ("background-load", [10.0, 30.0] * 20)):
        about = header(label=label)
        run_log = RunLog(tmp_path / about.folder)
        run_log.begin(about)
        run_log.append(SPEED)
        for number in (1, 2):
            run_log.append(Run(case=case, round=number, samples_ms=samples, reference_ms=[(3.0, 1.0)] * 41))
        run_logs.append(RunLog.read(run_log.folder))
    (row,) = report.share_kept(Results(run_logs)).to_dict("records")
    assert row["share_kept"] == pytest.approx(0.5, rel=0.01) and row["p95_ms"] == 30
    assert row["latency_ms"] == pytest.approx(10)
    assert report.share_kept(Results(run_logs[:1])).empty


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Exception from src/a.cpp:132:\nException from src/b.cc:80:\nIt cannot be opened!", "It cannot be opened!"),
        ("Load model from {cache}/onnx/a/model.onnx failed", "Load model from the cache/onnx/a/model.onnx failed"),
        ("Exception from src/a.cpp:132:", "Exception from src/a.cpp:132:"),
    ],
)
def test_what_a_runtime_complains_of_is_said_without_a_path_of_the_machine(text, says):
    error = RuntimeError(text.format(cache=cache_folder()))
    try:
        raise error
    except RuntimeError:
        assert (
            errors.one_line(error, Case(model="lcnet_100", mode="baseline", size=(64, 64))) == f"RuntimeError: {says}"
        )
