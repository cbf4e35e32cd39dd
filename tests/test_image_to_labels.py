"""Where the time goes on the way to labels: a network's stages, and the picture that sets them beside whole CTs."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks import time_to_labels
from benchmarks.labels import parts
from segbench.cases import Case

from .conftest import ROOT

LABELS, WHOLE_CT = ROOT / "benchmarks" / "labels", ROOT / "benchmarks" / "whole_ct"


def test_a_part_is_what_a_stage_takes_beyond_the_one_before(monkeypatch):
    taken = {"encoder": [1, 1, 2], "decoder": [3, 4, 4], "logits": [7, 7, 7], "argmax": [9, 8, 9], "labels": [4, 5, 5]}
    monkeypatch.setattr(parts, "stages", lambda case: {})
    monkeypatch.setattr(parts, "in_turn", lambda calls, turns: {k: np.array(v) / 1e3 for k, v in taken.items()})
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64), decoder="fpn", classes=3)
    found = {(row["output"], row["part"]): row["ms"] for row in parts.rows(case, 3)}
    argmax = {"encoder": 1, "decoder": 2, "logits": 3, "argmax": 2}
    labels = {"encoder": 1, "decoder": 2, "labels": 1}
    expected = {("argmax", k): v for k, v in argmax.items()} | {("labels", k): v for k, v in labels.items()}
    assert found == pytest.approx(expected)


def test_bars_of_a_ct_are_as_long_as_its_parts_together():
    runs = pd.read_csv(next((WHOLE_CT / "runs").glob("*.csv")))
    frame = time_to_labels.cts(WHOLE_CT)
    own = runs[(runs.model == "stunet_s") & (runs.export == "torch") & (runs.machine == frame.machine.iloc[0])]
    seconds = own[["resampling_in_s", "network_s", "stitching_s", "logits_resampled_s", "argmax_s"]].sum(axis=1).mean()
    bar = frame[frame.panel.str.endswith("stunet_s") & (frame.bar == "nnU-Net, eager")]
    assert bar.seconds.sum() == pytest.approx(seconds)
    known = {part for of_purpose in time_to_labels.PURPOSES.values() for part in of_purpose}
    assert set(frame.part) <= known, "a part without a colour would be left out of the picture"


@pytest.mark.slow
def test_stages_are_measured_and_drawn_beside_whole_cts(tmp_path):
    out = tmp_path / "benchmarks" / "labels"
    command = [sys.executable, LABELS / "parts.py", "--model", "lcnet_100", "--turns", "3", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (out / "parts").glob("*.csv")
    frame = pd.read_csv(path)
    assert set(frame["mode"]) >= {"baseline", "openvino"} and set(frame.decoder) == {"fpn", "unet"}
    assert (frame[frame.part == "encoder"].ms > 0).all()
    runs = shutil.copytree(WHOLE_CT / "runs", tmp_path / "benchmarks" / "whole_ct" / "runs")
    for run_log in runs.glob("*.csv"):
        pd.read_csv(run_log).assign(machine=frame.machine[0]).to_csv(run_log, index=False)
    figure, shown = time_to_labels.picture(tmp_path)
    assert len(figure.axes) == 3 and shown.seconds.notna().all()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--turns", "2"), "--turns are 3 or more"),
        (("--model", "resnet"), "resnet is none of the 48 encoders"),
        (("--out", "/proc/nowhere"), "cannot be written to"),
    ],
)
def test_bad_flags_are_one_line(flags, says):
    done = subprocess.run([sys.executable, LABELS / "parts.py", *flags], capture_output=True, text=True)
    assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr
