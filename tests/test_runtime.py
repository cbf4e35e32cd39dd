"""A mode is a line, a runtime a file: both are added to a copy of the library and measured with."""

import os
import shutil
import subprocess
import sys

import pandas as pd

from segbench import modes, runtimes
from segbench.run_log import read_all

from .conftest import ENCODER_ONLY, ROOT, TINY

LINE = '        Mode("half a network", "halved", "fp32", {"rows": 32}),\n'
RUNTIME = '''
"""Runs the network on the upper rows of its input, each call at once: what it returns is wrong, and said to be."""

import torch

from segbench.runtimes import Prepared


PACKAGES = ("msgspec",)


def environment(threads):
    return {"HALVED_THREADS": str(threads)}


def prepare(network, example, mode, threads, cache, calibration=None):
    import os

    wanted = mode.options["rows"]

    @torch.inference_mode()
    def call():
        return network(example[..., :wanted, :])

    call()
    ran = {"threads": os.environ["HALVED_THREADS"], "rows": str(wanted)}
    padded = lambda outputs: [torch.cat([o, o], dim=2) if o.dim() == 4 else o for o in outputs]
    return Prepared(call, example.copy_, padded, lambda: ran, {"halve": 0.25}, "")
'''


def test_every_mode_names_a_runtime_and_a_precision_that_there_are():
    for mode in modes.MODES.values():
        runtime = runtimes.of_mode(mode)
        assert "torch" in runtime.versions() and callable(runtime.prepare) and mode.precision in modes.PRECISIONS


def test_no_other_module_reads_a_modes_options():
    for path in (ROOT / "segbench").rglob("*.py"):
        if "runtimes" not in path.parts and path.name != "modes.py":
            assert ".options" not in path.read_text(), path


def test_a_mode_added_by_a_line_and_a_runtime_by_a_file(tmp_path):
    copy = shutil.copytree(ROOT / "segbench", tmp_path / "segbench", ignore=shutil.ignore_patterns("__pycache__"))
    script = shutil.copytree(ENCODER_ONLY.parent, tmp_path / "own", ignore=shutil.ignore_patterns("run_logs", "*.csv"))
    (copy / "runtimes" / "halved.py").write_text(RUNTIME)
    text = (copy / "modes.py").read_text()
    first = "    Mode(BASELINE,"
    assert text.count(first) == 1
    (copy / "modes.py").write_text(text.replace(first, LINE + first))
    flags = ("--models", "resnet18", "--modes", "baseline", "half a network", "--rounds", "1")
    done = subprocess.run(
        [sys.executable, script / "benchmark.py", *TINY, *flags],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        cwd=tmp_path,
    )
    rows = pd.read_csv(script / "benchmark_results_all.csv").set_index("mode")
    assert done.returncode == 1, done.stdout + done.stderr
    assert rows.status["half a network"] == "wrong" and rows.status["baseline"] == "ok"
    assert rows.runtime["half a network"] == "halved"
    (run_log,) = read_all(script / "run_logs")
    assert {"torch", "msgspec", "timm"} <= run_log.header.versions.keys()
    (run,) = (run for run in run_log.runs if run.case.mode == "half a network")
    assert run.samples_ms and run.reference_ms
    assert run.ran.items() >= {"threads": "1", "rows": "32"}.items() and run.phases_s["halve"] == 0.25
