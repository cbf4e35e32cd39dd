"""Which runs are left, and how long they will take."""

from itertools import pairwise
from types import SimpleNamespace

import msgspec
import pytest

from segbench.analysis import estimates
from segbench.cases import Case
from segbench.measure import sweep
from segbench.measure.schedule import Durations, Plan, remaining_s
from segbench.records import Run

EAGER = Case(model="lcnet_100", mode="baseline", size=(512, 512), threads=2)
COMPILED = msgspec.structs.replace(EAGER, mode="compile")
USUAL = msgspec.structs.replace(EAGER, protocol="fixed-iteration", allocator="default")
AUTOCAST = msgspec.structs.replace(EAGER, mode="autocast")


def plan(*cases: Case, **changes) -> Plan:
    return Plan(**({"cases": [*cases], "rounds": 3} | changes))


def test_every_round_visits_models_in_a_new_order_and_their_modes_next_to_each_other():
    models = [f"model_{number}" for number in range(8)]
    cases = [msgspec.structs.replace(case, model=model) for model in models for case in (EAGER, COMPILED)]
    steps = plan(*cases).steps([])
    rounds = [[case for number, case in steps if number == wanted] for wanted in (1, 2, 3)]
    assert all(sorted(map(str, cases)) == sorted(map(str, of_round)) for of_round in rounds)
    assert all(one.model == two.model for of_round in rounds for one, two in zip(*[iter(of_round)] * 2, strict=True))
    assert rounds[0] != rounds[1] and steps == plan(*cases).steps([]) != plan(*cases, seed=1).steps([])


def test_repetitions_and_the_usual_protocol():
    twice = plan(EAGER, USUAL, repetitions=2)
    steps = twice.steps([])
    assert [number for number, case in steps if case == EAGER] == [1, 2, 3, 4, 5, 6]
    assert [number for number, case in steps if case == USUAL] == [3, 6]
    assert [twice.repetition(number) for number in range(1, 8)] == [1, 1, 1, 2, 2, 2, 2]
    assert all(one <= two for (one, _), (two, _) in pairwise(steps))


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
    wide = SimpleNamespace(raw=runs, centre=(0, 1))
    monkeypatch.setattr(estimates, "of_run_log", lambda run_log, host: {EAGER: wide})
    for others, left in (({"theirs"}, [(4, EAGER)]), (set(), [])):
        further = plan(EAGER, until=0.05, max_rounds=9, others=frozenset(others))
        assert further.further_steps(SimpleNamespace(runs=runs, session="", host=str)) == left


def test_emulated_bf16_is_visited_once():
    emulating = plan(EAGER, AUTOCAST, emulated=frozenset({"autocast"}))
    assert [number for number, case in emulating.steps([]) if case == AUTOCAST] == [1]


def test_the_time_left_is_that_of_the_visits_before():
    """Two rounds, an eager and a compiled case: nothing seen, then two runs here, then only elsewhere."""
    steps = plan(EAGER, COMPILED, rounds=2).steps([])
    # 5 s a run; compiling takes 35 s at first and 5 s with its graph on disk.
    assert remaining_s(steps, Durations(), Durations()) == 5 + 5 + 40 + 10
    seen = [
        Run(case=EAGER, round=1, seconds=4),
        Run(case=COMPILED, round=1, seconds=30, cache="cold"),
        Run(case=COMPILED, round=1, seconds=7, cache="warm"),
    ]
    assert remaining_s(steps, Durations(seen), Durations()) == 4 + 4 + 7 + 7, "the graph is on disk now"
    assert remaining_s(steps, Durations(), Durations(seen)) == 4 + 4 + 30 + 7
    other = [(number, msgspec.structs.replace(case, model="resnet18")) for number, case in steps]
    assert remaining_s(other, Durations(seen), Durations()) == 4 + 4 + 30 + 7, "of its mode"
    long = [Run(case=COMPILED, round=1, seconds=60, cache="warm")]
    assert remaining_s([(number, COMPILED) for number in (2, 3)], Durations(long), Durations()) == 120


def test_a_batch_is_judged_by_what_smaller_ones_took():
    seen = [Run(case=msgspec.structs.replace(EAGER, batch_size=size), memory_mb=300 * size) for size in (1, 2)]
    assert sweep.too_large(msgspec.structs.replace(EAGER, batch_size=4), []) == ""
    assert sweep.too_large(msgspec.structs.replace(COMPILED, batch_size=4), seen) == ""
    assert "needs about 900000.0 GB" in sweep.too_large(msgspec.structs.replace(EAGER, batch_size=1_000_000), seen)
