"""The quiet-sample logic on synthetic data of a machine with two states, whose truth is known."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from segbench import estimates, stats
from segbench.cases import Case, Visit
from segbench.estimates import CaseEstimate, VisitEstimate

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


def visit(rng, number: int, slow_share: float = 0.6, session: str = "a") -> Visit:
    samples, readings = two_states(rng, 60, slow_share)
    return Visit(case=CASE, session=session, round=number, samples_ms=samples, readings_ms=readings)


def floors_by(readings_ms) -> stats.Floors:
    floors = stats.Floors()
    floors.add(0, readings_ms)
    return floors


KNOWN = {(session, 2): floors_by([FLOORS_MS] * 60) for session in "ab"}


def test_quiet_samples_find_the_undisturbed_latency_where_all_samples_do_not():
    rng = np.random.default_rng(0)
    visits = [visit(rng, number) for number in range(1, 6)]
    floors = floors_by(np.concatenate([v.readings_ms for v in visits]))
    assert floors.lowest() == pytest.approx(FLOORS_MS, rel=0.02)
    estimate = CaseEstimate.of(visits, {("a", 2): floors})
    assert estimate.estimator == "quiet" and len(estimate.latencies_ms) == 5
    assert estimate.latency_ms == pytest.approx(TRUE_MS, rel=0.01)
    assert np.mean(np.concatenate([v.samples_ms for v in visits])) > 1.2 * TRUE_MS


def test_a_machine_that_never_was_quiet_is_scaled_by_its_yardsticks():
    estimate = CaseEstimate.of([visit(np.random.default_rng(1), 1, slow_share=1.0)], KNOWN)
    assert estimate.estimator == "scaled" and estimate.all_samples_ms == pytest.approx(SLOW * TRUE_MS, rel=0.02)
    # This made-up network loses all that the convolution loses; networks lose the power of 0.85 of it.
    assert estimate.latency_ms == pytest.approx(SLOW**0.15 * TRUE_MS, rel=0.02)


def test_a_long_inference_is_estimated_by_its_fastest_sample():
    """Readings beside an inference of a second do not tell what happened within it: here they say twice as slow."""
    calm, loud = [tuple(FLOORS_MS)] * 4, [tuple(2 * FLOORS_MS)] * 4
    samples = {1: [900, 800, 950], 2: [700, 990, 940], 3: [720, 850, 910]}
    visits = [
        Visit(case=CASE, session="a", round=n, samples_ms=samples[n], readings_ms=calm if n == 1 else loud)
        for n in samples
    ]
    estimate = CaseEstimate.of(visits, KNOWN)
    assert (estimate.estimator, estimate.latency_ms) == ("fastest", 700)
    logs = np.log([800, 700, 720])
    width = np.hypot(scipy_stats.t.ppf(0.975, 2) * scipy_stats.sem(logs), 1.96 * stats.DRIFT)
    assert estimate.interval_ms == pytest.approx((700 * np.exp(-width), 700 * np.exp(width)), rel=1e-4)


def test_a_visit_beside_a_busy_neighbour_makes_no_long_inference():
    """In it a network of 20 ms may take a second, and a session may hold nothing else."""
    calm, busy = ([visit(np.random.default_rng(n), n, slow_share=0) for n in (1, 2, 3)] for _ in range(2))
    calm[2].session = busy[2].session = "b"
    busy[2].samples_ms = [50 * ms for ms in busy[2].samples_ms]
    busy[2].readings_ms = [(50 * one, 50 * other) for one, other in busy[2].readings_ms]
    before, after = CaseEstimate.of(calm, KNOWN), CaseEstimate.of(busy, KNOWN)
    assert after.estimator == "quiet" and estimates.speedup(before, after)[0] == 1


def test_the_calmest_samples_count_where_none_is_quiet():
    readings = FLOORS_MS * np.array([[1.5, 1]] * 30 + [[1.1, 1]] * 5 + [[1.5, 1]] * 30)
    samples = np.where(readings[:-1, 0] + readings[1:, 0] < FLOORS_MS[0] * 2.3, 22.0, 30.0)
    assert not stats.quiet(readings, FLOORS_MS).any()
    assert stats.calmest(*stats.scaled(samples, readings, FLOORS_MS)) == pytest.approx(22 / 1.1**0.85)


def test_one_noisy_neighbour_is_enough_to_drop_a_sample():
    good, bad = FLOORS_MS * 1.01, FLOORS_MS * [1.01, 1.2]
    assert stats.quiet([good, good, bad, good, good], FLOORS_MS).tolist() == [True, False, False, True]


def test_the_floor_is_that_of_the_best_window_and_kept_up_to_date():
    rng, floors = np.random.default_rng(2), stats.Floors()
    blocks = {
        time: FLOORS_MS * level * rng.uniform(1, 1.01, (200, 2)) for time, level in ((10, 1.2), (700, 1), (1300, 1.1))
    }
    for time, readings in blocks.items():
        for part in np.split(readings, 4):
            floors.add(time, part)
            floors.lowest()  # what is kept must not be stale afterwards
    quantiles = [np.quantile(readings, stats.FLOOR_QUANTILE, axis=0) for readings in blocks.values()]
    assert floors.windows() == pytest.approx(np.array(quantiles)) and (floors.lowest() == quantiles[1]).all()
    floors.add(2000, FLOORS_MS[None] * 0.5)  # a timer's luck, in a window of a single reading
    assert (floors.lowest() == quantiles[1]).all()


def test_interval_agrees_with_scipy_and_covers():
    rng = np.random.default_rng(3)
    logs = rng.normal(np.log(50), 0.04, (4000, 5))
    expected = np.exp(scipy_stats.t.interval(0.95, 4, logs[0].mean(), scipy_stats.sem(logs[0])))
    assert stats.interval(np.exp(logs[0])) == pytest.approx(tuple(expected))
    intervals = np.array([stats.interval(np.exp(row)) for row in logs])
    assert np.mean((intervals[:, 0] < 50) & (intervals[:, 1] > 50)) == pytest.approx(0.95, abs=0.012)


def of(latencies: dict[tuple[str, int], float], disturbed: tuple = ()) -> CaseEstimate:
    """Visits by session and round, of which some were taken while both yardsticks took twice as long."""
    return CaseEstimate({key: one(ms, quiet=key not in disturbed) for key, ms in latencies.items()})


def one(ms: float, quiet: bool = True) -> VisitEstimate:
    readings = [FLOORS_MS * (1 if quiet else 2)] * 4
    return VisitEstimate(Visit(case=CASE, samples_ms=[ms] * 3, readings_ms=readings), FLOORS_MS)


def test_the_published_interval_allows_for_what_sessions_differ_by():
    """Sessions that differ by DRIFT and rounds that scatter by 1 % around them: the interval of one session holds the
    latency of the machine."""
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(300):
        session = TRUE_MS * rng.lognormal(0, stats.DRIFT)
        low, high = of({("a", number): session * rng.lognormal(0, 0.01) for number in range(5)}).interval_ms
        hits += low < TRUE_MS < high
    assert hits / 300 == pytest.approx(0.96, abs=0.03)


def test_speedups_stay_within_sessions():
    before = of({("a", 1): 30, ("a", 2): 40, ("b", 3): 60, ("b", 4): 60})
    after = of({("a", 1): 15, ("b", 2): 99, ("b", 3): 20, ("b", 4): 20}, disturbed=[("b", 4)])
    ratio, low, high = estimates.speedup(before, after)
    # Session a: the median of 30 and 40 over 15; session b: 60 over that of 99 and 20.
    assert ratio == pytest.approx((35 / 15 * 60 / 59.5) ** 0.5)
    by_round = np.log([30 / 15, 60 / 20])  # that both share, and where both were quiet
    width = scipy_stats.t.ppf(0.975, 1) * scipy_stats.sem(by_round)
    assert (low, high) == pytest.approx((ratio * np.exp(-width), ratio * np.exp(width)))
    assert np.isnan(estimates.speedup(of({("a", 1): 30}), of({("b", 1): 10}))[0])
    # Scaled on both sides: both yardsticks took twice as long beside the second.
    disturbed = estimates.speedup(of({("a", 1): 30}), of({("a", 1): 10}, disturbed=[("a", 1)]))
    assert disturbed[0] == pytest.approx(3 * 2**1.15)


def test_a_case_that_was_not_measured_is_no_number():
    nothing = CaseEstimate.of([Visit(case=CASE, status="error")], {})
    assert not nothing and nothing.estimator == "" and np.isnan([nothing.latency_ms, *nothing.interval_ms]).all()
