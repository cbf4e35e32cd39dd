"""The 3D networks, what they are counted as, and what a whole CT makes of them."""

import csv
import io
import re
import subprocess
import sys

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.official import benchmark as official
from benchmarks.official import costs, report
from segbench import counting, inputs, machine, models
from segbench.analysis.tables import Results
from segbench.cases import Case
from segbench.measure import worker
from segbench.models import states, totalsegmentator, volume
from segbench.models.stunet import VARIANTS, STUNet
from segbench.problem import Problem
from segbench.records import MachineSpeed, Run
from segbench.run_log import RunLog
from segbench.settings import parse
from tools import count_params

from .conftest import ROOT
from .test_run_log import header

COUNT = ROOT / "count_params.py"


@pytest.mark.parametrize(
    ("model", "size"), [("stunet_s", (128, 128, 65)), ("resenc", (32, 32, 32)), ("segresnet", (64, 64))]
)
def test_a_size_that_does_not_fit_is_said_in_a_line(model, size):
    with pytest.raises(ValueError, match=f"{model} takes D, H and W divisible by") as error:
        volume.check_size(model, size)
    assert "\n" not in str(error.value)


def test_weights_are_loaded_or_what_is_wrong_is_said_at_once(tmp_path):
    one, other = STUNet(2, 1, 3), STUNet(2, 1, 3)
    torch.save({"state_dict": one.state_dict()}, tmp_path / "weights.pth")
    states.load(other, tmp_path / "weights.pth")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="10 of another shape") as error:  # five heads, weight and bias
        states.load(STUNet(2, 1, 4), tmp_path / "weights.pth")
    assert "missing" not in str(error.value)
    with pytest.raises(ValueError, match=r"missing .*; \d+ of another shape"):
        states.load(STUNet(2, 2, 4), tmp_path / "weights.pth")


def test_a_file_of_something_else_is_refused_in_a_line(tmp_path):
    torch.save({"state_dict": {}, "trainer": subprocess.Popen}, tmp_path / "more.model")
    (tmp_path / "text.pth").write_text("no weights")
    for name in ("more.model", "text.pth"):
        with pytest.raises(ValueError, match=f"{name} holds more than tensors and numbers"):
            states.load(STUNet(2, 1, 3), tmp_path / name)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {
            "network_weights": state,
            "_best_ema": np.float64(0.5),
            "logging": {"dice": [np.float32(1)]},
        },  # v2
        lambda state: {"state_dict": state, "epoch": 3, "plot_stuff": ([np.float64(1)], np.zeros(2)), "lr": None},  # v1
        lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},  # torch.compile around DDP
        lambda state: {"model": {f"net.{name}": value for name, value in state.items()}},
    ],
    ids=["nnunet v2", "nnunet v1", "compiled", "model level"],
)
def test_checkpoints_load_as_trainers_write_them(tmp_path, wrapped):
    one, other = STUNet(2, 1, 3), STUNet(2, 1, 3)
    torch.save(wrapped(one.state_dict()), tmp_path / "checkpoint.pth")
    states.load(other, tmp_path / "checkpoint.pth")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    "value", [[torch.zeros(1)], torch.zeros(2), {"epoch": 1}], ids=["list", "tensor", "no tensors"]
)
def test_a_file_without_a_state_dict_is_refused_in_a_line(tmp_path, value):
    torch.save(value, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="holds no state dict but") as error:
        states.load(STUNet(2, 1, 3), tmp_path / "other.pth")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused_before_the_sweep(tmp_path):
    torch.save(STUNet(*VARIANTS["stunet_s"], 4).state_dict(), tmp_path / "four.pth")
    flags = ("--volumes", "stunet_s", "--weights", str(tmp_path / "four.pth"), "--num-classes")
    parse(official.BENCHMARK.defaults, "", (*flags, "4")).check()
    with pytest.raises(Problem, match=r"four\.pth does not fit: 10 of another shape") as problem:
        parse(official.BENCHMARK.defaults, "", (*flags, "3")).check()
    assert "\n" not in str(problem.value)


def test_a_case_has_the_weights_that_it_names(tmp_path):
    net = STUNet(*VARIANTS["stunet_s"], 3).eval()
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    case = Case(model="stunet_s", mode="baseline", size=(64, 32, 32), classes=3, weights="weights.pth:0123")
    image = inputs.ct(case.size)
    with torch.inference_mode():
        assert torch.equal(models.build(case, tmp_path / "weights.pth")(image)[0], net(image))


def test_117_classes_are_named():
    names = totalsegmentator.class_names()
    assert len(set(names)) == 117 and {"spleen", "liver", "heart"} <= set(names)


def test_peak_memory_is_what_is_alive_at_a_time():
    """1 -> 8 -> 8 -> 1 channels at 16x16: input and output of the middle layer are alive together."""
    layers = [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 1, 1)]
    counts = counting.count(nn.Sequential(*layers).to("meta"), (16, 16))
    assert counts.peak_mb * 1e6 == 2 * 8 * 16 * 16 * 4
    assert counts.activations_m * 1e6 == (8 + 8 + 1) * 16 * 16
    assert counts.params == counts.trainable == 3 * 8 + 8 + 8 * 8 + 8 + 8 + 1


def count(*flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", COUNT, *flags], capture_output=True, text=True)


@pytest.mark.slow
def test_the_largest_is_counted_without_its_weights():
    code = (
        "import atexit, pathlib, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "atexit.register(lambda: print(pathlib.Path('/proc/self/status').read_text(), file=sys.stderr))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    flags = ("stunet_h", "--num-classes", "105", "--format", "csv")
    done = subprocess.run([sys.executable, "-c", code, COUNT, *flags], capture_output=True, text=True)
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert int(row["params"]) == 1_457_326_221
    peak_kb = int(re.search(r"VmHWM:\s+(\d+)", done.stderr)[1])
    assert 1e5 < peak_kb < 2e6, "its weights alone are 5.8 GB"


def test_branches_are_counted_before_and_after_folding(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["count_params.py", "mobileone_s0+unet", "regnetx_002", "--format", "csv"])
    assert count_params.main() == 0
    rows = [*csv.DictReader(io.StringIO(capsys.readouterr().out))]
    assert [row["branches"] for row in rows] == ["as trained", "folded", ""]
    assert int(rows[1]["params"]) == 4_629_973 < int(rows[0]["params"])


@pytest.mark.slow
def test_published_counts_hold(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["count_params.py", "--check"])
    assert count_params.main() == 0, capsys.readouterr().out


def test_a_count_that_differs_is_reported(monkeypatch):
    monkeypatch.setattr(count_params, "PUBLISHED", (("resnet18+unet", 117, (512, 512), 14_242_518, None, 0),))
    texts = count_params.differences(["resnet18+unet"])
    assert texts == ["resnet18+unet: 14,242,517 parameters, published 14,242,518"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("resnet81",), "did you mean resnet18"),
        (("resnet18+unot",), "unknown decoder 'unot'"),
        (("resnet18+",), "unknown decoder ''"),
        (("stunet_s", "--size", "512", "512"), "D H W"),
        (("stunet_s", "--size", "100", "128", "128"), "divisible by 32"),
        (("resnet18", "--num-classes", "0"), "--num-classes 0"),
        ((), "no network named"),
    ],
)
def test_bad_input_is_one_line(flags, says, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["count_params.py", *flags])
    with pytest.raises(Problem, match=re.escape(says)) as problem:
        count_params.main()
    assert "\n" not in str(problem.value)


def test_bad_input_ends_with_one_line_and_status_2():
    done = count()
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1


def test_tiles_and_voxels_of_the_reference_volume():
    """By hand: 300, 256 and 256 voxels at 1.5 mm; three tiles a side at 0.8, four along the body at 0.5."""
    voxels = costs.resampled(costs.VOXELS, costs.SPACING_MM, 1.5)
    assert voxels == (300, 256, 256)
    assert costs.tiles(voxels, 0.8) == 3 * 3 * 3 and costs.tiles(voxels, 0.5) == 4 * 3 * 3
    assert costs.tiles((150, 128, 128), 0.8) == 2 and costs.tiles((60, 128, 128), 0.5) == 1


def test_the_synthetic_ct_is_normalised_over_the_body():
    image = inputs.ct((64, 96, 80), 2)
    assert image.shape == (2, 1, 64, 96, 80) and torch.equal(image, inputs.ct((64, 96, 80), 2))
    middle = image[0, 0, 32]
    assert middle.min() < -1 and middle.max() > 1, "air and bone"
    assert abs(float(middle[48, 40])) < 1, "soft tissue"


def test_what_does_not_fit_into_memory_is_refused_before_it_is_made(monkeypatch):
    """STU-Net-H has 1457 M parameters: 5.8 GB of weights, three times over."""
    monkeypatch.setattr(machine, "free_gb", lambda: 8.0)
    case = Case(model="stunet_h", mode="baseline", size=(128, 128, 64), classes=117)
    assert "GB of memory, 8.0 GB are free" in worker.too_large_volume(case)
    assert not worker.too_large_volume(msgspec.structs.replace(case, model="stunet_s"))


def test_costs_by_hand(tmp_path):
    """Latencies of 50 ms (2D), 1 s (a patch), 2 and 2.2 s (a tile of STU-Net-S) and 3 s (one of five networks)."""
    flat = Case(model="resnet18", decoder="unet", mode="baseline", size=(512, 512), classes=117)
    patch = Case(model="stunet_s", mode="baseline", size=(128, 128, 64), classes=117)
    cube = msgspec.structs.replace(patch, size=(128, 128, 128))
    fifth = Case(model="totalsegmentator", mode="baseline", size=(128, 128, 128), classes=25)
    run_log = RunLog(tmp_path / "a")
    for number in (1, 2):
        started = f"2026-01-0{number}T00:00:00+00:00"
        run_log.begin(header(started))
        run_log.append(MachineSpeed(threads=1, started=started, reference_ms=[(3, 1)] * 60, peak_gflops={}))
        for case, latency in {flat: 50, patch: 1000, cube: 2000, fifth: 3000}.items():
            ms = latency * (1.1 if number == 2 and case == cube else 1)
            run = Run(case=case, round=number, started=started)
            run.samples_ms, run.reference_ms, run.gmacs, run.params = [ms] * 4, [(3, 1)] * 5, 100, 10**7
            run.memory_mb, run.phases_s = 460, {"prepare": 1}
            run_log.append(run)
    results = Results([run_log])
    rows = costs.equivalents(results).set_index(["model", "size"])
    assert rows.eq_s["resnet18", "512x512"] == pytest.approx(20) and rows.eq_s[
        "stunet_s", "128x128x64"
    ] == pytest.approx(4)
    assert rows.gmacs_slice["stunet_s", "128x128x64"] == 25 and rows.peak_gb["stunet_s", "128x128x64"] == 0.5
    whole = costs.costs(results).set_index("way")
    assert whole.ct_s["resnet18 + UNet"] == pytest.approx(300 / 20)
    deep = whole.loc["STU-Net-S, 1.5 mm"]
    assert deep.ct_s == pytest.approx(27 * (2 * 2.2) ** 0.5) and deep.ct_all_s == pytest.approx(27 * 2.1)
    assert deep.inferences_half == 36
    assert whole.ct_s["TotalSegmentator, 1.5 mm"] == pytest.approx(5 * 27 * 3)
    assert whole.ct_tmac["TotalSegmentator, 1.5 mm"] == pytest.approx(5 * 27 * 0.1)
    spread = report.sessions_apart(results).set_index(["network", "size"]).spread
    assert spread["stunet_s", "128x128x128"] == pytest.approx(1.1) and spread["resnet18", "512x512"] == 1


@pytest.mark.slow
def test_a_slice_and_a_volume_side_by_side(script, run_here, monkeypatch):
    """In this process, and with smaller volumes than the real ones."""
    for module in (official, costs):
        monkeypatch.setattr(module, "PATCH", (64, 64, 32))
        monkeypatch.setattr(module, "TILE", (64, 64, 64))
    flags = ("--models", "lcnet_100", "--volumes", "stunet_s", "--modes", "baseline", "--num-classes", "3")
    flags += ("--rounds", "1", "--samples", "1", "--out", str(script.out))
    assert run_here(official.BENCHMARK, *flags) == 0
    rows = script.table("benchmark_official_results.csv")
    assert (rows.status == "ok").all() and len(rows) == 4
    patch = rows[rows["size"] == "64x64x32"].iloc[0]
    assert patch.eq_s == pytest.approx(4e3 / patch.latency_ms, rel=1e-4)
    rows = pd.read_csv(script.out / "benchmark_official_results.csv", keep_default_na=False)
    ways = costs.networks(rows[rows["size"] != "64x64x32"]).replace("STU-Net-S", "STU-Net-S, 1.5 mm")
    assert [*script.table("benchmark_official_costs.csv").way] == [*ways]
    assert (script.out / "benchmark_official_plot.png").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--volumes", "stunet_x"), "did you mean stunet_"),
        (("--weights", "nowhere.pth"), "name it with --volumes"),
        (("--volumes", "stunet_s", "--weights", "nowhere.pth"), "no such file"),
    ],
)
def test_bad_volumes_and_weights_are_one_line(flags, says):
    with pytest.raises(Problem) as problem:
        parse(official.BENCHMARK.defaults, "", flags).check()
    assert says in str(problem.value) and "\n" not in str(problem.value)
