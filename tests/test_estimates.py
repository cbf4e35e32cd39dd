"""The rule from runs of estimates, on made-up machines whose truth is known and on a host it was not made on."""

import msgspec
import numpy as np
import pytest
from scipy import stats as scipy_stats

from segbench.analysis import estimates, rankings, stats
from segbench.analysis.estimates import NOTHING, CaseEstimate
from segbench.analysis.tables import Results
from segbench.cases import Case
from segbench.records import Run
from segbench.run_log import read_all

from . import simulated
from .conftest import ROOT
from .simulated import MACHINES, REFERENCE_MS, Machine, outcome

CASE = Case(model="lcnet_100", mode="baseline", size=(512, 512), threads=2)
COMPILED = msgspec.structs.replace(CASE, mode="compile")


def unloaded(case: Case, number: int, ms: float, samples: int = 12, session: str = "a", **fields) -> Run:
    """A run without load beside it."""
    reference_times = (REFERENCE_MS * np.ones((samples + 1, 2))).tolist()
    about = {"case": case, "session": session, "round": number, "reference_ms": reference_times}
    return Run(samples_ms=[ms] * samples, **(about | fields))


def estimated(*runs: Run, host=lambda session: "", first_host: str = "") -> dict[Case, CaseEstimate]:
    return estimates.of_cases(simulated.by_case([*runs]), host, first_host)


def check(name: str, run_logs: int, seed: int) -> None:
    """Coverage; with four runs and more, two of them clean, also bias, width and order."""
    found, one_sided = outcome(name, run_logs, seed), name.startswith("all ")
    assert 0.93 <= np.mean(found.covered) <= (1 if one_sided else 0.99), name
    if not one_sided:
        assert abs(np.median(found.errors)) < (0.03 if "contended" in name else 0.01)
        assert np.median(found.widths) < 1.5
        assert not found.first or np.mean(found.first) >= 0.95
        assert not found.slow_tied or np.mean(found.slow_tied) <= 0.05


@pytest.mark.parametrize("name", ["offset, drift and two states", "a third of the runs contended"])
def test_intervals_hold_the_truth_and_the_fastest_mode_is_named(name):
    check(name, run_logs=10, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_intervals_hold_the_truth_on_every_machine(name):
    check(name, run_logs=20, seed=4)


@pytest.mark.parametrize("name", MACHINES)
def test_one_round_is_an_estimate_with_an_interval(name):
    found = outcome(name, run_logs=10, seed=5, rounds=(1,))
    assert np.mean(found.covered) >= (0.85 if "one process in ten" in name else 0.93), (
        "a slow process alone looks normal"
    )


def test_four_nodes_of_a_kind_keep_their_own_latencies_and_share_their_speedups():
    covered, speedups = [], []
    for seed in range(12):
        rng, nodes = np.random.default_rng(seed), [Machine(level=level) for level in (1.0, 1.1, 1.25, 1.4)]
        runs = []
        for number, node in enumerate(nodes):
            node.truth_ms = {case: node.level * ms for case, ms in nodes[0].truth_ms.items()}
            runs += node.runs(rng, rounds=4 if number else 5, session=f"node {number}")
        found = estimated(*runs, host=str, first_host="node 0")
        for case, estimate in found.items():
            low, high = estimate.interval_ms
            assert estimate.host == "node 0" and len(estimate.hosts) == 4
            covered.append(low <= nodes[0].truth_ms[case] <= high)
            ratio = estimates.speedup(found[msgspec.structs.replace(case, mode="baseline")], estimate)
            assert ratio.pairs >= 15
            speedups.append(ratio.low <= 1 / simulated.MODES[case.mode][0] <= ratio.high)
    assert np.mean(covered) >= 0.93 and np.mean(speedups) > 0.93


def test_what_a_host_did_not_measure_is_its_baseline_over_the_speedup_found_elsewhere():
    runs = [unloaded(CASE, number, 20.0, session="fast") for number in (1, 2, 3)]
    runs += [unloaded(CASE, number, 30.0, session="slow") for number in (1, 2)]
    runs += [unloaded(COMPILED, number, 15.0, session="slow") for number in (1, 2)]
    found = estimated(*runs, host=str, first_host="fast")
    assert found[COMPILED].carried and found[COMPILED].latency_ms == pytest.approx(10.0, rel=0.01)
    assert found[COMPILED].half_width > found[CASE].half_width + 0.05, "hosts differ by more than a factor"
    alone = estimated(*runs, host=str, first_host="slow")
    assert not alone[COMPILED].carried and alone[COMPILED].latency_ms == pytest.approx(15.0, rel=0.01)


@pytest.mark.parametrize("slow", [0.0, 0.3, 0.7])
def test_the_reference_is_the_fast_state_and_the_band_ends_before_the_slow_one(slow):
    runs = Machine(slow_state=slow).runs(np.random.default_rng(0), rounds=4)
    reference = stats.reference(np.concatenate([run.reference_ms for run in runs]))
    assert reference.level_ms == pytest.approx(REFERENCE_MS, rel=0.04)
    assert 1.04 < reference.bound_ms[0] / reference.level_ms[0] < 1.5 / 1.1


def test_a_machine_that_only_scatters_is_not_called_disturbed():
    """One broad cloud of 6 %, as on a machine of 16 cores: a low quantile with 5 % on top of it would keep a few."""
    reference_times = REFERENCE_MS * np.random.default_rng(1).lognormal(0, 0.06, (2000, 2))
    reference = stats.reference(reference_times)
    assert stats.valid_samples(reference_times, reference.bound_ms).mean() > 0.7
    before = (reference_times <= 1.05 * np.quantile(reference_times, 0.02, axis=0)).all(axis=1)
    assert (before[1:] & before[:-1]).mean() < 0.01


def test_one_disturbed_reference_time_is_enough_to_drop_a_sample():
    good, bad = REFERENCE_MS, REFERENCE_MS * [1, 1.2]
    assert stats.valid_samples([good, good, bad, good, good], REFERENCE_MS * 1.1).tolist() == [True, False, False, True]


def test_an_unknown_slope_is_the_default():
    assert stats.fitted_slope([np.array([0.1])], [np.array([1.0])]) == stats.SLOPE
    rng = np.random.default_rng(0)
    levels = [rng.normal(0, 0.002, 3) for _ in range(5)]
    few = stats.fitted_slope(levels, [rng.normal(0, 0.02, 3) for _ in levels])
    assert abs(few - stats.SLOPE) < stats.SLOPE_SPREAD, "runs at nearly one level say little"


def test_slopes_are_learnt_by_runtime():
    runs = Machine(modes=("baseline", "openvino"), models=12).runs(np.random.default_rng(2), rounds=16)
    found = estimated(*runs)
    slopes = {case.mode: estimate.counted[0].slope for case, estimate in found.items()}
    assert slopes["baseline"] == pytest.approx(simulated.SLOPES["torch"], abs=0.3)
    assert slopes["openvino"] == pytest.approx(simulated.SLOPES["openvino"], abs=0.3)


def test_the_interval_of_runs_that_agree_is_students():
    """Without shrinkage, against scipy.stats."""
    logs = np.array([0.0, 0.01, -0.012, 0.004, 0.006])
    middle, width = stats.agreeing_mean(logs, np.ones(5), stats.Scatter(0.01, 0))
    assert middle == pytest.approx(logs.mean(), abs=1e-9)
    assert width == pytest.approx(scipy_stats.t.ppf(0.975, 4) * scipy_stats.sem(logs), rel=1e-9)
    assert stats.interval(np.exp(logs)) == pytest.approx(
        tuple(np.exp(scipy_stats.t.interval(0.95, 4, logs.mean(), scipy_stats.sem(logs))))
    )


@pytest.mark.parametrize(
    ("logs", "middle", "reaches"),
    [([0, 0.01, 0.4], 0.005, False), ([0, 0.4], 0.2, True), ([0, 0.01, 0.4, 0.41], 0.205, True)],
)
def test_a_minority_is_left_out_and_without_a_majority_the_interval_reaches_to_all(logs, middle, reaches):
    found, width = stats.agreeing_mean(logs, np.ones(len(logs)), stats.Scatter(0.02**2, 20))
    assert found == pytest.approx(middle, abs=1e-9) and (width > max(logs) - middle) == reaches


def test_further_sessions_narrow_an_interval_but_not_below_what_the_next_one_may_differ_by():
    widths = [stats.session_half_width(sessions) for sessions in (1, 2, 100)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == pytest.approx(1.96 * 2**0.5 * stats.BETWEEN) and widths[2] > 1.95 * stats.BETWEEN


def test_a_long_inference_follows_the_rule_of_short_ones():
    """Four samples a run of a second each; in one run others disturb it, as the reference times show."""
    runs = [unloaded(CASE, number, ms, samples=4) for number, ms in ((1, 900.0), (2, 930.0), (3, 915.0))]
    loud = (2 * REFERENCE_MS * np.ones((5, 2))).tolist()
    runs.append(unloaded(CASE, 4, 1500.0, samples=4, reference_ms=loud))
    estimate = estimated(*runs)[CASE]
    assert estimate.latency_ms == pytest.approx(915, rel=0.01) and not estimate.one_sided
    assert len(estimate.runs) == 4 and len(estimate.counted) == 3


def test_with_load_beside_every_run_only_a_lower_limit_of_speed_is_known():
    runs = [unloaded(CASE, number, 50.0, others_cpus=1.2) for number in (1, 2)]
    estimate = estimated(*runs)[CASE]
    low, high = estimate.interval_ms
    assert estimate.quality == "at least" and low == 0 and high > estimate.latency_ms == pytest.approx(50)
    better = estimated(*runs, unloaded(CASE, 3, 20.0))[CASE]
    assert not better.one_sided and better.latency_ms < 51


def test_of_a_run_that_was_repeated_the_one_with_less_load_counts():
    first, again = unloaded(CASE, 1, 90.0, others_cpus=1.0), unloaded(CASE, 1, 20.0, others_cpus=0.05)
    for pair in ((first, again), (again, first)):
        estimate = estimated(*pair, unloaded(CASE, 2, 20.0))[CASE]
        assert estimate.latency_ms == pytest.approx(20) and len(estimate.runs) == 2


def test_speedups_pair_what_a_round_of_a_session_shares():
    runs = []
    for number in range(1, 7):  # sessions of unlike hosts: one is twice as fast as the other
        host, session = (1, "a") if number < 4 else (0.5, "b")
        runs += [
            unloaded(CASE, number, 20.0 * host, session=session),
            unloaded(COMPILED, number, 10.0 * host, session=session),
        ]
    found = estimated(*runs, host=str, first_host="a")
    ratio = estimates.speedup(found[CASE], found[COMPILED])
    assert ratio.ratio == pytest.approx(2) and ratio.pairs == 6 and ratio.low < 2 < ratio.high < 1.2 * ratio.low
    apart = found[CASE].only(lambda session, _: session == "a"), found[COMPILED].only(lambda session, _: session == "b")
    assert estimates.speedup(*apart)[0] == pytest.approx(4) and estimates.speedup(*apart).pairs == 0
    assert np.isnan(estimates.speedup(NOTHING, found[CASE])[0])


def test_a_case_that_was_not_measured_is_no_number():
    nothing = CaseEstimate(raw=[Run(case=CASE, status="error")])
    assert not nothing and nothing.quality == "" and np.isnan([nothing.latency_ms, *nothing.interval_ms]).all()


def test_an_idle_host_that_the_rule_was_not_made_on_gets_a_full_ranking():
    """A slower host of a name that is known; the rule before left its ranking empty."""
    results = Results(read_all(ROOT / "tests" / "run_logs" / "third_quick"))
    assert len(results.rows) == 15 and (results.rows.status == "ok").all()
    for run_log, case in results.cases:
        estimate = results.estimates(run_log)[case]
        low, high = estimate.interval_ms
        assert low <= np.median([np.median(run.samples_ms) for run in estimate.raw]) <= high
    assert rankings.ranking(results.rows)["mode"].tolist() == ["openvino+nhwc+retained"] * 5


def test_a_session_that_others_disturbed_is_ranked_and_says_so():
    """From its thirteenth run on others used up to 1.4 CPUs; torch's runs then took up to 97 times as long."""
    results = Results(read_all(ROOT / "tests" / "run_logs" / "disturbed"))
    quiet = Results(read_all(ROOT / "tests" / "run_logs" / "third_quick"))
    top = rankings.ranking(results.rows)
    assert len(top) == 5 and (top["mode"] == "openvino+nhwc+retained").all()
    overlap = (results.rows.throughput_low <= quiet.rows.throughput_high) & (
        results.rows.throughput_high >= quiet.rows.throughput_low
    )
    assert overlap.mean() >= 0.9, "two sessions of one host, compared row by row"
    assert (results.rows.quality == "at least").sum() > (quiet.rows.quality == "at least").sum()
