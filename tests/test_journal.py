"""What the journal promises: nothing lost, nothing foreign taken in."""

import pytest

from segbench import machine
from segbench.cases import Case, Visit
from segbench.journal import SCHEMA, Header, Journal, JournalError, read_all

CASE = Case(model="lcnet_100", mode="baseline", size=(64, 64), threads=1)


def header(**changes) -> Header:
    fields = {
        "schema": SCHEMA,
        "benchmark": "test",
        "machine": machine.describe(),
        "versions": {"torch": "1"},
        "settings": {"size": (64, 64)},
    }
    return Header(**(fields | changes))


@pytest.fixture
def journal(tmp_path):
    journal = Journal.create(tmp_path / "one.jsonl", header())
    for number in (1, 2):
        journal.append(
            Visit(case=CASE, session=1, round=number, samples_ms=[1.5], readings_ms=[(3.0, 1.0), (3.5, 1.25)])
        )
    return journal


def test_what_is_written_is_read_again(journal):
    again = Journal.read(journal.path)
    assert again.header == journal.header or again.difference(journal.header) == ""
    assert again.visits == journal.visits and again.by_case() == {CASE: {1: again.visits[0], 2: again.visits[1]}}


def test_a_torn_last_line_costs_that_line_only(journal):
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-20])
    torn = Journal.read(journal.path)
    assert len(torn.visits) == 1
    torn.mend()
    torn.append(Visit(case=CASE, round=2))
    assert [visit.round for visit in Journal.read(journal.path).visits] == [1, 2]


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"", "empty"), (b'{"kind":"visit"}\n', "line 1"), (b"not json\n", "line 1"), (b"\xff\xfe\n", "line 1")],
)
def test_anything_but_a_journal_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "one.jsonl"
    path.write_bytes(text)
    with pytest.raises(JournalError, match=says) as error:
        read_all(tmp_path)
    assert "\n" not in str(error.value) and path.read_bytes() == text


def test_a_line_in_the_middle_that_is_damaged_is_named(journal):
    lines = journal.path.read_bytes().split(b"\n")
    lines[1] = lines[1][:10]
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalError, match="line 2"):
        Journal.read(journal.path)


def test_other_settings_versions_and_schemas_are_told(journal, tmp_path):
    assert journal.difference(header(settings={"size": [64, 64]})) == ""
    assert "size [64, 64], not [32, 32]" in journal.difference(header(settings={"size": (32, 32)}))
    assert "torch '1', not '2'" in journal.difference(header(versions={"torch": "2"}))
    Journal.create(tmp_path / "two.jsonl", header(schema=SCHEMA + 1))
    with pytest.raises(JournalError, match="schema"):
        Journal.read(tmp_path / "two.jsonl")
