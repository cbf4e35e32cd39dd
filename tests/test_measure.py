"""Taking samples and memory, on real calls."""

import re
import subprocess
import sys

import pytest
import torch

from segbench import measure

from .conftest import ROOT

ALWAYS, NEVER = (1e9, 1e9), (0.0, 0.0)  # bounds in ms that every reading, or none, keeps


@pytest.fixture(scope="module")
def yardsticks() -> measure.Yardsticks:
    torch.set_num_threads(1)
    return measure.Yardsticks()


def work() -> torch.Tensor:
    return torch.ones(64, 64) @ torch.ones(64, 64)


def test_a_visit_ends_with_its_undisturbed_samples_or_its_budget(yardsticks):
    alive = []
    enough = measure.sample(work, yardsticks, ALWAYS, 7, 60, lambda: alive.append(1))
    assert len(enough.samples_ms) == 7 and len(enough.readings_ms) == 8 and alive
    assert enough.per_sample > 1 and torch.equal(enough.output, torch.full((64, 64), 64.0))
    spent = measure.sample(work, yardsticks, NEVER, 7, 0.5)
    assert len(spent.samples_ms) > 1 and len(spent.readings_ms) == len(spent.samples_ms) + 1
    assert len(measure.sample(work, yardsticks, NEVER, 7, 1e-9).samples_ms) == 1, "at least one, whatever the budget"


def test_yardsticks_read_their_own_workloads(yardsticks):
    longer = measure.Yardsticks()
    longer.weights = longer.weights * 8
    (conv, gemm), (eight_times, same) = yardsticks.read(), longer.read()
    assert eight_times > 3 * conv and same < 3 * gemm


@pytest.mark.slow
def test_memory_agrees_with_torchs_own_allocations():
    """Within 20 %; the profiler counts them one by one."""
    command = [sys.executable, ROOT / "benchmarks" / "protocol_checks.py", "memory"]
    done = subprocess.run([*command, "--models", "mobilenetv3_small_100", "resnet18"], capture_output=True, text=True)
    ratios = [float(line.split("|")[-2]) for line in done.stdout.splitlines() if re.match(r"\| (mobile|res)net", line)]
    assert len(ratios) == 2 and all(0.8 < ratio < 1.2 for ratio in ratios), done.stdout + done.stderr
