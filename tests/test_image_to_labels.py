"""Where the time goes on the way to labels: a network's stages, and the picture that sets them beside whole CTs."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import time_to_labels
from benchmarks.labels import kernels, parts
from segbench.cases import Case
from segbench.problem import Problem

from .conftest import ROOT

LABELS, WHOLE_CT = ROOT / "benchmarks" / "labels", ROOT / "benchmarks" / "whole_ct"


def test_a_part_is_what_a_stage_takes_beyond_the_one_before(monkeypatch):
    taken = {"encoder": [1, 1, 2], "decoder": [3, 4, 4], "logits": [7, 7, 7], "argmax": [9, 8, 9], "labels": [4, 5, 5]}
    monkeypatch.setattr(parts, "stages", lambda case: {})
    monkeypatch.setattr(parts, "in_turn", lambda calls, turns: {k: np.array(v) / 1e3 for k, v in taken.items()})
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64), decoder="fpn", classes=3)
    measured = {(row["output"], row["part"]): row["ms"] for row in parts.rows(case, 3)}
    argmax = {"encoder": 1, "decoder": 2, "logits": 3, "argmax": 2}
    labels = {"encoder": 1, "decoder": 2, "labels": 1}
    expected = {("argmax", k): v for k, v in argmax.items()} | {("labels", k): v for k, v in labels.items()}
    assert measured == pytest.approx(expected)


def test_bars_of_a_ct_are_as_long_as_its_parts_together():
    runs = pd.read_csv(next((WHOLE_CT / "runs").glob("*.csv")))
    frame = time_to_labels.cts(WHOLE_CT)
    stock = runs[(runs.model == "stunet_s") & (runs.export == "torch") & (runs.machine == frame.machine.iloc[0])]
    columns = ["resampling_in_s", "network_s", "stitching_s", "logits_resampled_s", "argmax_s"]
    seconds = stock[columns].sum(axis=1).mean()
    bar = frame[frame.panel.str.endswith("stunet_s") & (frame.bar == "nnU-Net, eager")]
    assert bar.seconds.sum() == pytest.approx(seconds)
    known = {part for of_purpose in time_to_labels.PURPOSES.values() for part in of_purpose}
    assert set(frame.part) <= known, "a part without a colour would be left out of the picture"


@pytest.mark.slow
def test_stages_are_measured_and_drawn_beside_whole_cts(tmp_path, monkeypatch):
    """In this process, at 64x64 and with five classes."""
    out = tmp_path / "benchmarks" / "labels"
    monkeypatch.setattr(parts, "Case", lambda **given: Case(**given | {"size": (64, 64), "classes": 5}))
    monkeypatch.setattr(parts, "set_up", lambda threads: None)
    monkeypatch.setattr(parts.machine, "usable_cores", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["parts.py", "--model", "lcnet_100", "--turns", "3", "--out", str(out)])
    parts.main()
    (path,) = (out / "parts").glob("*.csv")
    frame = pd.read_csv(path)
    assert set(frame["mode"]) >= {"baseline+retained", "openvino+nhwc"} and set(frame.decoder) == {"fpn", "unet"}
    assert (frame[frame.part == "encoder"].ms > 0).all()
    runs = shutil.copytree(WHOLE_CT / "runs", tmp_path / "benchmarks" / "whole_ct" / "runs")
    for run_log in runs.glob("*.csv"):
        pd.read_csv(run_log).assign(machine=frame.machine[0]).to_csv(run_log, index=False)
    shown, draw = time_to_labels.picture(tmp_path)
    figure = draw()
    assert [panel.get_title(loc="left") for panel in figure.axes] == [*shown.panel.unique()]
    assert "lcnet_100" in shown.panel.iloc[0] and shown.seconds.notna().all()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [({"turns": 2}, "--turns is less than 3"), ({"model": "resnet"}, "resnet is not an encoder of the zoo")],
)
def test_bad_flags_of_parts_are_one_line(wrong, says):
    with pytest.raises(Problem, match=says) as problem:
        parts.check(parts.Settings(**wrong))
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("wrong", "says"), [({"pairs": 2}, "--pairs is less than 3"), ({}, "--skip-large leaves it out")]
)
def test_bad_flags_of_kernels_are_one_line(wrong, says, monkeypatch):
    monkeypatch.setattr(kernels.machine, "free_gb", lambda: 2.0)
    with pytest.raises(Problem, match=says) as problem:
        kernels.check(kernels.Settings(**wrong))
    assert "\n" not in str(problem.value)
    kernels.check(kernels.Settings(skip_large=True))


def test_a_kernel_is_compared_with_the_fastest_other_call(monkeypatch):
    seconds = {"fused": [0.01, 0.02, 0.01], "eager": [0.09, 0.08, 0.09], "compiled": [0.04, 0.04, 0.01]}
    monkeypatch.setattr(kernels, "in_turn", lambda calls, pairs: {name: np.array(seconds[name]) for name in calls})
    labels = torch.tensor([0, 1, 2, 3])
    calls = {"fused": lambda: labels, "eager": lambda: torch.tensor([0, 1, 2, 2]), "compiled": lambda: labels}
    row = kernels.compare("kernel", calls, {"bytes": 7}, 3)
    assert (row["ms"], row["eager_ms"], row["compiled_ms"]) == pytest.approx((10, 90, 40))
    assert row["fastest_other"] == "compiled" and row["ratio"] == pytest.approx((4 * 2 * 1) ** (1 / 3))
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"] and row["same_labels"] == 0.75 and row["bytes"] == 7


@pytest.mark.parametrize("name", ["parts.py", "kernels.py"])
def test_an_output_that_cannot_be_written_is_exit_status_2(name):
    flags = ["--out", "/proc/nowhere", *(["--skip-large"] if name == "kernels.py" else [])]
    done = subprocess.run([sys.executable, LABELS / name, *flags], capture_output=True, text=True)
    assert done.returncode == 2 and "cannot be written to" in done.stderr and done.stderr.count("\n") == 1, done.stderr
