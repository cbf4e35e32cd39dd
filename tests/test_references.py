"""One reference a machine, found once and kept."""

import pytest

from segbench import references, stats
from segbench.journal import read_all

from .conftest import ROOT
from .test_repetitions import BASE, FLOORS_MS, journal_of

SMALL = ROOT / "tests" / "journals"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "PATH", tmp_path / "references.json")


def test_what_was_kept_once_is_never_changed(tmp_path, elsewhere):
    first = journal_of(tmp_path / "a", {BASE: 20.0}, repetitions=8)
    assert references.of_journal(first)[2].level_ms == pytest.approx(FLOORS_MS, rel=0.02)
    assert references.keep([first]) and not references.keep([first])
    kept = references.kept()[first.header.machine.name]
    second = journal_of(tmp_path / "b", {BASE: 20.0}, repetitions=8)
    for line in (*second.visits, *second.floors):
        line.readings_ms = [(1.1 * one, 1.1 * other) for one, other in line.readings_ms]
    assert not references.keep([second]) and references.of_journal(second) == kept


def test_a_few_readings_are_not_kept(tmp_path, elsewhere):
    assert not references.keep([journal_of(tmp_path / "a", {BASE: 20.0}, repetitions=1)])
    assert references.kept() == {}


@pytest.mark.parametrize("name", ["encoder_only", "encoder_only_quick", "benchmark_official"])
def test_steady_machines_of_other_kinds_are_found_undisturbed(name):
    """The rule before called 0 to 3 % of their samples quiet."""
    for journal in read_all(SMALL / name):
        (reference,) = references.found([journal]).values()
        masks = [stats.in_band(visit.readings_ms, reference.bound_ms) for visit in journal.visits if visit.readings_ms]
        assert sum(mask.sum() for mask in masks) > 0.2 * sum(map(len, masks))


def test_every_committed_machine_has_one():
    for script in ROOT.glob("benchmarks/*/journals"):
        for journal in read_all(script):
            assert references.kept()[journal.header.machine.name].keys() >= {v.case.threads for v in journal.visits}
