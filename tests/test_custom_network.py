"""A network of the user's own, by real runs on a tiny one."""

import subprocess
import sys

import pandas as pd
import pytest
import torch

from segbench import custom_network
from segbench.cases import Case
from segbench.models import build
from segbench.problem import Problem

from .conftest import ROOT

RUNTIMES = ROOT / "benchmarks" / "runtimes" / "benchmark.py"
MODULE = """
import torch
from torch import nn

print("a module that talks")

class Dictionary(nn.Module):
    def __init__(self, channels=1, kind=nn.Conv2d):
        super().__init__()
        self.one = kind(channels, 4, 3, padding=1)

    def forward(self, x):
        return {"out": self.one(x).relu(), "depth": 3, "more": [x[:, :1]]}

def flat():
    return Dictionary()

def deep():
    return Dictionary(2, nn.Conv3d)

def nothing():
    return "no network"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def case(function: str, *size: int, in_chans: int = 1) -> Case:
    return Case(model=f"mine:{function}", mode="baseline", size=size, in_chans=in_chans)


def test_whatever_holds_the_tensors_they_come_out_in_order(folder):
    network = build(case("flat", 8, 12), folder)
    image = torch.randn(1, 1, 8, 12)
    first, second = network(image)
    assert first.shape == (1, 4, 8, 12) and torch.equal(second, image)
    assert build(case("deep", 4, 8, 12), folder)(torch.randn(1, 2, 4, 8, 12))[0].shape == (1, 4, 4, 8, 12)


def test_what_it_is_is_known_before_it_is_measured(folder):
    flat = custom_network.describe(case("flat", 8, 12), str(folder))
    assert flat.classes == 4 and flat == custom_network.describe(case("flat", 8, 12), str(folder))
    assert flat.digest != custom_network.describe(msgspec_seed(case("flat", 8, 12), 1), str(folder)).digest
    for asked, says in (
        (case("flat", 8, 12, in_chans=3), r"given \(1, 3, 8, 12\): --size and --in-chans"),
        (Case(model="nowhere_at_all:f", mode="baseline", size=(8, 8)), "No module named 'nowhere_at_all'"),
    ):
        with pytest.raises(Problem, match=says) as problem:
            custom_network.describe(asked, str(folder))
        assert "\n" not in str(problem.value)


def test_what_returns_no_network_is_said(folder):
    with pytest.raises(TypeError, match=r"returned str, not a torch.nn.Module"):
        build(case("nothing", 8, 12), folder)
    with pytest.raises(AttributeError, match="absent"):
        build(case("absent", 8, 12), folder)


def msgspec_seed(of: Case, seed: int) -> Case:
    import msgspec

    return msgspec.structs.replace(of, seed=seed)


def test_its_parameters_are_counted(folder):
    def count(*flags: str) -> subprocess.CompletedProcess:
        command = [sys.executable, ROOT / "count_params.py", "--network", *flags]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)

    done = count("mine:flat", "--in-chans", "1", "--size", "8", "12", "--format", "csv")
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()[-2:]
    found = dict(zip(header.split(","), row.split(","), strict=True))
    assert int(found["params"]) == 4 * 9 + 4 and float(found["gmacs"]) == pytest.approx(8 * 12 * 4 * 9 / 1e9)
    wrong = count("mine:flat", "--size", "8", "12")
    assert wrong.returncode == 2 and "(1, 3, 8, 12)" in wrong.stderr and wrong.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_whole_table_for_it_with_one_command(script, folder, monkeypatch):
    monkeypatch.chdir(folder)
    script.path = RUNTIMES
    flags = ("--network", "mine:flat", "--in-chans", "1", "--modes", "baseline", "onnxruntime", "openvino")
    done = script.run(*flags, "--rounds", "1", XDG_CACHE_HOME=str(folder / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = script.table()
    assert set(rows.model) == {"mine:flat"} and (rows.status == "ok").all() and (rows.family == "own").all()
    assert (rows.classes == 4).all() and (rows.argmax_agreement > 0.99).all()
    assert isinstance(rows, pd.DataFrame) and (script.out / "benchmark_plot.png").exists()
