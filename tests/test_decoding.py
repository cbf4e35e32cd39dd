"""Real runs of the scripts with decoders at 64x64."""

import msgspec
import pytest

from benchmarks.batch_sizes import benchmark as batch_sizes
from benchmarks.fpn_decoder import benchmark as fpn_decoder
from segbench import cli
from segbench.cases import Case
from segbench.measure.schedule import Plan
from segbench.measure.sweep import Sweep
from segbench.problem import Problem
from segbench.run_log import RunLog
from segbench.settings import Settings, parse

from .conftest import ROOT, TINY, Script
from .test_run_log import header

COMBINED = ROOT / "benchmarks" / "combined_benchmark.py"
BATCHES = ROOT / "benchmarks" / "batch_size_comparison.py"
PEERS = ROOT / "benchmarks" / "decoder_peers" / "benchmark.py"
EAGER = ("--models", "lcnet_100", "--modes", "baseline", "--rounds", "1")
FPN = ("--modes", "baseline", "--num-classes", "5", "--rounds", "1")


def run_here(benchmark: cli.Benchmark, *flags: str) -> int:
    """The script, in this process."""
    return cli.run(benchmark, parse(benchmark.defaults, benchmark.description, [*TINY, "--modes", "baseline", *flags]))


@pytest.fixture(scope="module")
def fpn(tmp_path_factory, cache):
    """A run of an encoder with FPN, and of one that has no feature maps."""
    script = Script(tmp_path_factory.mktemp("fpn"), cache)
    script.path = fpn_decoder.BENCHMARK.script
    script.done = script.run("--models", "lcnet_100", "mixer_s32_224", *FPN)
    return script


def test_an_encoder_with_fpn_and_one_without_feature_maps(fpn):
    rows = fpn.table().set_index(["model", "decoder"])
    assert fpn.done.returncode == 1, fpn.done.stdout + fpn.done.stderr
    assert "Compiled code is kept" not in fpn.done.stdout
    assert rows.status.to_dict() == {
        ("lcnet_100", "features"): "ok",
        ("lcnet_100", "fpn"): "ok",
        ("mixer_s32_224", "features"): "error",
        ("mixer_s32_224", "fpn"): "error",
    }
    assert "feature maps of strides" in rows.reason["mixer_s32_224", "fpn"]
    alone, whole = rows.loc["lcnet_100", "features"], rows.loc["lcnet_100", "fpn"]
    # Laterals on 64 to 512 channels, four smoothings, a head: counted by hand from the architecture.
    laterals, smooth = (64 + 128 + 256 + 512) * 128 + 4 * 128, 4 * (128 * 128 * 9 + 128)
    head = 128 * 128 * 9 + 2 * 128 + 128 * 5 + 5
    assert whole.decoder_params_m * 1e6 == pytest.approx(laterals + smooth + head, abs=2)
    assert whole.params_m - alone.params_m == pytest.approx(whole.decoder_params_m, rel=1e-4)
    assert whole.gmacs - alone.gmacs == pytest.approx(whole.decoder_gmacs, rel=1e-4)
    assert whole.decoder_share == pytest.approx(1 - alone.latency_ms / whole.latency_ms, rel=1e-4)
    assert whole.argmax_agreement == 1 and whole.rel_error < 1e-6
    assert (fpn.out / "benchmark_plot.png").exists()


def test_slices_of_one_channel_have_a_run_log_of_their_own(fpn):
    flags = ("--models", "lcnet_100", "--in-chans", "1", *FPN)
    with pytest.raises(Problem, match="in_chans 3, not 1: --label"):
        run_here(fpn_decoder.BENCHMARK, "--out", str(fpn.out), *flags)
    done = fpn.run("--label", "slices", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = fpn.table()
    rows = rows[rows.model == "lcnet_100"].set_index("in_chans")
    assert rows.status.tolist() == ["ok"] * 4
    # The first of lcnet_100's convolutions has 16 kernels of 3x3, here two channels fewer.
    assert 1e6 * (rows.params_m[3].iloc[0] - rows.params_m[1].iloc[0]) == pytest.approx(2 * 16 * 9, abs=2)


@pytest.mark.slow
def test_alone_fpn_and_unet_side_by_side(script):
    script.path = COMBINED
    done = script.run(*EAGER)
    assert done.returncode == 0, done.stderr
    (row,) = script.table("combined_benchmark_results.csv").to_dict("records")
    assert row["features_img_s"] > row["fpn_img_s"] and row["features_img_s"] > row["unet_img_s"]
    assert row["unet_params_m"] > row["fpn_params_m"] > row["features_params_m"]
    assert len(script.run_log().runs) == 3
    valid = row["fpn_status"] == row["unet_status"] == "ok"  # beside other programs there may be nothing to draw
    assert (script.out / "combined_benchmark_plot.png").exists() == valid


@pytest.mark.slow
def test_batches_that_fit_are_measured_and_others_are_skipped(script):
    script.path = BATCHES
    done = script.run(*EAGER, "--batch-sizes", "4", "1", "10000000")
    rows = script.table("batch_size_comparison.csv").set_index(["decoder", "batch_size"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows.status.unstack().to_numpy().tolist() == [["ok", "ok", "skipped"]] * 3
    assert rows.reason["unet", 10000000].endswith("GB are free")
    fits = rows[rows.status == "ok"]
    assert (fits.throughput_img_s * fits.latency_ms / 1e3).tolist() == pytest.approx(
        [*fits.index.get_level_values(1)], rel=1e-4
    )
    assert fits.enough.groupby("decoder").sum().tolist() == [1, 1, 1]
    assert fits.gmacs.groupby("decoder").nunique().tolist() == [1, 1, 1], "GMACs are per image"
    assert (script.out / "batch_size_comparison.png").exists()


@pytest.mark.slow
def test_a_peer_stands_beside_each_decoder(script):
    script.path = PEERS
    done = script.run(*EAGER)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = script.table("benchmark_results.csv").set_index("decoder")
    assert [*rows.index] == ["fpn", "unet"]
    assert (rows.over_peer - rows.img_s / rows.smp_img_s).abs().max() < 0.2 * rows.over_peer.max()
    assert (rows.smp_gmacs > rows.gmacs).all()
    assert (script.out / "benchmark_plot.png").exists()


@pytest.mark.parametrize(
    ("benchmark", "flags", "says"),
    [
        (fpn_decoder.BENCHMARK, ("--num-classes", "0"), "--num-classes 0"),
        (batch_sizes.BENCHMARK, ("--batch-sizes", "0"), "--batch-sizes 0"),
        (batch_sizes.BENCHMARK, ("--batch-size", "2"), "--batch-sizes names them all"),
    ],
)
def test_bad_input_is_one_line(tmp_path, benchmark, flags, says):
    with pytest.raises(Problem, match=says) as problem:
        run_here(benchmark, "--out", str(tmp_path), *flags)
    assert "\n" not in str(problem.value)


def test_bf16_that_a_runtime_would_not_use_is_a_row_that_says_so(tmp_path):
    case = Case(model="lcnet_100", decoder="unet", classes=117, mode="openvino-bf16", size=(512, 512))
    about = header()
    about = msgspec.structs.replace(about, machine=msgspec.structs.replace(about.machine, native_bf16=False))
    for _ in range(2):  # the same command again says it again, and adds no second row
        folder = tmp_path / about.folder
        Sweep(RunLog.read(folder), Plan([case], Settings(rounds=3, no_wait=True)), about).run()
        (run,) = RunLog.read(folder).runs
        assert run.status == "skipped" and "no native BF16" in run.reason
    assert len([*folder.iterdir()]) == 1
