"""Taking samples and memory, on real calls; repeating what others disturbed."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from segbench import machine
from segbench.cases import BUSY_CPUS, Case
from segbench.measure import sweep, timing
from segbench.measure.schedule import Plan
from segbench.records import Run
from segbench.run_log import RunLog
from segbench.settings import Settings

from .test_run_log import header

ALWAYS, NEVER = (1e9, 1e9), (0.0, 0.0)  # bounds in ms that all reference times, or none, are within


@pytest.fixture(scope="module")
def reference_workload() -> timing.ReferenceWorkload:
    torch.set_num_threads(1)
    return timing.ReferenceWorkload()


def work() -> torch.Tensor:
    return torch.ones(64, 64) @ torch.ones(64, 64)


def test_a_run_ends_with_its_valid_samples_or_its_budget(reference_workload):
    alive = []
    enough = timing.sample(work, reference_workload, ALWAYS, 7, 60, lambda: alive.append(1))
    assert len(enough.samples_ms) == 7 and len(enough.reference_ms) == 8 and alive
    assert enough.per_sample > 1 and torch.equal(enough.output, torch.full((64, 64), 64.0))
    spent = timing.sample(work, reference_workload, NEVER, 7, 0.5)
    assert len(spent.samples_ms) > 1 and len(spent.reference_ms) == len(spent.samples_ms) + 1
    without_time = timing.sample(work, reference_workload, NEVER, 7, 1e-9)
    assert len(without_time.samples_ms) == 1, "at least one, whatever the budget"


def test_each_reference_time_is_of_its_own_workload(reference_workload):
    longer = timing.ReferenceWorkload()
    longer.weights = longer.weights * 8
    (conv, gemm), (eight_times, same) = reference_workload.read(), longer.read()
    assert eight_times > 3 * conv and same < 3 * gemm


BUSY, QUIET = 2 * BUSY_CPUS, 0.0


@pytest.mark.parametrize(
    ("looks", "wait_s", "rounds"),
    [
        ([], 30, [1, 1, 2]),  # others have just ended
        ([BUSY, QUIET, BUSY], 30, [1, 1, 2]),
        ([BUSY] * 100, 30, [1, 2]),  # a machine that stays busy is measured all the same
        ([], 0, [1, 2]),
    ],
    ids=["a moment", "bursts", "for ever", "--no-wait"],
)
def test_a_run_that_others_disturb_is_repeated_once_and_within_bounds(tmp_path, monkeypatch, looks, wait_s, rounds):
    """In the first of two rounds."""
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64))
    seen, clock = iter([*looks, *[QUIET] * 9]), iter(range(1000))
    runs = iter([BUSY, *([BUSY] if rounds.count(1) > 1 else []), QUIET])
    starts = map(str, count())
    monkeypatch.setattr(
        sweep.Sweep,
        "run_case",
        lambda *_: Run(case=case, started=next(starts), others_cpus=next(runs) / 2, throttled_cpus=0.11),
    )
    load = SimpleNamespace(cpus=lambda: (next(seen), 0.0, 0.0))
    monkeypatch.setattr(machine, "BackgroundLoad", lambda threads: load)
    monkeypatch.setattr(sweep, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(clock)))
    about = header()
    run_log = RunLog(tmp_path / about.folder)
    monkeypatch.setattr(Settings, "wait_s", lambda self: wait_s)
    sweep.Sweep(run_log, Plan([case], Settings(rounds=2)), about).run()
    assert [run.round for run in RunLog.read(run_log.folder).runs] == rounds
