"""Repetitions, warnings, comparisons and stopping, on journals of a made-up machine whose truth is known."""

import random
import sys

import msgspec
import numpy as np
import pandas as pd
import pytest

from segbench import health, modes, references, schedule, stats, tables
from segbench.cases import Case, Floor, Visit
from segbench.compare import compare
from segbench.journal import Journal, folders
from segbench.tables import Results

from .conftest import ENCODER_ONLY, REPEATABILITY, ROOT
from .test_journal import header

sys.path.insert(0, str(ENCODER_ONLY.parent))
sys.path.insert(0, str(REPEATABILITY.parent))
import encoder_pages
import estimator_study as study
import repetitions

FLOORS_MS = np.array([3.4, 1.3])


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path, monkeypatch):
    """The machine that the tests run on may have a reference."""
    monkeypatch.setattr(references, "PATH", tmp_path / "references.json")


BASE = Case(model="lcnet_100", mode="baseline", size=(512, 512), threads=2)
COMPILED = msgspec.structs.replace(BASE, mode="compile")
USUAL = msgspec.structs.replace(BASE, protocol="usual", allocator="plain")


def visit(rng, case: Case, number: int, day: int, ms: float, slow_share: float = 0.3, scatter: float = 0.01):
    """Samples at `ms`, or 1.5 times that in the slow state, which the convolution yardstick sees too."""
    ms = ms * rng.lognormal(0, scatter)
    slow = np.where(rng.random(41) < slow_share, 1.5, 1.0)
    samples = ms * slow[:-1] * rng.uniform(0.995, 1.005, 40)
    if case.protocol == "usual":
        return Visit(case=case, round=number, samples_ms=samples.tolist(), seconds=10)
    # A sample is disturbed by the state that it begins in.
    readings = FLOORS_MS * np.column_stack([slow, np.ones(41)]) * rng.uniform(1, 1.01, (41, 2))
    return Visit(
        case=case,
        round=number,
        started=f"2026-01-0{day}T00:00:00+00:00",
        samples_ms=samples.tolist(),
        readings_ms=readings.tolist(),
        phases_s={"prepare": 2.0},
        cache="warm" if case.mode == "compile" else "",
        seconds=5,
        gmacs=1,
        params=100,
    )


def journal_of(folder, latencies_ms: dict[Case, float], repetitions: int = 4, rounds: int = 3, seed: int = 0, **how):
    rng = np.random.default_rng(seed)
    journal = Journal(folder)
    for repetition in range(1, repetitions + 1):
        started = f"2026-01-0{repetition}T00:00:00+00:00"
        journal.begin(header(started, settings={"rounds": rounds}))
        readings = (FLOORS_MS * rng.uniform(1, 1.01, (60, 2))).tolist()
        journal.append(Floor(threads=2, started=started, readings_ms=readings, peak_gflops={}, seconds=6))
        for number in range((repetition - 1) * rounds + 1, repetition * rounds + 1):
            for case, ms in latencies_ms.items():
                if case.protocol != "usual" or number % rounds == 0:
                    journal.append(visit(rng, case, number, repetition, ms, **how))
    return journal


def test_spread_coverage_and_cost_of_both_protocols(tmp_path):
    journal = journal_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0, USUAL: 24.0})
    rows = repetitions.protocols(Results([journal])).set_index(["protocol", "mode"])
    quiet = rows.loc["levelled", "baseline"]
    assert quiet.repetitions == 4 and quiet.throughput_img_s == pytest.approx(50, rel=0.01)
    assert quiet.spread < 1.03 and quiet.estimator == "levelled"
    # Three visits of 5 s, and half of the floors' 6 s; compiling is counted apart.
    assert quiet.seconds == 3 * 5 + 3
    assert rows.loc["levelled", "compile"].seconds == 3 * (5 - 2) + 3 and rows.loc["levelled", "compile"].prepare_s == 6
    assert rows.loc["levelled", "compile"].speedup == pytest.approx(2, rel=0.02)
    usual = rows.loc["usual", "baseline"]
    assert usual.seconds == 10 and usual.throughput_img_s == pytest.approx(1e3 / (24 * 1.15), rel=0.05)
    assert usual.spread > quiet.spread


def test_a_repetition_knows_nothing_of_the_others(tmp_path):
    journal = journal_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0})
    before = repetitions.of_visits(repetitions.by_repetition(journal)[BASE][1], journal).interval_ms
    other = journal_of(tmp_path / "b", {BASE: 20.0, COMPILED: 10.0})
    for one in other.visits:
        if repetitions.repetition(one, other) > 1:
            one.samples_ms = (np.array(one.samples_ms) * np.random.default_rng(one.round).lognormal(0, 0.2)).tolist()
    assert repetitions.of_visits(repetitions.by_repetition(other)[BASE][1], other).interval_ms == before


def test_a_repetition_that_is_not_complete_is_left_out(tmp_path):
    journal = journal_of(tmp_path / "a", {BASE: 20.0})
    journal.append(visit(np.random.default_rng(1), BASE, 13, 4, 90.0))
    assert repetitions.protocols(Results([journal])).repetitions.tolist() == [4, 4, 4], "one row a protocol"


def test_coverage_counts_intervals_that_hold_the_median_of_the_others():
    frame = pd.DataFrame({"latency_ms": [10, 10, 12.0], "low_ms": [9, 10.5, 11], "high_ms": [11.5, 12, 13]})
    assert repetitions.covered(frame).tolist() == [True, True, False]  # of 11, 11 and 10


def test_the_study_judges_what_is_published_beside_what_else_could_be(tmp_path):
    results = Results([journal_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0}, slow_share=0.5)])
    rows = study.estimators(results).set_index("estimator")
    published = repetitions.protocols(results).query("protocol == 'levelled'")
    assert rows["spread, worst"]["levelled, as published"] == pytest.approx(published.spread.max())
    before = repetitions.protocols(results).query("protocol == 'before'")
    assert rows["spread, worst"]["the rule before"] == pytest.approx(before.spread.max())
    level = rows["over the published, %"]
    assert level["levelled, as published"] == 0 and level["mean of all samples"] == pytest.approx(25, abs=6)
    (machine,) = study.machines(results).to_dict("records")
    assert machine["convolution, ms"] == pytest.approx(FLOORS_MS[0], rel=0.02)


def test_the_rule_before_takes_the_median_of_quiet_samples_over_the_floor(tmp_path):
    journal = journal_of(tmp_path / "a", {BASE: 20.0}, repetitions=1, slow_share=0.5)
    row = repetitions.before(journal.visits, journal)
    readings = np.concatenate([line.readings_ms for line in (*journal.floors, *journal.visits)])
    floor = np.quantile(readings, 0.02, axis=0)
    quiet = []
    for one in journal.visits:
        good = (np.array(one.readings_ms) <= 1.05 * floor).all(axis=1)
        quiet += [ms for ms, before, after in zip(one.samples_ms, good, good[1:], strict=False) if before and after]
    assert row["estimator"] == "quiet" and row["latency_ms"] == pytest.approx(np.median(quiet))


def warnings(journal: Journal) -> dict[str, str]:
    readings = health.session_readings(journal)[journal.session, 2]
    return health.warnings(journal.visits, readings, stats.reference(readings.all()))


@pytest.mark.parametrize(
    ("how", "kinds"),
    [
        ({}, set()),
        ({"others_cpus": 0.7}, {"busy"}),
        ({"stolen_cpus": 0.3}, {"stolen"}),
        ({"page_faults": 900.0}, {"allocator"}),
    ],
)
def test_a_busy_machine_is_named(tmp_path, how, kinds):
    journal = journal_of(tmp_path / "a", {BASE: 20.0}, repetitions=1)
    for one in journal.visits:
        for field, value in how.items():
            setattr(one, field, value)
    assert warnings(journal).keys() == kinds


def test_a_machine_that_is_hardly_ever_quiet_or_drifts_is_named(tmp_path):
    journal = journal_of(tmp_path / "a", {BASE: 20.0}, repetitions=1)
    known = stats.reference(health.session_readings(journal)[journal.session, 2].all())
    slow = [visit(np.random.default_rng(number), BASE, number, 1, 20.0, slow_share=0.97) for number in (5, 6, 7)]
    readings = health.session_readings(journal)[journal.session, 2]
    assert "% of the samples were undisturbed" in health.warnings(slow, readings, known)["quiet"]
    slower = visit(np.random.default_rng(2), BASE, 4, 1, 20.0)
    slower.started, slower.readings_ms = "2026-01-01T01:00:00+00:00", [(3.4 * 1.2, 1.3)] * 60
    journal.append(slower)
    assert "factor of 1.2" in warnings(journal)["drift"]
    assert any("session of 2026-01-01 00:00: " in line for line in health.summary(journal))


@pytest.mark.parametrize(("factor", "named"), [(1.0, False), (1.03, False), (1.3, True)])
def test_unlike_nodes_of_a_name_are_named(tmp_path, factor, named):
    journal = journal_of(tmp_path / "a", {BASE: 20.0}, repetitions=2, slow_share=0.4)
    for session, begun in journal.headers.items():
        begun.boot_id = f"{session != journal.session:d}-a-boot-id"
    for line in (*journal.visits, *journal.floors):
        slower = factor if line.session == journal.session else 1
        line.readings_ms = [(slower * one, other) for one, other in line.readings_ms] * 20  # as of a longer sweep
    lines = [line for line in health.summary(journal) if line.startswith("node 0-a-boot (its boot id)")]
    assert len(lines) == named and all("convolution takes it 1.3" in line for line in lines)


@pytest.mark.parametrize(("factor", "named"), [(1.0, False), (1.2, True)])
def test_sessions_of_real_machines_dealt_to_two_nodes(factor, named):
    deal = random.Random(0)
    for folder in folders(ROOT / "benchmarks" / "encoder_only" / "journals"):
        journal = Journal.read(folder)
        if len(journal.headers) < 2:
            continue
        for _ in range(3):
            sessions = deal.sample(list(journal.headers), len(journal.headers))
            slow = set(sessions[::2])
            for session, begun in journal.headers.items():
                begun.boot_id = f"node {session in slow:d}"
            lines = [line for line in journal.with_readings() if line.session in slow]
            as_it_is = [line.readings_ms for line in lines]
            for line in lines:
                line.readings_ms = np.multiply(line.readings_ms, factor).tolist()
            assert bool(health.nodes_apart(journal)) == named, folder.name
            for line, readings_ms in zip(lines, as_it_is, strict=True):
                line.readings_ms = readings_ms


def test_compare_tells_runs_apart_that_differ_and_only_those(tmp_path):
    first = journal_of(tmp_path / "a", {BASE: 20.0, COMPILED: 10.0}, seed=1)
    same = journal_of(tmp_path / "b", {BASE: 20.0, COMPILED: 10.0}, seed=2)
    faster = journal_of(tmp_path / "c", {BASE: 17.0, COMPILED: 12.0}, seed=3)
    assert compare(first, same).verdict.tolist() == ["not separable"] * 2
    rows = compare(first, faster)
    assert rows.verdict.tolist() == ["faster", "slower"]
    assert rows.ratio.tolist() == [pytest.approx(20 / 17, rel=0.02), pytest.approx(10 / 12, rel=0.02)]
    modes = compare(first, first, ("baseline", "compile"))
    assert modes["mode"].tolist() == ["baseline / compile"] and modes.ratio[0] == pytest.approx(2, rel=0.02)
    assert modes.verdict.tolist() == ["faster"]


def test_compare_refuses_what_was_measured_otherwise(tmp_path):
    first = journal_of(tmp_path / "a", {BASE: 20.0})
    larger = journal_of(tmp_path / "b", {msgspec.structs.replace(BASE, size=(640, 640)): 30.0})
    other = journal_of(tmp_path / "c", {BASE: 20.0})
    for one in other.visits:
        one.params = 200
    assert compare(first, larger).verdict.tolist() == ["refused: size (512, 512) against (640, 640)"]
    assert "another network" in compare(first, other).verdict[0]


def test_until_goes_on_with_the_cases_that_are_wide(tmp_path):
    others = {msgspec.structs.replace(BASE, model=f"model_{number}"): 20.0 for number in range(8)}
    journal = journal_of(tmp_path / "a", {BASE: 20.0, **others}, repetitions=1, scatter=0.001)
    rng = np.random.default_rng(4)
    for number, ms in ((1, 10.0), (2, 14.0), (3, 12.0)):
        journal.append(visit(rng, COMPILED, number, 1, ms))

    def further(until: float, most: int = 20) -> list[schedule.Step]:
        plan = schedule.Plan([BASE, COMPILED], 3, until=until, max_rounds=most)
        assert plan.steps(journal.visits) == []
        return plan.further_steps(journal)

    assert further(0.06) == [(4, COMPILED)]
    assert {case for _, case in further(1e-9)} == {BASE, COMPILED}
    assert further(0.04, most=3) == [] == further(5.0) == further(0)
    journal.append(visit(rng, COMPILED, 4, 1, 12.0))
    assert {case for _, case in further(1e-9)} == {BASE}, "round 4 was begun and is ended first"


FRAME = pd.DataFrame(
    {
        "machine": "m",
        "model": ["a", "b", "c", "d", "e", "f"],
        "decoder": "",
        "mode": "baseline",
        "precision": ["fp32"] * 5 + [""],
        "allocator": "pinned",
        "status": ["ok"] * 4 + ["wrong", "ok"],
        "throughput_img_s": [10.0, 30.0, 29.0, 5.0, 99.0, 99.0],
        "throughput_low": [9.0, 28.0, 27.0, np.nan, 98.0, 98.0],
        "throughput_high": [11.0, 32.0, 31.0, np.nan, 99.9, 99.9],
    }
)


def test_the_ranking_leaves_out_what_is_wrong_or_unknown_and_marks_what_intervals_do_not_separate():
    top = tables.ranking(FRAME)
    # 30 against 29 is within what both intervals leave open; 10 is not; nothing is known of how sure 5 is.
    assert top.model.tolist() == ["b", "c", "a", "d"] and top["rank"].tolist() == [1, 1, 3, 3]


def test_every_ranking_has_a_first_of_its_own(monkeypatch):
    monkeypatch.setitem(modes.PRECISIONS, "int8", modes.Precision(0.5, 0.0, "integer"))
    frame = FRAME.assign(family="f", speedup=1.0, speedup_low=1.0, speedup_high=1.0)
    frame = frame[frame.precision != ""]
    both = pd.concat([frame, frame.assign(mode="compile", precision="int8")], ignore_index=True)
    top = tables.ranking(both).set_index(["precision", "model"])["rank"]
    assert top["fp32"].to_dict() == top["int8"].to_dict() == {"b": 1, "c": 1, "a": 3, "d": 3}
    best = encoder_pages.by_mode(both).set_index("model").best_mode
    assert best.dropna().to_dict() == dict.fromkeys("abcd", "baseline"), "INT8 is ranked apart"
