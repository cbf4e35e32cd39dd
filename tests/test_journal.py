"""What the journal promises: nothing lost, nothing foreign taken in, every measured visit counts."""

import msgspec
import pytest

from segbench import machine
from segbench.cases import Case, Floor, Outcome, Visit
from segbench.journal import SCHEMA, Header, Journal, JournalError, folders, read_all

CASE = Case(model="lcnet_100", mode="baseline", size=(64, 64), threads=1)
FLOOR = Floor(threads=1, started="2026-01-01T00:00:00+00:00", readings_ms=[(3, 1)], peak_gflops={"fp32": 90})


def header(started: str = "2026-01-01T00:00:00+00:00", **changes) -> Header:
    fields = {
        "schema": SCHEMA,
        "benchmark": "test",
        "machine": machine.describe(),
        "versions": {"torch": "1"},
        "settings": {"size": (64, 64)},
        "started": started,
    }
    return Header(**(fields | changes))


@pytest.fixture
def journal(tmp_path) -> Journal:
    journal = Journal(tmp_path / machine.describe().name)
    journal.begin(header())
    journal.append(FLOOR)
    for number in (1, 2):
        readings = [(3.0, 1.0), (3.5, 1.25)]
        journal.append(Visit(case=CASE, round=number, samples_ms=[1.5], readings_ms=readings, cache="warm"))
    return journal


def another_session(journal: Journal, *visits: Visit, started: str = "2026-01-02T00:00:00+00:00") -> Journal:
    later = Journal.read(journal.folder)
    later.begin(header(started))
    for visit in visits:
        later.append(visit)
    return Journal.read(journal.folder)


def test_what_is_written_is_read_again(journal):
    again = Journal.read(journal.folder)
    assert again.difference(journal.header) == "" and again.header.machine == journal.header.machine
    assert again.difference(header(settings={"size": (64, 64), "in_chans": 3})) == "", "older sessions had three"
    assert again.difference(header(settings={"size": (64, 64), "in_chans": 1})) == "in_chans 3, not 1"
    assert again.visits == journal.visits and again.floors == journal.floors
    assert [*again.by_case()] == [CASE] and [visit.round for visit in again.by_case()[CASE]] == [1, 2]
    assert {line.session for line in (*again.visits, *again.floors)} == {journal.session}


def test_a_sweep_reads_the_same_without_the_samples(journal):
    outcomes = Journal.read(journal.folder, samples=False).visits
    assert [type(visit) for visit in outcomes] == [Outcome] * 2 and not hasattr(outcomes[0], "samples_ms")
    assert outcomes == [visit.outcome() for visit in journal.visits] and outcomes[0].cache == "warm"


def test_sessions_lie_in_files_of_their_own_and_all_of_their_visits_count(journal):
    before = journal.path.read_bytes()
    both = another_session(journal, Visit(case=CASE, round=1, samples_ms=[2.5], readings_ms=[(3, 1)] * 2))
    assert journal.path.read_bytes() == before and len([*journal.folder.iterdir()]) == 2
    assert [(visit.round, visit.samples_ms) for visit in both.by_case()[CASE]] == [(1, [1.5]), (1, [2.5]), (2, [1.5])]
    assert len({visit.session for visit in both.visits}) == 2


def test_a_failure_counts_until_its_round_went_well(journal):
    failed = Visit(case=CASE, round=3, status="error", reason="a", samples_ms=[])
    again = msgspec.structs.replace(failed, reason="b")
    both = another_session(journal, failed, again)
    assert [visit.reason for visit in both.by_case()[CASE]] == ["", "", "b"]
    well = Visit(case=CASE, round=3, samples_ms=[1.0])
    both = another_session(both, well, msgspec.structs.replace(failed, round=1), started="2026-01-03T00:00:00+00:00")
    assert [visit.status for visit in both.by_case()[CASE]] == ["ok"] * 3


def test_a_torn_last_line_costs_that_line_only(journal):
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-20])
    both = another_session(journal, Visit(case=CASE, round=2))
    assert [visit.round for visit in both.visits] == [1, 2]
    assert journal.path.read_bytes() == whole[:-20], "no session writes to another's file"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"kind":"visit"}\n', "line 1"),
        (b"not json\n", "line 1"),
        (b"\xff\xfe\n", "line 1"),
        (msgspec.json.encode(FLOOR) + b"\n", "a header is the first line"),
    ],
)
def test_anything_but_a_session_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "a-machine" / "one.jsonl"
    path.parent.mkdir()
    path.write_bytes(text)
    with pytest.raises(JournalError, match=says) as error:
        read_all(tmp_path)
    assert "\n" not in str(error.value) and path.read_bytes() == text


def test_a_journal_of_the_earlier_layout_is_named(tmp_path):
    (tmp_path / "amd-1.2-3c.jsonl").write_text("{}\n")
    with pytest.raises(JournalError, match=r"amd-1\.2-3c\.jsonl is a journal of an earlier layout"):
        folders(tmp_path)


def test_a_line_in_the_middle_that_is_damaged_is_named(journal):
    lines = journal.path.read_bytes().split(b"\n")
    lines[1] = lines[1][:10]
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalError, match="line 2"):
        Journal.read(journal.folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settings": {"size": [64, 64]}}, ""),
        ({"settings": {"size": (32, 32)}}, "size [64, 64], not [32, 32]"),
        ({"settings": {"size": (64, 64), "new": 1}}, "new None, not 1"),
        ({"versions": {"torch": "2"}}, "torch '1', not '2'"),
        ({"versions": {"torch": "1", "openvino": "3"}}, ""),
        ({"versions": {"openvino": "3"}}, ""),
    ],
)
def test_only_what_matters_keeps_sessions_apart(journal, changes, says):
    assert journal.difference(header(**changes)) == says
    if says:
        alien = Journal(journal.folder)
        alien.begin(header("2026-01-02T00:00:00+00:00", **changes))
        with pytest.raises(JournalError, match=r"move it to .*-LABEL"):
            Journal.read(journal.folder)
        alone = journal.folder.with_name(f"{journal.name}-other")
        alone.mkdir()
        alien.path.rename(alone / alien.path.name)
        assert [one.name for one in read_all(alone.parent)] == [journal.name, f"{journal.name}-other"], "the way out"


def test_versions_of_all_sessions_count(journal):
    for day, versions in ((2, {"onnx": "1"}), (3, {"torch": "1"}), (4, {"onnx": "2"})):
        journal.begin(header(f"2026-01-0{day}T00:00:00+00:00", versions=versions))
    with pytest.raises(JournalError, match="onnx '1', not '2'"):
        Journal.read(journal.folder)


def test_a_folder_is_of_the_machine_that_it_names(journal, tmp_path):
    journal.folder.rename(tmp_path / "amd-0.0-1c")
    with pytest.raises(JournalError, match=f"is of {machine.describe().name}: move it"):
        read_all(tmp_path)


def test_a_file_that_a_crash_left_without_a_line_is_no_session(journal):
    (journal.folder / "20260101T000000-000000.jsonl").write_bytes(b'{"kind":"hea')
    assert len(Journal.read(journal.folder).visits) == 2


def test_another_schema_is_refused(tmp_path):
    alien = Journal(tmp_path / machine.describe().name)
    alien.begin(header(schema=SCHEMA + 1))
    with pytest.raises(JournalError, match="schema"):
        Journal.read(alien.folder)
