"""What is compared with what: outputs with eager ones, run logs with run logs, measurements with limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from benchmarks.precision import benchmark as precision
from benchmarks.precision import report
from segbench import inputs, models, modes, runtimes
from segbench.analysis.compare import compare
from segbench.cases import Case
from segbench.machine import describe
from segbench.measure import check
from segbench.models.custom import CustomNetwork
from segbench.problem import Problem
from segbench.records import Run
from segbench.run_log import RunLog
from segbench.runtimes import conversion
from tools import export, recommend

from .conftest import ROOT

SIZE = (16, 24)
HERE = describe()


def conv(classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, classes, 3, padding=1)


class Net(nn.Module):
    """A convolution, and what a test makes of its output and its input."""

    def __init__(self, change, classes: int = 5):
        super().__init__()
        self.conv, self.change, self.calls = conv(classes), change, 0

    def forward(self, image):
        self.calls += 1
        return self.change(self, image)


CHANGES = {
    "argmax": lambda self, x: self.conv(x).argmax(1),
    "truth values": lambda self, x: self.conv(x) > 0,
    "zeros": lambda self, x: self.conv(x) * 0,
    "changes its input": lambda self, x: self.conv(x.sub_(0.1).div_(0.5)),
    "several": lambda self, x: {"logits": self.conv(x), "deep": [self.conv(x)[..., ::2, ::2], x.mean((2, 3))]},
}


def ready(network: nn.Module) -> CustomNetwork:
    return CustomNetwork(network).eval().requires_grad_(False)


def checked(network: nn.Module, mode: str, cache, calls: int = 3) -> Run:
    """The run of a network after some calls of a mode."""
    run, image = Run(case=Case(model="mine:net", mode=mode, size=SIZE, classes=5, threads=1)), inputs.photograph(SIZE)
    network = ready(network)
    prepared = runtimes.of_mode(modes.MODES[mode]).prepare(network, image, modes.MODES[mode], 1, cache)
    for _ in range(calls):
        result = prepared.call()
    check.check_output(run, network, image, prepared.outputs(result))
    return run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", ["baseline", "openvino", pytest.param("mnn", marks=pytest.mark.slow)])
def test_outputs_of_any_kind_are_compared(change, mode, cache):
    run = checked(Net(CHANGES[change]), mode, cache)
    assert (run.status, run.reason) == ("ok", "")
    assert run.rel_error is None if change in ("argmax", "truth values") else run.rel_error < 1e-6


@pytest.mark.parametrize(
    "change", [lambda self, x: self.conv(x) * self.calls, lambda self, x: nn.functional.dropout(self.conv(x), 0.5)]
)
def test_a_network_that_differs_from_call_to_call_is_called_so(change, cache):
    for mode in ("baseline", "openvino"):
        run = checked(Net(change), mode, cache)
        assert run.status == "wrong" and "differs from call to call" in run.reason


def test_the_input_of_a_call_is_what_was_fed_last(cache):
    network, other = ready(Net(CHANGES["changes its input"])), inputs.photograph(SIZE).flip(3)
    prepared = runtimes.of_mode(modes.MODES["baseline"]).prepare(
        network, inputs.photograph(SIZE), modes.MODES["baseline"], 1, cache
    )
    prepared.feed(other)
    expected = conv()((other - 0.1) / 0.5)
    assert all(torch.allclose(prepared.call()[0], expected, atol=1e-5) for _ in range(2))


@pytest.mark.parametrize(
    ("change", "is_wrong"),
    [
        (lambda self, x: torch.from_numpy(self.conv(x).numpy()), True),
        (lambda self, x: self.conv(x) if x[0, 0, 0, 0] == inputs.photograph(SIZE)[0, 0, 0, 0] else x, True),
        (lambda self, x: self.conv(x), False),
    ],
)
def test_a_trace_that_holds_one_input_is_found_by_another(change, is_wrong, cache):
    network, image, mode = ready(Net(change)), inputs.photograph(SIZE), modes.MODES["openvino"]
    prepared = runtimes.of_mode(mode).prepare(network, image, mode, 1, cache)
    assert bool(check.on_another_input(network, image, prepared, "openvino")) == is_wrong


WANTED = [torch.tensor([[3.0, 4.0]]), torch.tensor([1, 2, 3])]


@pytest.mark.parametrize(
    ("outputs", "says"),
    [
        ([WANTED[0] + 1e-6, WANTED[1]], ""),
        ([WANTED[0], WANTED[1].int()], ""),
        ([WANTED[0]], "1 outputs instead of 2"),
        ([WANTED[0], torch.tensor([1, 2, 4])], "output 2: 66.667% of the values are the same"),
        ([torch.tensor([[3.0, 4.005]]), WANTED[1]], "output 1: relative error 0.001 exceeds 0.0001"),
        ([WANTED[0].T, WANTED[1]], "output 1: shape (2, 1) instead of (1, 2)"),
    ],
)
def test_every_output_counts(outputs, says):
    reason = check.difference(outputs, WANTED, "baseline")
    assert reason.startswith(says) and bool(reason) == bool(says)


def test_an_error_is_over_what_is_expected_unless_that_is_zero():
    zeros = torch.zeros(2)
    assert check.relative_error(zeros, zeros) == 0
    assert check.relative_error(torch.tensor([3.0, 4.0]), zeros) == 5


def test_why_an_export_failed_is_its_cause(tmp_path):
    network = ready(Net(lambda self, x: self.conv(x) if self.conv(x).sum() > 0 else x))
    with pytest.raises(RuntimeError, match="data-dependent") as error:
        conversion.onnx(network, inputs.photograph(SIZE), tmp_path, modes.find("onnxruntime"))
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value)


LABELS = {
    "one class": (Net(lambda self, x: self.conv(x), 1), lambda out: out[:, 0] > 0),
    "one map": (Net(lambda self, x: self.conv(x)[:, 0].sigmoid()), lambda out: out > 0.5),
    "argmax": (Net(CHANGES["argmax"]), lambda out: out),
    "classes": (Net(lambda self, x: (self.conv(x), x)), lambda out: out.argmax(1)),
    "encoder": (Net(lambda self, x: self.conv(x)[..., ::4, ::4]), None),
}


@pytest.mark.parametrize("runtime", ["openvino", pytest.param("onnxruntime", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", LABELS)
def test_the_artefact_makes_labels_of_any_first_output(kind, runtime, tmp_path, monkeypatch):
    network, labels_of = LABELS[kind]
    network = ready(network)
    monkeypatch.setattr(models, "build", lambda case, source: network)
    case, out = Case(model="mine:net", mode=runtime, size=SIZE, threads=1), tmp_path / "artefact"
    export.export(case, "", out)
    assert out.stat().st_mode & 0o777 == 0o777 & ~umask(out.parent)
    needed = (out / "requirements.txt").read_text().splitlines()
    assert [line.split("==")[0] for line in needed] == [runtime, "numpy"]
    image = inputs.photograph(SIZE).flip(3)
    np.save(tmp_path / "image.npy", image.numpy())
    command = [sys.executable, out / "run.py", tmp_path / "image.npy", tmp_path / "labels.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    if labels_of is None:
        assert done.returncode == 1 and "no map of the image's size 16x24" in done.stderr, done.stderr
        return
    assert done.returncode == 0 and done.stdout.startswith("a call took "), done.stderr
    expected = labels_of(network(image)[0])
    labels = np.load(tmp_path / "labels.npy")
    assert labels.shape == (1, *SIZE) and (labels == expected.numpy()).mean() > 0.99


def umask(folder: Path) -> int:
    probe = folder / "probe"
    probe.mkdir()
    return 0o777 & ~probe.stat().st_mode


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"network": "mine:net", "num_classes": 5}, "--num-classes is not for --network"),
        ({"network": "mine:net", "weights": Path("x.pt")}, "--weights is not for --network"),
        ({"network": "mine.py:net"}, "say mine:net"),
        ({"network": "nowhere_at_all:net"}, "neither installed nor in "),
        ({"model": "resnet*"}, "name one of them"),
        ({"model": "resnet17"}, r"^unknown model 'resnet17' \(did you mean [^;]*$"),
        ({"model": "resnet18", "decoder": "fpn", "output": "labels", "num_classes": 40000}, "up to 32,768 classes"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_flags_that_there_are(tmp_path, given, says):
    with pytest.raises(Problem, match=says):
        export.case_of(export.Settings(out=tmp_path / "new", **given))


TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py") if "exit_with(main" in path.read_text())


@pytest.mark.parametrize("tool", [*((name, "--help") for name in TOOLS), ("count_params.py", "lcnet_050")])
def test_nobody_reads_what_a_tool_says_and_it_ends_quietly(tool):
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, ROOT / "tools" / tool[0], *tool[1:]]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def copy_of(folder: Path, to: Path, keep=lambda case: True) -> RunLog:
    """A run log with the runs of some cases alone; its sessions get other names."""
    to.mkdir(parents=True)
    for path in folder.glob("*.jsonl"):
        lines = [line for line in path.read_text().splitlines() if keep(json.loads(line).get("case", {}))]
        (to / f"copy-{path.name}").write_text("\n".join(lines) + "\n")
    return RunLog.read(to)


@pytest.mark.parametrize(
    ("log", "kept"),
    [("labels/run_logs/amd-26.2-2c", "argmax"), ("batch_sizes/run_logs/amd-26.2-2c", "")],
)
def test_the_same_runs_are_never_faster_or_slower(tmp_path, log, kept):
    folder = ROOT / "benchmarks" / log
    first, counted = RunLog.read(folder), {"", kept}
    second = copy_of(folder, tmp_path / folder.name, lambda case: not case or case.get("output", "") in counted)
    rows = compare(first, second)
    cases, partners = {run.case for run in first.runs}, {run.case for run in second.runs}
    assert len(rows) == len(partners) and rows.attrs["without_partner"] == (len(cases - partners), 0)
    assert set(rows.verdict.str.split(":").str[0]) <= {"tied", "refused"}
    assert (rows[rows.verdict == "tied"].ratio - 1).abs().max() < 1e-9


def test_a_looser_limit_never_gives_a_slower_best():
    """Two measurements of one case: the narrow one is slower, and the limits lie between both and beyond."""
    about = {"status": "ok", "output": "logits", "batch_size": 1, "size": "512x512"}
    about |= {"decoder": "fpn", "precision": "fp32", "classes": 117, "mode": "openvino", "in_chans": 3, "threads": 2}
    about |= {"memory_mb": 1.0, "params_m": 1.0, "top1": 70.0}
    rows = pd.DataFrame(
        [
            about | {"model": model, "latency_ms": ms, "throughput_low": 1e3 / ms / wide, "throughput_high": 1e3 / ms}
            for model, ms, wide in (("a", 20.7, 1.3), ("a", 22.5, 1.1), ("b", 21.1, 1.1))
        ]
    )
    best = []
    for limit in ("21ms", "21.5ms", "22ms", "23ms", "30ms"):
        settings = recommend.Settings(decoder="fpn", latency=limit, by=("latency",))
        try:
            best.append(recommend.front(recommend.meeting(rows, settings), settings.by).latency_ms.iloc[0])
        except Problem:
            best.append(np.inf)
    assert best == sorted(best, reverse=True) and best[-1] == 21.1


def evidence(model: str, slices: int) -> pd.DataFrame:
    about = {"machine": "m", "cpu": "c", "model": model, "decoder": "fpn"}
    return pd.DataFrame(
        [
            about | {"mode": mode, "image": image, "class": "vessel", "dice": 0.5 + image / 10 + change}
            for mode, change in (("baseline", 0), ("openvino", 0.01))
            for image in range(slices)
        ]
    )


def test_evidence_of_other_networks_stays_and_is_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(precision.machine, "describe", lambda: msgspec.structs.replace(HERE, name="m"))
    (tmp_path / "images").mkdir()
    path = tmp_path / "images" / "m.csv"
    evidence("resnet18", 3).to_csv(path, index=False)
    flags = {"out": tmp_path, "decoders": ("fpn",), "modes": ("baseline", "openvino")}
    from benchmarks.precision import trial

    monkeypatch.setattr(trial, "measure", lambda settings: evidence(settings.model, settings.images).to_dict("records"))
    precision.measure(precision.Settings(model="lcnet_100", images=2, **flags))
    rows = pd.read_csv(path)
    assert rows.groupby("model").size().to_dict() == {"resnet18": 6, "lcnet_100": 4}
    summary = report.summary(rows)
    assert summary.set_index(["model", "mode", "class"]).images["lcnet_100", "openvino", "mean"] == 2
    assert set(report.shown(summary).encoder) == {"resnet18", "lcnet_100"}
    with pytest.raises(Problem, match="3 slices, not 1"):
        precision.check(precision.Settings(model="resnet18", images=1, **flags))
    with pytest.raises(Problem, match="modes openvino too"):
        precision.check(precision.Settings(model="resnet18", images=3, **flags | {"modes": ("baseline",)}))
