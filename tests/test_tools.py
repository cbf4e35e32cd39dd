"""The tools that choose and that export, on the committed run logs and on tiny networks."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from segbench import machine
from segbench.models import segmenter
from tools import recommend

from .conftest import ROOT

JSON = ("--format", "json")


def run(tool: str, *flags: str, **how) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "tools" / tool, *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, **how)


def test_what_is_recommended_meets_everything_and_nothing_beats_it():
    done = run(
        "recommend.py", "--machine", "amd-25.17-2c", "--decoder", "fpn", "--latency", "0.08s", "--format", "json"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    measured = pd.read_csv(ROOT / "benchmarks" / "fpn_decoder" / "benchmark_results_all.csv")
    measured = measured[measured.machine == "amd-25.17-2c"]
    right = measured[(measured.decoder == "fpn") & (measured.status == "ok") & (measured.latency_ms <= 80)]
    assert rows and all(row["latency_ms"] <= 80 and row["decoder"] == "fpn" for row in rows)
    for row in rows:
        others = right[right.model != row["model"]]  # the same may stand in another benchmark's table, too
        better = others[(others.latency_ms < 0.95 * row["latency_ms"]) & (others.top1 >= (row["top1"] or 0))]
        assert better.empty, f"{better.model.iloc[0]} is faster than {row['model']} and has no lower top-1"
        assert row["throughput_low"] < row["throughput_img_s"] < row["throughput_high"]


def test_a_front_holds_what_nothing_beats_in_everything():
    rows = pd.DataFrame(
        {
            "latency_ms": [10.0, 20, 30, 20],
            "memory_mb": [5.0, 4, 3, 6],
            "params_m": [1.0, 1, 1, 1],
            "top1": [70, float("nan"), 69, 75],
        }
    )
    assert recommend.front(rows, ("latency",)).index.tolist() == [0]
    assert recommend.front(rows, ("latency", "memory")).index.tolist() == [0, 1, 2]
    assert recommend.front(rows, ("latency", "top1")).index.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--latency", "fast"), "--latency 'fast' is no quantity: say 50ms or 50s"),
        (("--memory", "50ms"), "--memory '50ms' is no quantity"),
        (("--latency", "1us"), "no quantity"),
        (("--latency", "0.001ms"), "the least is "),
        (("--min-top1", "99"), "the most is "),
        (("--size", "7", "7"), "there are "),
        (
            ("--machine", "z80-1c", "--decoder", "unet"),
            "z80-1c has no run log yet: run `uv run benchmarks/unet_d",
        ),
    ],
)
def test_what_cannot_be_recommended_is_one_line_and_status_2(flags, says):
    done = run("recommend.py", "--machine", "amd-25.17-2c", *flags)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("resnet18",), "--out names no folder"),
        (("resnet18", "--out", "{tmp}"), "is there already: nothing is overwritten"),
        (("resnet17", "--out", "{tmp}/new"), "unknown model 'resnet17' (did you mean resnet18"),
        (("--out", "{tmp}/new"), "name a model"),
        (("resnet18", "--out", "{tmp}/new", "--runtime", "onnxruntime", "--precision", "bf16"), "no --precision bf16"),
        (("resnet18", "--out", "{tmp}/new", "--weights", "{tmp}/none.pt"), "no such file"),
        (("resnet18", "--out", "{tmp}/new", "--output", "labels"), "only those have a fused argmax"),
        (("resnet18", "--out", "{tmp}/new", "--size", "64"), "--size 64: height and width"),
        (("resnet18", "--out", "{tmp}/new", "--threads", "0"), "--threads 0"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_writes_nothing(tmp_path, flags, says):
    done = run("export.py", *(flag.format(tmp=tmp_path) for flag in flags))
    assert done.returncode == 2 and says in done.stderr.splitlines()[-1], done.stderr
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_an_artefact_runs_with_its_runtime_and_numpy_alone(tmp_path, runtime):
    """In a virtual environment of its own, with trained weights, on another image than that of its card too."""
    torch.manual_seed(1)
    network = segmenter.assemble("lcnet_100", "fpn", 5, (64, 96), in_chans=1)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "trained.pt")
    flags = ("--decoder", "fpn", "--num-classes", "5", "--in-chans", "1", "--size", "64", "96", "--runtime", runtime)
    done = run(
        *("export.py", "lcnet_100", *flags, "--weights", str(tmp_path / "trained.pt")),
        *("--out", str(tmp_path / "artefact"), "--threads", "1"),
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "artefact" / "card.json").read_text())
    assert card["relative_error"] < 1e-4 and card["weights"]["source"] == "trained.pt" and card["classes"] == 5
    assert card["input"]["shape"] == [1, 1, 64, 96]

    shutil.copytree(tmp_path / "artefact", tmp_path / "elsewhere")
    versions = machine.installed((runtime, "numpy"))
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(["uv", "venv", "-q", "--python", sys.executable, tmp_path / "venv"], check=True)
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    subprocess.run(["uv", "pip", "install", "-q", "--python", python, *wanted], check=True)

    def start(*arguments: str) -> subprocess.CompletedProcess:
        command = [python, tmp_path / "elsewhere" / "run.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd="/", env={})

    again = start()
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["relative_error"] == pytest.approx(card["relative_error"], rel=0.05)

    image = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(2))
    np.save(tmp_path / "image.npy", image.numpy())
    labelled = start(str(tmp_path / "image.npy"), str(tmp_path / "labels.npy"))
    assert labelled.returncode == 0, labelled.stderr
    with torch.inference_mode():
        expected = network.eval()(image)[0].argmax(1)
    assert (np.load(tmp_path / "labels.npy") == expected.numpy()).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "runtime"), [("fpn", "openvino"), ("unet", "onnxruntime")])
def test_an_artefact_that_ends_in_labels(tmp_path, decoder, runtime):
    """The cut network with its kernels, without segbench: labels of another image are torch's."""
    torch.manual_seed(1)
    network = segmenter.assemble("lcnet_100", decoder, 5, (70, 96), in_chans=1)
    torch.save(network.state_dict(), tmp_path / "trained.pt")
    flags = ("--decoder", decoder, "--num-classes", "5", "--in-chans", "1", "--size", "70", "96", "--runtime", runtime)
    done = run(
        *("export.py", "lcnet_100", *flags, "--weights", str(tmp_path / "trained.pt"), "--output", "labels"),
        *("--out", str(tmp_path / "artefact"), "--threads", "1"),
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "artefact" / "card.json").read_text())
    assert card["same_labels"] > 0.9999 and not [*(tmp_path / "artefact").glob("__pycache__")]

    image = torch.randn(1, 1, 70, 96, generator=torch.Generator().manual_seed(2))
    np.save(tmp_path / "image.npy", image.numpy())
    command = [sys.executable, "-P", "artefact/run.py", "image.npy", "labels.npy"]
    labelled = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert labelled.returncode == 0, labelled.stderr
    with torch.inference_mode():
        expected = network.eval()(image)[0].argmax(1)
    found = np.load(tmp_path / "labels.npy")
    assert found.shape == (1, 70, 96) and (found == expected.numpy()).mean() > 0.9999

    np.save(tmp_path / "turned.npy", image.transpose(2, 3).numpy())
    for name, says in (("none.npy", "none.npy is not there"), ("turned.npy", "wanted is [1, 1, 70, 96]")):
        command = [sys.executable, "-P", "artefact/run.py", name, "labels.npy"]
        wrong = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert wrong.returncode == 1 and says in wrong.stderr and wrong.stderr.count("\n") == 1, wrong.stderr
