"""Which runs are left, and how long they will take."""

from itertools import pairwise
from types import SimpleNamespace

import msgspec
import pytest

from segbench.analysis import estimates
from segbench.cases import Case
from segbench.measure import sweep
from segbench.measure.schedule import Plan, about, duration
from segbench.records import Run
from segbench.settings import Settings

EAGER = Case(model="lcnet_100", mode="baseline", size=(512, 512), threads=2)
COMPILED = msgspec.structs.replace(EAGER, mode="compile")
FIXED = msgspec.structs.replace(EAGER, protocol="fixed-iteration")


def plan(*cases: Case, **changes) -> Plan:
    others = changes.pop("others", frozenset())
    return Plan([*cases], Settings(**({"rounds": 3} | changes)), others)


def test_every_round_runs_models_in_a_new_order_and_their_modes_next_to_each_other():
    models = [f"model_{number}" for number in range(8)]
    cases = [msgspec.structs.replace(case, model=model) for model in models for case in (EAGER, COMPILED)]
    steps = plan(*cases).steps([])
    rounds = [[case for number, case in steps if number == wanted] for wanted in (1, 2, 3)]
    assert all(sorted(map(str, cases)) == sorted(map(str, order)) for order in rounds)
    assert all(
        first.model == second.model for order in rounds for first, second in zip(order[::2], order[1::2], strict=True)
    )
    assert rounds[0] != rounds[1] and steps == plan(*cases).steps([]) != plan(*cases, seed=1).steps([])


def test_repetitions_and_the_fixed_iteration_protocol():
    twice = plan(EAGER, FIXED, repetitions=2)
    steps = twice.steps([])
    assert [number for number, case in steps if case == EAGER] == [1, 2, 3, 4, 5, 6]
    assert [number for number, case in steps if case == FIXED] == [3, 6]
    assert [twice.repetition(number) for number in range(1, 8)] == [1, 1, 1, 2, 2, 2, 2]
    assert all(earlier <= later for (earlier, _), (later, _) in pairwise(steps))


@pytest.mark.parametrize(
    ("run", "left"),
    [
        ({}, [2, 3]),
        ({"status": "wrong"}, [2, 3]),
        ({"status": "error"}, [1, 2, 3]),
        ({"status": "skipped"}, [1, 2, 3]),
        ({"status": "oom"}, [1, 2, 3]),
        ({"status": "timeout", "budget_s": 15}, []),
        ({"status": "timeout", "budget_s": 1}, [1, 2, 3]),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_what_went_well_is_done_and_what_failed_is_tried_again(run, left):
    """A timeout only under a larger budget; the case is not measured in any round until then."""
    assert [number for number, _ in plan(EAGER).steps([Run(case=EAGER, round=1, **run)])] == left


def test_another_hosts_rounds_do_not_count():
    alone, joined = plan(EAGER, COMPILED, others=frozenset({"theirs"})), plan(EAGER, COMPILED)
    theirs = [Run(case=EAGER, round=number, session="theirs") for number in (1, 2, 3)]
    theirs.append(Run(case=COMPILED, round=1, session="theirs", status="timeout", budget_s=15))
    own = Run(case=EAGER, round=2, session="mine")
    left = [(1, EAGER), (3, EAGER), (1, COMPILED), (2, COMPILED), (3, COMPILED)]
    assert sorted(map(str, alone.steps([*theirs, own]))) == sorted(map(str, left)) and joined.steps(theirs) == []


def test_further_rounds_follow_those_of_the_own_host(monkeypatch):
    runs = [Run(case=EAGER, round=number, session="theirs") for number in range(1, 10)]
    runs += [Run(case=EAGER, round=10, session="theirs", status="error")]
    runs += [Run(case=EAGER, round=number, session="mine") for number in (1, 2, 3)]
    wide = SimpleNamespace(raw=runs, log_latency=(0, 1))
    monkeypatch.setattr(estimates, "of_run_log", lambda run_log, host: {EAGER: wide})
    for others, left in (({"theirs"}, [(4, EAGER)]), (set(), [])):
        further = plan(EAGER, until="5%", max_rounds=9, others=frozenset(others))
        assert further.further_steps(SimpleNamespace(runs=runs, session="", host_of=dict)) == left


def test_the_time_left_is_by_the_mean_of_the_runs_before():
    assert about(10, []) == "50 s", "5 s a run before any was seen"
    runs = [Run(case=EAGER, round=number, seconds=seconds) for number, seconds in enumerate((4, 30, 8), 1)]
    skipped = Run(case=EAGER, round=1, status="skipped")
    assert about(9, [*runs, skipped]) == "2 min"


@pytest.mark.parametrize(
    ("seconds", "text"), [(40.2, "40 s"), (754, "13 min"), (5700, "1 h 35 min"), (7260, "2 h 01 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_a_batch_is_judged_by_what_smaller_ones_took():
    seen = [Run(case=msgspec.structs.replace(EAGER, batch_size=size), memory_mb=300 * size) for size in (1, 2)]
    assert sweep.too_large(msgspec.structs.replace(EAGER, batch_size=4), []) == ""
    assert sweep.too_large(msgspec.structs.replace(COMPILED, batch_size=4), seen) == ""
    assert "needs about 900000.0 GB" in sweep.too_large(msgspec.structs.replace(EAGER, batch_size=1_000_000), seen)
