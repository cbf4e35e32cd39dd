"""The quiet-sample logic on synthetic data of a machine with two states, whose truth is known."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from segbench import figures, stats
from segbench.cases import Case, Visit

CASE = Case(model="lcnet_100", mode="baseline", size=(512, 512), threads=2)
TRUE_MS, FLOORS_MS, SLOW = 20.0, np.array([3.4, 1.3]), 1.55


def two_states(rng, samples: int, slow_share: float) -> tuple[list, list]:
    """Samples and readings of a machine that changes between its two states every few samples."""
    slow, state = [], rng.random() < slow_share
    for _ in range(2 * samples + 1):
        if rng.random() < 0.15:
            state = rng.random() < slow_share
        slow.append(state)
    factors = np.where(slow, SLOW, 1.0)
    readings = FLOORS_MS * (factors[::2, None] * [1, 0] + [0, 1]) * rng.uniform(1, 1.02, (samples + 1, 2))
    return (TRUE_MS * factors[1::2] * rng.uniform(0.99, 1.01, samples)).tolist(), readings.tolist()


def visit(rng, number: int, samples: int = 60, slow_share: float = 0.6) -> Visit:
    taken, readings = two_states(rng, samples, slow_share)
    return Visit(
        case=CASE, session=1, round=number, started="2026-01-01T00:00:00+00:00", samples_ms=taken, readings_ms=readings
    )


def test_quiet_samples_find_the_undisturbed_latency_where_all_samples_do_not():
    rng = np.random.default_rng(0)
    visits = {number: visit(rng, number) for number in range(1, 6)}
    readings = np.concatenate([v.readings_ms for v in visits.values()])
    floor = stats.floor(np.zeros(len(readings)), readings)
    assert floor == pytest.approx(FLOORS_MS, rel=0.02)
    how, latencies = figures.per_round(figures.of_visits(visits, {(1, 2): floor}))
    assert how == "quiet" and len(latencies) == 5
    assert np.median([*latencies.values()]) == pytest.approx(TRUE_MS, rel=0.01)
    assert np.mean(np.concatenate([v.samples_ms for v in visits.values()])) > 1.2 * TRUE_MS


def test_a_machine_that_never_was_quiet_is_scaled_by_its_yardsticks():
    rng = np.random.default_rng(1)
    of = figures.of_visits({1: visit(rng, 1, slow_share=1.0)}, {(1, 2): FLOORS_MS})
    how, latency, _ = figures.figure(of)
    assert how == "scaled" and of[1, 1].as_met_ms == pytest.approx(SLOW * TRUE_MS, rel=0.02)
    # This made-up network loses all that the convolution loses; networks lose the power of 0.85 of it.
    assert latency == pytest.approx(SLOW**0.15 * TRUE_MS, rel=0.02)


def test_a_long_inference_is_figured_by_its_fastest_sample():
    """Readings beside an inference of a second do not tell what happened within it: here they say twice as slow."""
    calm, loud = [tuple(FLOORS_MS)] * 4, [tuple(2 * FLOORS_MS)] * 4
    samples = {1: [900, 800, 950], 2: [700, 990, 940], 3: [720, 850, 910]}
    visits = {n: visit(np.random.default_rng(0), n) for n in samples}
    for number, of in visits.items():
        of.samples_ms, of.readings_ms = samples[number], calm if number == 1 else loud
    how, latency, (low, high) = figures.figure(figures.of_visits(visits, {(1, 2): FLOORS_MS}))
    assert (how, latency) == ("fastest", 700) and low < 700 < high


def test_a_visit_beside_a_busy_neighbour_makes_no_long_inference():
    """In it a network of 20 ms may take a second, and a session may hold nothing else."""
    floors = {(1, 2): FLOORS_MS, (2, 2): FLOORS_MS}
    calm, busy = ({n: visit(np.random.default_rng(n), n, slow_share=0) for n in (1, 2, 3)} for _ in range(2))
    calm[3].session = busy[3].session = 2
    busy[3].samples_ms = [50 * ms for ms in busy[3].samples_ms]
    busy[3].readings_ms = [(50 * one, 50 * other) for one, other in busy[3].readings_ms]
    before, after = figures.of_visits(calm, floors), figures.of_visits(busy, floors)
    assert figures.figure(after)[0] == "quiet" and figures.speedup(before, after)[0] == 1


def test_the_calmest_samples_count_where_none_is_quiet():
    readings = FLOORS_MS * np.array([[1.5, 1]] * 30 + [[1.1, 1]] * 5 + [[1.5, 1]] * 30)
    samples = np.where(readings[:-1, 0] + readings[1:, 0] < FLOORS_MS[0] * 2.3, 22.0, 30.0)
    assert not stats.quiet(readings, FLOORS_MS).any()
    assert stats.calmest(*stats.scaled(samples, readings, FLOORS_MS)) == pytest.approx(22 / 1.1**0.85)


def test_one_noisy_neighbour_is_enough_to_drop_a_sample():
    good, bad = FLOORS_MS * 1.01, FLOORS_MS * [1.01, 1.2]
    assert stats.quiet([good, good, bad, good, good], FLOORS_MS).tolist() == [True, False, False, True]


def test_the_floor_is_that_of_the_best_window_and_drift_shows():
    rng = np.random.default_rng(2)
    times = np.repeat([10.0, 700.0, 1300.0], 200)
    readings = FLOORS_MS * np.repeat([1.2, 1.0, 1.1], 200)[:, None] * rng.uniform(1, 1.01, (600, 2))
    windows = stats.window_floors(times, readings)
    assert windows[:, 0] == pytest.approx(3.4 * np.array([1.2, 1.0, 1.1]), rel=0.01)
    assert stats.floor(times, readings) == pytest.approx(FLOORS_MS, rel=0.01)


def test_interval_agrees_with_scipy_and_covers():
    rng = np.random.default_rng(3)
    logs = rng.normal(np.log(50), 0.04, (4000, 5))
    expected = np.exp(scipy_stats.t.interval(0.95, 4, logs[0].mean(), scipy_stats.sem(logs[0])))
    assert stats.interval(np.exp(logs[0])) == pytest.approx(tuple(expected))
    intervals = np.array([stats.interval(np.exp(row)) for row in logs])
    assert np.mean((intervals[:, 0] < 50) & (intervals[:, 1] > 50)) == pytest.approx(0.95, abs=0.012)


def test_the_published_interval_allows_for_what_sessions_differ_by():
    """Sessions that differ by DRIFT and rounds that scatter by 1 % around them: the interval of one session holds the
    latency of the machine."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(300):
        session = TRUE_MS * rng.lognormal(0, stats.DRIFT)
        of = {(1, number): figure(session * rng.lognormal(0, 0.01)) for number in range(5)}
        _, _, (low, high) = figures.figure(of)
        hits += low < TRUE_MS < high
    assert hits / 300 == pytest.approx(0.96, abs=0.03)


def figure(ms: float, quiet: bool = True) -> figures.Figure:
    readings = [FLOORS_MS * (1 if quiet else 2)] * 4
    return figures.Figure(Visit(case=CASE, samples_ms=[ms] * 3, readings_ms=readings), FLOORS_MS)


def test_speedups_stay_within_sessions():
    before = {(1, 1): figure(30), (1, 2): figure(40), (2, 3): figure(60), (2, 4): figure(60)}
    after = {(1, 1): figure(15), (2, 2): figure(99), (2, 3): figure(20), (2, 4): figure(20, quiet=False)}
    ratio, low, high = figures.speedup(before, after)
    # Session 1: the median of 30 and 40 over 15; session 2: 60 over that of 99 and 20.
    assert ratio == pytest.approx((35 / 15 * 60 / 59.5) ** 0.5) and low < ratio < high
    assert np.isnan(figures.speedup({(1, 1): figure(30)}, {(2, 1): figure(10)})[0])
    # Scaled on both sides: both yardsticks took twice as long beside the second.
    disturbed = figures.speedup({(1, 1): figure(30)}, {(1, 1): figure(10, quiet=False)})
    assert disturbed[0] == pytest.approx(3 * 2**1.15)
