"""Taking samples and memory, on real calls; repeating what others disturbed."""

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from segbench import machine, measure, sweep
from segbench.cases import BUSY_CPUS, Case, Visit
from segbench.journal import Journal
from segbench.schedule import Durations, Plan

from .conftest import ROOT
from .test_journal import header

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


BUSY, QUIET = 2 * BUSY_CPUS, 0.0


@pytest.mark.parametrize(
    ("looks", "wait_s", "rounds"),
    [
        ([], 30, [1, 1, 2]),  # others have just ended
        ([BUSY, QUIET, BUSY], 30, [1, 1, 2]),
        ([BUSY] * 100, 30, [1, 2]),  # what cannot be had quiet is measured all the same
        ([], 0, [1, 2]),
    ],
    ids=["a moment", "bursts", "for ever", "--no-wait"],
)
def test_a_visit_that_others_disturb_is_repeated_once_and_within_bounds(tmp_path, monkeypatch, looks, wait_s, rounds):
    """In the first of two rounds."""
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64))
    seen, clock = iter([*looks, *[QUIET] * 9]), iter(range(1000))
    visits = iter([BUSY, *([BUSY] if rounds.count(1) > 1 else []), QUIET])
    monkeypatch.setattr(
        sweep.Sweep, "visit_case", lambda *_: Visit(case=case, others_cpus=next(visits) / 2, throttled_cpus=0.11)
    )
    neighbours = SimpleNamespace(cpus=lambda: (next(seen), 0.0, 0.0))
    monkeypatch.setattr(machine, "Neighbours", lambda threads: neighbours)
    monkeypatch.setattr(sweep, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(clock)))
    about = header()
    journal = Journal(tmp_path / about.folder)
    sweep.Sweep(journal, Plan([case], 2, wait_s=wait_s), about, Durations()).run()
    assert [visit.round for visit in Journal.read(journal.folder).visits] == rounds


@pytest.mark.slow
def test_memory_agrees_with_torchs_own_allocations():
    """Within 20 %; the profiler counts them one by one."""
    command = [sys.executable, ROOT / "benchmarks" / "protocol_checks.py", "memory"]
    done = subprocess.run([*command, "--models", "mobilenetv3_small_100", "resnet18"], capture_output=True, text=True)
    ratios = [float(line.split("|")[-2]) for line in done.stdout.splitlines() if re.match(r"\| (mobile|res)net", line)]
    assert len(ratios) == 2 and all(0.8 < ratio < 1.2 for ratio in ratios), done.stdout + done.stderr
