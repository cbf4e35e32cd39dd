"""A user's network, by real runs on a tiny one."""

import json
import subprocess
import sys

import msgspec
import pytest
import torch

from benchmarks.runtimes import benchmark as runtimes
from segbench import custom_network
from segbench.cases import Case
from segbench.models import build
from segbench.problem import Problem

from .conftest import ROOT

MODULE = """
import dataclasses
import sys

import torch
from torch import nn

print("a module that talks")

class Dictionary(nn.Module):
    def __init__(self, channels=1, kind=nn.Conv2d):
        super().__init__()
        self.conv = kind(channels, 4, 3, padding=1)

    def forward(self, x):
        return {"out": self.conv(x).relu(), "depth": 3, "more": [x[:, :1]]}

def flat():
    return Dictionary()

def deep():
    return Dictionary(2, nn.Conv3d)

@dataclasses.dataclass
class Outputs:
    logits: object
    more: list

class Structured(Dictionary):
    def forward(self, x):
        return Outputs(self.conv(x), [x])

def structured():
    return Structured()

def compiled():
    return torch.compile(Dictionary())

def exported():
    return torch.export.export(nn.Conv2d(1, 4, 3, padding=1), (torch.zeros(1, 1, 8, 12),)).module()

def leaves():
    sys.exit(0)

def meta():
    return Dictionary().to("meta")

def double():
    return Dictionary().double()

def nothing():
    return "no network"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    (folder / "mine.py").write_text(MODULE)
    return folder


def case(function: str, *size: int, in_chans: int = 1) -> Case:
    return Case(model=f"mine:{function}", mode="baseline", size=size, in_chans=in_chans)


def test_whatever_holds_the_tensors_they_come_out_in_order(folder):
    network = build(case("flat", 8, 12), folder)
    image = torch.randn(1, 1, 8, 12)
    first, second = network(image)
    assert first.shape == (1, 4, 8, 12) and torch.equal(second, image)
    assert build(case("deep", 4, 8, 12), folder)(torch.randn(1, 2, 4, 8, 12))[0].shape == (1, 4, 4, 8, 12)


def test_dataclasses_and_exported_programs_run(folder):
    image = torch.randn(1, 1, 8, 12)
    first, second = build(case("structured", 8, 12), folder)(image)
    assert first.shape == (1, 4, 8, 12) and torch.equal(second, image)
    assert build(case("exported", 8, 12), folder)(image)[0].shape == (1, 4, 8, 12)
    assert type(build(case("compiled", 8, 12), folder).encoder).__name__ == "Dictionary"  # else baseline is compiled


def describe_here(case: Case, folder, monkeypatch, capsys) -> custom_network.Description:
    """What the child does, in this process."""
    monkeypatch.setattr(sys, "argv", ["-c", msgspec.json.encode(case).decode(), str(folder)])
    custom_network.describe_to_parent()
    answer = capsys.readouterr().out.splitlines()[-1]
    return custom_network.Description(**json.loads(answer.removeprefix(custom_network.ANSWER)))


def test_classes_and_digest_are_known_before_it_is_measured(folder, monkeypatch, capsys):
    flat = case("flat", 8, 12)
    description = custom_network.describe(flat, str(folder))
    assert description.classes == 4 and description == describe_here(flat, folder, monkeypatch, capsys)
    other = describe_here(msgspec.structs.replace(flat, seed=1), folder, monkeypatch, capsys)
    assert other.classes == 4 and other.digest != description.digest


def test_bad_networks_are_one_line(folder, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"given \(1, 3, 8, 12\) in float32: --size and --in-chans"):
        describe_here(case("flat", 8, 12, in_chans=3), folder, monkeypatch, capsys)
    for function, says in (("meta", "device meta"), ("double", r"network\.float\(\)")):
        with pytest.raises(SystemExit, match=says):
            describe_here(case(function, 8, 12), folder, monkeypatch, capsys)
    for name, says in (
        ("mine:leaves", r"it calls sys\.exit: 0"),
        ("nowhere_at_all:f", "No module named 'nowhere_at_all'"),
        ("mine", "say package.module:function"),
    ):
        with pytest.raises(Problem, match=says) as problem:
            custom_network.describe(Case(model=name, mode="baseline", size=(8, 8)), str(folder))
        assert "\n" not in str(problem.value)


def test_a_function_that_returns_no_network_is_an_error(folder):
    with pytest.raises(TypeError, match=r"returned str, not a torch.nn.Module"):
        build(case("nothing", 8, 12), folder)
    with pytest.raises(AttributeError, match="absent"):
        build(case("absent", 8, 12), folder)


def test_its_parameters_are_counted(folder):
    flags = ["--network", "mine:flat", "--in-chans", "1", "--size", "8", "12", "--format", "csv"]
    command = [sys.executable, ROOT / "count_params.py", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, row = done.stdout.splitlines()[-2:]
    counts = dict(zip(header.split(","), row.split(","), strict=True))
    assert int(counts["params"]) == 4 * 9 + 4 and float(counts["gmacs"]) == pytest.approx(8 * 12 * 4 * 9 / 1e9)


@pytest.mark.slow
def test_the_whole_table_for_it_with_one_command(script, run_here, folder, monkeypatch):
    monkeypatch.chdir(folder)
    flags = ("--network", "mine:flat", "--in-chans", "1", "--modes", "baseline", "onnxruntime", "--rounds", "1")
    assert run_here(runtimes.BENCHMARK, *flags, "--size", "8", "12", "--out", str(script.out)) == 0
    rows = script.table()
    assert set(rows.model) == {"mine:flat"} and (rows.status == "ok").all() and (rows.family == "own").all()
    assert (rows.classes == 4).all() and (rows.argmax_agreement > 0.99).all()
    assert (script.out / "benchmark_plot.png").exists()
