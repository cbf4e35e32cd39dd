"""The estimator on synthetic machines whose truth is known: one with two states, one that only scatters."""

import msgspec
import numpy as np
import pytest
from scipy import stats as scipy_stats

from segbench import estimates, stats
from segbench.cases import Case, Visit
from segbench.estimates import CaseEstimate, Machine

CASE = Case(model="lcnet_100", mode="baseline", size=(512, 512), threads=2)
COMPILED = msgspec.structs.replace(CASE, mode="compile")
TRUE_MS, LEVELS_MS, SLOW, SLOPE = 20.0, np.array([3.4, 1.3]), 1.5, 2.0


def visit(
    rng, number: int, ms: float = TRUE_MS, slow: float = 0.5, drift: float = 0.03, luck: float = 0.01, **fields
) -> Visit:
    """Some samples in the slow state, which the convolution sees too; the rest of a visit drifts, and the network goes
    with the power of SLOPE of what the convolution does; and every process has luck of its own."""
    level = rng.normal(0, drift)
    states = np.where(rng.random(61) < slow, SLOW, 1.0)
    readings = LEVELS_MS * np.column_stack([np.exp(level) * states, np.ones(61)]) * rng.lognormal(0, 0.005, (61, 2))
    beside = np.maximum(states[1:], states[:-1])
    samples = ms * rng.lognormal(0, luck) * np.exp(SLOPE * level) * beside * rng.lognormal(0, 0.01, 60)
    about = {"case": CASE, "session": "a", "round": number, "started": "2026-01-01T00:00:00+00:00"} | fields
    return Visit(samples_ms=samples.tolist(), readings_ms=readings.tolist(), **about)


REFERENCE = stats.Reference(tuple(LEVELS_MS), tuple(LEVELS_MS * (1.08, 1.1)))


def estimated(visits: list[Visit]) -> dict[Case, CaseEstimate]:
    """By the reference that is kept of the machine."""
    cases: dict[Case, list[Visit]] = {}
    for one in visits:
        cases.setdefault(one.case, []).append(one)
    return estimates.of_cases(cases, {2: REFERENCE})


def many(rng, rounds: int, cases: int = 8, **how) -> list[Visit]:
    """Visits to further cases, from which the machine is learnt."""
    others = [msgspec.structs.replace(CASE, model=f"model_{number}") for number in range(cases)]
    return [visit(rng, number, 30.0, case=case, **how) for case in others for number in range(1, rounds + 1)]


@pytest.mark.parametrize("slow", [0.0, 0.3, 0.7])
def test_the_reference_is_the_fast_states_and_the_band_ends_before_the_slow_one(slow):
    rng = np.random.default_rng(0)
    readings = np.concatenate([visit(rng, number, slow=slow).readings_ms for number in range(60)])
    reference = stats.reference(readings)
    assert reference.level_ms == pytest.approx(LEVELS_MS, rel=0.03)
    assert 1.04 < reference.bound_ms[0] / reference.level_ms[0] < SLOW / 1.1


def test_a_machine_that_only_scatters_is_not_called_disturbed():
    """One broad cloud of 6 %, as on a machine of 16 cores: a low quantile with 5 % on top of it would keep a few."""
    readings = LEVELS_MS * np.random.default_rng(1).lognormal(0, 0.06, (2000, 2))
    reference = stats.reference(readings)
    assert stats.in_band(readings, reference.bound_ms).mean() > 0.7
    before = (readings <= 1.05 * np.quantile(readings, 0.02, axis=0)).all(axis=1)
    assert (before[1:] & before[:-1]).mean() < 0.01


def test_one_disturbed_reading_is_enough_to_drop_a_sample():
    good, bad = LEVELS_MS, LEVELS_MS * [1, 1.2]
    assert stats.in_band([good, good, bad, good, good], LEVELS_MS * 1.1).tolist() == [True, False, False, True]


def test_levelling_finds_the_slope_and_the_latency_that_all_samples_do_not():
    rng = np.random.default_rng(2)
    visits = many(rng, 8) + [visit(rng, number) for number in range(1, 9)]
    estimate = estimated(visits)[CASE]
    assert estimate.estimator == "levelled" and len(estimate.visits) == 8
    assert estimate.machine.slope == pytest.approx(SLOPE, abs=0.2)
    assert estimate.machine.scatter.variance**0.5 == pytest.approx(0.01, rel=0.3)
    assert estimate.latency_ms == pytest.approx(TRUE_MS, rel=0.025)
    assert estimate.all_samples_ms > 1.2 * TRUE_MS


def test_a_slope_that_nothing_is_known_of_is_the_usual_one():
    assert stats.fitted_slope([np.array([0.1])], [np.array([1.0])]) == stats.SLOPE
    rng = np.random.default_rng(0)
    levels = [rng.normal(0, 0.002, 3) for _ in range(5)]
    few = stats.fitted_slope(levels, [rng.normal(0, 0.02, 3) for _ in levels])
    assert abs(few - stats.SLOPE) < stats.SLOPE_SPREAD, "visits at nearly one level say little"


def test_repetitions_agree_and_their_intervals_cover():
    rng, latencies, hits, widths = np.random.default_rng(3), [], [], []
    for _ in range(60):
        estimate = estimated(many(rng, 4) + [visit(rng, number) for number in range(1, 5)])[CASE]
        low, high = estimate.interval_ms
        latencies.append(estimate.latency_ms)
        hits.append(low < TRUE_MS < high)
        widths.append(np.log(high / low) / 2)
    assert np.std(np.log(latencies)) < 0.012 and np.mean(hits) > 0.9
    assert 0.02 < np.median(widths) < 0.05


def test_two_visits_have_a_usable_interval_where_the_machine_is_known():
    rng = np.random.default_rng(4)
    low, high = estimated([*many(rng, 4), visit(rng, 1), visit(rng, 2)])[CASE].interval_ms
    assert 1 < high / low < 1.12
    alone = estimated([visit(rng, 1)])[CASE]
    assert alone.estimator == "levelled" and np.isnan(alone.interval_ms).all()


def test_a_visit_that_met_only_the_slow_state_hardly_counts():
    rng = np.random.default_rng(5)
    visits = many(rng, 6) + [visit(rng, number) for number in (1, 2, 3)]
    calm = estimated(visits)[CASE].latency_ms
    disturbed = estimated([*visits, visit(rng, 4, slow=1.0), visit(rng, 5, slow=1.0)])[CASE]
    assert disturbed.latency_ms == pytest.approx(calm, rel=0.02) and disturbed.estimator == "levelled"


def test_a_case_that_never_met_the_machine_undisturbed_is_unsettled():
    rng = np.random.default_rng(6)
    found = estimated(many(rng, 4) + [visit(rng, number, slow=1.0) for number in (1, 2)])[CASE]
    assert found.estimator == "unsettled" and np.isnan(found.interval_ms).all()
    assert found.latency_ms == found.fastest_ms == min(min(v.samples_ms) for v in found.raw)


def test_no_latency_lies_below_the_fastest_sample():
    rng = np.random.default_rng(7)
    visits = many(rng, 8) + [visit(rng, number, drift=0.0, slow=0) for number in (1, 2)]
    for one in visits[-2:]:  # all of its readings at the end of the band: levelled, it would be faster than it ever was
        one.readings_ms = (LEVELS_MS * [1.075, 1] * np.ones((61, 1))).tolist()
    found = estimated(visits)[CASE]
    assert found.estimator == "levelled" and np.exp(found.mean[0]) < found.fastest_ms == found.latency_ms


def test_a_long_inference_is_estimated_by_its_fastest_sample():
    """Readings beside an inference of a second do not tell what happened within it: here they say twice as slow."""
    calm, loud = [tuple(LEVELS_MS)] * 4, [tuple(2 * LEVELS_MS)] * 4
    samples = {1: [900, 800, 950], 2: [700, 990, 940], 3: [720, 850, 910]}
    visits = [
        Visit(case=CASE, session="a", round=n, samples_ms=samples[n], readings_ms=calm if n == 1 else loud)
        for n in samples
    ]
    estimate = estimated(visits)[CASE]
    assert (estimate.estimator, estimate.latency_ms) == ("fastest", 700)
    low, high = estimate.interval_ms
    logs = np.log([800, 700, 720])
    width = np.hypot(scipy_stats.t.ppf(0.975, 2) * scipy_stats.sem(logs), 1.96 * stats.BETWEEN)
    assert np.log(high / low) / 2 == pytest.approx(width, rel=0.05)


def test_a_visit_beside_a_busy_neighbour_makes_no_long_inference():
    """In it a network of 20 ms may take a second, and a session may hold nothing else."""
    rng = np.random.default_rng(8)
    visits = many(rng, 4) + [visit(rng, number, slow=0) for number in (1, 2, 3)]
    visits[-1].session = "b"
    visits[-1].samples_ms = [50 * ms for ms in visits[-1].samples_ms]
    visits[-1].readings_ms = [(50 * one, 50 * other) for one, other in visits[-1].readings_ms]
    estimate = estimated(visits)[CASE]
    assert estimate.estimator == "levelled" and estimate.latency_ms == pytest.approx(TRUE_MS, rel=0.05)


def test_the_plain_mean_is_students():
    """Where nothing is known of the machine and no visit is an outlier."""
    logs = np.array([0.0, 0.01, -0.012, 0.004, 0.006])
    middle, width = stats.mean(logs, np.ones(5), stats.Scatter(float("nan"), 0))
    assert middle == pytest.approx(logs.mean(), abs=1e-9)
    expected = np.hypot(scipy_stats.t.ppf(0.975, 4) * scipy_stats.sem(logs), 1.96 * stats.BETWEEN)
    assert width == pytest.approx(expected, rel=1e-6)
    assert stats.interval(np.exp(logs)) == pytest.approx(
        tuple(np.exp(scipy_stats.t.interval(0.95, 4, logs.mean(), scipy_stats.sem(logs))))
    )


def test_speedups_pair_what_a_round_of_a_session_shares():
    rng = np.random.default_rng(9)
    visits = many(rng, 6)
    for number in range(1, 7):  # sessions of unlike hosts: one is twice as fast as the other
        host, session = (1, "a") if number < 4 else (0.5, "b")
        for case, ms in ((CASE, 20.0 * host), (COMPILED, 10.0 * host)):
            visits.append(visit(rng, number, ms, case=case, session=session, luck=0.003))
    found = estimated(visits)
    ratio, low, high = estimates.speedup(found[CASE], found[COMPILED])
    assert ratio == pytest.approx(2, rel=0.02) and low < 2 < high < 1.13 * low
    apart = found[CASE].only({key for key in found[CASE].visits if key[0] == "a"})
    other = found[COMPILED].only({key for key in found[COMPILED].visits if key[0] == "b"})
    assert estimates.speedup(apart, other)[0] == pytest.approx(4, rel=0.05), "nothing shared: of the estimates"
    assert np.isnan(estimates.speedup(estimates.NOTHING, found[CASE])).all()


def test_a_case_that_was_not_measured_is_no_number():
    nothing = CaseEstimate({}, Machine([]), [Visit(case=CASE, status="error")])
    assert not nothing and nothing.estimator == "" and np.isnan([nothing.latency_ms, *nothing.interval_ms]).all()
