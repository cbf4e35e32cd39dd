"""Repetitions, warnings, comparisons and rankings, on run logs of a made-up machine whose truth is known."""

import msgspec
import numpy as np
import pandas as pd
import pytest

from benchmarks.encoder_only import report
from benchmarks.repeatability import repetitions
from segbench import modes
from segbench.analysis import diagnostics, rankings
from segbench.analysis.compare import compare
from segbench.analysis.tables import Results
from segbench.cases import Case
from segbench.measure import schedule
from segbench.records import MachineSpeed, Run
from segbench.run_log import RunLog
from segbench.settings import Settings
from studies import estimator_study as study

from .test_run_log import header

REFERENCE_MS = np.array([3.4, 1.3])


BASE = Case(model="lcnet_100", mode="baseline", size=(512, 512), threads=2)
COMPILED = msgspec.structs.replace(BASE, mode="compile")
FIXED_ITERATION = msgspec.structs.replace(BASE, protocol="fixed-iteration")


def run(rng, case: Case, number: int, day: int, ms: float, slow_share: float = 0.3, scatter: float = 0.01):
    """Samples at `ms`, or 1.5 times that in the slow state, which the convolution reference workload sees too."""
    ms = ms * rng.lognormal(0, scatter)
    slow = np.where(rng.random(41) < slow_share, 1.5, 1.0)
    samples = ms * slow[:-1] * rng.uniform(0.995, 1.005, 40)
    if case.protocol == "fixed-iteration":
        return Run(case=case, round=number, samples_ms=samples.tolist(), seconds=10)
    # A sample is disturbed by the state that it begins in.
    reference_times = REFERENCE_MS * np.column_stack([slow, np.ones(41)]) * rng.uniform(1, 1.01, (41, 2))
    return Run(
        case=case,
        round=number,
        started=f"2026-01-0{day}T00:00:00+00:00",
        samples_ms=samples.tolist(),
        reference_ms=reference_times.tolist(),
        phases_s={"prepare": 2.0},
        cache="warm" if case.mode == "compile" else "",
        seconds=5,
        gmacs=1,
        params=100,
    )


def run_log_of(folder, latencies_ms: dict[Case, float], repetitions: int = 4, rounds: int = 3, seed: int = 0, **how):
    rng = np.random.default_rng(seed)
    run_log = RunLog(folder)
    for repetition in range(1, repetitions + 1):
        started = f"2026-01-0{repetition}T00:00:00+00:00"
        run_log.begin(header(started, settings={"rounds": rounds}))
        reference_times = (REFERENCE_MS * rng.uniform(1, 1.01, (60, 2))).tolist()
        run_log.append(
            MachineSpeed(threads=2, started=started, reference_ms=reference_times, peak_gflops={}, seconds=6)
        )
        for number in range((repetition - 1) * rounds + 1, repetition * rounds + 1):
            for case, ms in latencies_ms.items():
                if case.protocol != "fixed-iteration" or number % rounds == 0:
                    run_log.append(run(rng, case, number, repetition, ms, **how))
    return run_log


def test_spread_coverage_and_cost_of_both_protocols(tmp_path):
    run_log = run_log_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0, FIXED_ITERATION: 24.0})
    rows = repetitions.protocols(Results([run_log])).set_index(["protocol", "mode"])
    project = rows.loc["drift-corrected", "baseline"]
    assert project.repetitions == 4 and project.throughput_img_s == pytest.approx(50, rel=0.01)
    assert project.spread < 1.03
    # Three runs of 5 s, and half of the 6 s at the session's start; compiling is counted apart.
    assert project.seconds == 3 * 5 + 3
    assert (
        rows.loc["drift-corrected", "compile"].seconds == 3 * (5 - 2) + 3
        and rows.loc["drift-corrected", "compile"].prepare_s == 6
    )
    assert rows.loc["drift-corrected", "compile"].speedup == pytest.approx(2, rel=0.02)
    fixed_iterations = rows.loc["fixed-iteration", "baseline"]
    assert fixed_iterations.seconds == 10 and fixed_iterations.throughput_img_s == pytest.approx(
        1e3 / (24 * 1.15), rel=0.05
    )
    assert fixed_iterations.spread > project.spread


def test_a_repetition_knows_nothing_of_the_others(tmp_path):
    run_log = run_log_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0})
    before = repetitions.alone(repetitions.by_repetition(run_log)[BASE][1], run_log).interval_ms
    other = run_log_of(tmp_path / "b", {BASE: 20.0, COMPILED: 10.0})
    for changed in other.runs:
        if repetitions.repetition(changed.round, other) > 1:
            changed.samples_ms = (
                np.array(changed.samples_ms) * np.random.default_rng(changed.round).lognormal(0, 0.2)
            ).tolist()
    assert repetitions.alone(repetitions.by_repetition(other)[BASE][1], other).interval_ms == before


def test_a_repetition_that_is_not_complete_is_left_out(tmp_path):
    run_log = run_log_of(tmp_path / "a", {BASE: 20.0})
    run_log.append(run(np.random.default_rng(1), BASE, 13, 4, 90.0))
    assert repetitions.protocols(Results([run_log])).repetitions.tolist() == [4, 4, 4], "one row a protocol"


def test_coverage_counts_intervals_that_hold_the_median_of_the_others():
    frame = pd.DataFrame({"latency_ms": [10, 10, 12.0], "low_ms": [9, 10.5, 11], "high_ms": [11.5, 12, 13]})
    assert repetitions.covered(frame).tolist() == [True, True, False]  # of 11, 11 and 10


def test_the_study_finds_reference_slope_and_scatter(tmp_path):
    run_log = run_log_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0}, slow_share=0.5)
    (row,) = study.kinds([run_log])
    assert row["convolution, ms"] == pytest.approx(REFERENCE_MS[0], rel=0.02) and row["cases"] == 2
    assert row["valid"] <= row["runs"] == 24 and 0 < row["drift-corrected, %"] < row["all samples, %"]


def test_sessions_are_set_against_each_other_case_by_case(tmp_path):
    others = {msgspec.structs.replace(BASE, model=f"model_{number}"): 20.0 for number in range(4)}
    (row,) = study.between_sessions([run_log_of(tmp_path / "a", others, repetitions=4)])
    assert row["pairs"] == 4 * 4 * 3 and row["coverage"] > 0.9 and 0 < row["apart, %"] < 3


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({}, ""),
        ({"others_cpus": 0.7}, "other processes used 0.70 CPUs"),
        ({"stolen_cpus": 0.3}, "the hypervisor gave 0.30"),
        ({"throttled_cpus": 0.5}, "quota withheld 0.50"),
        ({"page_faults": 900.0}, "900 page faults"),
    ],
)
def test_what_disturbed_a_run_is_said_once(tmp_path, how, says):
    run_log = run_log_of(tmp_path / "a", {BASE.under("baseline+retained"): 20.0}, repetitions=2)
    for changed in run_log.runs:
        for field, value in how.items():
            setattr(changed, field, value)
    lines = diagnostics.warnings(run_log.runs)
    assert len(lines) == bool(says) and all(says in line for line in lines)
    run_log.runs[0].others_cpus = 3.0
    assert len(diagnostics.warnings(run_log.runs)) == bool(says), "one run of six is no matter"


def test_compare_calls_runs_faster_or_slower_that_differ_and_only_those(tmp_path):
    first = run_log_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0}, seed=1)
    same = run_log_of(tmp_path / "b", {BASE: 20.0, COMPILED: 10.0}, seed=2)
    faster = run_log_of(tmp_path / "c", {BASE: 17.0, COMPILED: 12.0}, seed=3)
    assert compare(first, same).verdict.tolist() == ["tied"] * 2
    rows = compare(first, faster)
    assert rows.verdict.tolist() == ["faster", "slower"]
    assert rows.ratio.tolist() == [pytest.approx(20 / 17, rel=0.02), pytest.approx(10 / 12, rel=0.02)]
    modes = compare(first, first, ("baseline", "compile"))
    assert modes["mode"].tolist() == ["baseline / compile"] and modes.ratio[0] == pytest.approx(2, rel=0.02)
    assert modes.verdict.tolist() == ["faster"]


def test_compare_refuses_what_was_measured_otherwise(tmp_path):
    first = run_log_of(tmp_path / "a", {BASE: 20.0})
    larger = run_log_of(tmp_path / "b", {msgspec.structs.replace(BASE, size=(640, 640)): 30.0})
    other = run_log_of(tmp_path / "c", {BASE: 20.0})
    for changed in other.runs:
        changed.params = 200
    assert compare(first, larger).verdict.tolist() == ["refused: size (512, 512) against (640, 640)"]
    assert "another network" in compare(first, other).verdict[0]


def test_until_goes_on_with_the_cases_that_are_wide(tmp_path):
    others = {msgspec.structs.replace(BASE, model=f"model_{number}"): 20.0 for number in range(8)}
    run_log = run_log_of(tmp_path / "a", {BASE: 20.0, **others}, repetitions=1, scatter=0.001)
    rng = np.random.default_rng(4)
    for number, ms in ((1, 10.0), (2, 14.0), (3, 12.0)):
        run_log.append(run(rng, COMPILED, number, 1, ms))

    def further(until: str, most: int = 20) -> list[schedule.Step]:
        plan = schedule.Plan([BASE, COMPILED], Settings(rounds=3, until=until, max_rounds=most))
        assert plan.steps(run_log.runs) == []
        return plan.further_steps(run_log)

    assert further("6%") == [(4, COMPILED)]
    assert {case for _, case in further("1e-9")} == {BASE, COMPILED}
    assert further("4%", most=3) == [] == further("500%") == further("")
    run_log.append(run(rng, COMPILED, 4, 1, 12.0))
    assert {case for _, case in further("1e-9")} == {BASE}, "round 4 was begun and is ended first"


FRAME = pd.DataFrame(
    {
        "machine": "m",
        "model": ["a", "b", "c", "d", "e", "f"],
        "decoder": "",
        "mode": "baseline",
        "precision": ["fp32"] * 5 + [""],
        "allocator": "default",
        "status": ["ok"] * 4 + ["wrong", "ok"],
        "throughput_img_s": [10.0, 30.0, 29.0, 5.0, 99.0, 99.0],
        "half_width": [0.1, 0.07, 0.07, 0.07, 0.01, 0.01],
        "quality": ["", "", "", "at least", "", ""],
        "tied": [True] * 4 + [False, True],
    }
)


def test_a_ranking_leaves_out_wrong_results_and_unknown_modes_but_nothing_uncertain():
    top = rankings.ranking(FRAME)
    # 30 against 29 is within what both intervals leave open, 10 is not; 5 is a lower limit and may be as fast as any.
    assert top.model.tolist() == ["b", "c", "a", "d"] and top["rank"].tolist() == [1, 1, 3, 3]
    limits = rankings.ranking(FRAME.assign(quality="at least"))
    assert limits.model.tolist() == ["b", "c", "a", "d"] and limits["rank"].tolist() == [1, 1, 1, 1]


def test_the_fastest_mode_is_named_with_those_that_are_tied():
    rows = FRAME[FRAME.status == "ok"].iloc[:3].assign(model="a", mode=["compile", "openvino", "baseline"])
    (top,) = rankings.best(rows.assign(tied=[False, True, True])).to_dict("records")
    assert top["mode"] == "openvino" and top["tied_modes"] == "baseline"


def speedups(**of_model: dict[str, tuple[float, int]]) -> pd.DataFrame:
    """Rows with speedup and pairs by model and mode."""
    rows = [
        {"machine": "m", "decoder": "", "status": "ok", "model": model, "mode": mode, "speedup": ratio, "pairs": pairs}
        for model, modes_of_model in of_model.items()
        for mode, (ratio, pairs) in {"baseline": (1.0, 4), **modes_of_model}.items()
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(speedup_low=0.9 * frame.speedup, speedup_high=1.1 * frame.speedup)


def test_means_are_over_the_same_networks_for_every_mode():
    """The network that only OpenVINO ran is in no mean, nor is a speedup from two pairs, nor a mode of few networks.
    Many modes of few networks outweigh few modes of many."""
    both = {"compile": (2.0, 4), "openvino": (3.0, 4)}
    frame = speedups(
        a=both,
        b={"compile": (4.0, 4), "openvino": (5.0, 4), "mnn": (9.0, 4)},
        c={"openvino": (50.0, 4)},
        d={"compile": (60.0, 2), "openvino": (70.0, 4)},
        e=both,
    )
    gains = rankings.gains(frame).set_index("mode")
    assert gains.networks.to_dict() == {"compile": 3, "openvino": 3} and set(gains.pairs) == {4}
    assert gains["median"].to_dict() == {"compile": 2.0, "openvino": 3.0}
    every = {f"{mode}+retained": (2.0, 4) for mode in ("compile", "onnxruntime", "openvino", "mnn", "ncnn")}
    new = rankings.gains(pd.concat([frame, speedups(f=both | every, g=both | every)]))
    assert {*new["mode"]} == {*both, *every} and set(new.networks) == {2}
    few = rankings.gains(speedups(a={"compile": (2.0, 2)}))
    assert few["median"].tolist() == [2.0], "where no row has four pairs, fewer have to do"


def test_every_ranking_has_a_first_of_its_own(monkeypatch):
    monkeypatch.setitem(modes.PRECISIONS, "int8", modes.Precision(0.5, 0.0, "integer"))
    ends = ("", "_low", "_high")
    over = {f"{name}{end}": 1.0 for name in rankings.OVER for end in ends}
    frame = FRAME.assign(family="f", **over)
    frame = frame[frame.precision != ""]
    both = pd.concat([frame, frame.assign(mode="compile", precision="int8")], ignore_index=True)
    top = rankings.ranking(both).set_index(["precision", "model"])["rank"]
    assert top["fp32"].to_dict() == top["int8"].to_dict() == {"b": 1, "c": 1, "a": 3, "d": 3}
    best = report.by_mode(both).set_index("model").best_mode
    assert best.dropna().to_dict() == dict.fromkeys("abcd", "baseline"), "INT8 is ranked apart"
