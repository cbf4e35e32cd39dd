"""benchmarks/precision: the task, Dice and its interval, and the command on a tiny case."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_1samp

from benchmarks.precision import benchmark, report, task, trial
from segbench.problem import Problem

from .conftest import ROOT

PRECISION = ROOT / "benchmarks" / "precision"


def test_a_slice_is_always_the_same_and_has_thin_and_small_things():
    image, labels = task.make(7, 256)
    again, _ = task.make(7, 256)
    other, _ = task.make(8, 256)
    assert np.array_equal(image, again) and not np.array_equal(image, other)
    assert image.dtype == np.float32 and set(np.unique(labels)) <= {*range(len(task.CLASSES))}
    _, many = task.batch(range(40), 256)
    shares = [float((many == label).float().mean()) for label in range(1, len(task.CLASSES))]
    large, small, wall, vessel, lesion = shares
    assert large > 2 * small and large > 3 * max(wall, vessel, lesion) and min(shares) > 1e-4
    assert task.HELD_OUT > task.CALIBRATION > 400 * 8 * 100


def test_dice_is_that_of_the_counts():
    predicted, truth = torch.tensor([[1, 1, 0], [1, 2, 0]]), torch.tensor([[1, 0, 0], [1, 1, 0]])
    assert trial.dice(predicted, truth, 1) == pytest.approx(2 * 2 / (3 + 3))
    assert np.isnan(trial.dice(predicted, truth, 2)), "a slice without the class says nothing of it"
    shares = torch.nn.functional.one_hot(truth[None], 3).permute(0, 3, 1, 2).float()
    assert float(trial.soft_dice(shares, truth[None])) == pytest.approx(1)


def test_a_difference_is_over_the_same_images_with_its_interval():
    chance = np.random.default_rng(0)
    eager, lower = chance.uniform(0.5, 1, 30), chance.uniform(0.4, 1, 30)
    about = {"machine": "m", "cpu": "c", "model": "net", "decoder": "fpn"}
    rows = [
        about | {"mode": mode, "image": image, "class": "vessel", "dice": scores[image]}
        for mode, scores in (("baseline", eager), ("openvino-int8", lower))
        for image in chance.permutation(30)
    ]
    row = report.summary(pd.DataFrame(rows)).set_index(["mode", "class"]).loc["openvino-int8", "vessel"]
    expected = ttest_1samp(lower - eager, 0).confidence_interval(0.95)
    assert row.difference == pytest.approx((lower - eager).mean())
    assert (row.difference_low, row.difference_high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"model": "resnet17"}, r"unknown model 'resnet17' \(did you mean resnet1"),
        ({"decoders": ()}, "--decoders names no decoder"),
        ({"modes": ("openvino",)}, "--modes without baseline"),
        ({"modes": ("fast",)}, "unknown mode 'fast'"),
        ({"model": "resnet*"}, "more than one"),
        ({"size": 0}, "--size must be divisible by 32"),
        ({"out": Path("/proc/nowhere")}, "cannot be written to"),
    ],
)
def test_bad_flags_are_one_line_before_anything_is_trained(wrong, says):
    with pytest.raises(Problem, match=says) as problem:
        benchmark.check(benchmark.Settings(**wrong))
    assert "\n" not in str(problem.value)


def test_nothing_to_report_is_exit_status_2(tmp_path):
    command = [sys.executable, PRECISION / "benchmark.py", "--report", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "holds no evidence" in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.slow
def test_from_training_to_the_picture(tmp_path, monkeypatch):
    """In this process, with a cache of its own: it keeps trained networks."""
    flags = ["--model", "lcnet_100", "--decoders", "fpn", "--modes", "baseline", "openvino", "--size", "64"]
    flags += ["--steps", "2", "--images", "3", "--out", str(tmp_path)]
    monkeypatch.setattr(trial.machine, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *flags])
    benchmark.main()
    rows = pd.read_csv(tmp_path / "benchmark_results.csv")
    assert set(rows["mode"]) == {"baseline", "openvino"} and (tmp_path / "benchmark_plot.png").exists()
    images = pd.read_csv(next((tmp_path / "images").glob("*.csv"))).dropna()
    vessels = images[(images["class"] == "vessel") & (images["mode"] == "openvino")].dice
    assert rows.set_index(["mode", "class"]).dice["openvino", "vessel"] == pytest.approx(vessels.mean())
    assert rows[rows["mode"] == "openvino"].difference.abs().max() < 0.01
