"""What the run log promises: nothing lost, nothing foreign taken in, every measured run counts."""

import os
import shutil
import uuid

import msgspec
import pytest

from segbench import machine
from segbench.cases import Case
from segbench.problem import Problem
from segbench.records import Header, MachineSpeed, Run
from segbench.run_log import SCHEMA, RunLog, read_all

CASE = Case(model="lcnet_100", mode="baseline", size=(64, 64), threads=1)
SPEED = MachineSpeed(threads=1, started="2026-01-01T00:00:00+00:00", reference_ms=[(3, 1)], peak_gflops={"fp32": 90})


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
def run_log(tmp_path) -> RunLog:
    run_log = RunLog(tmp_path / machine.describe().name)
    run_log.begin(header())
    run_log.append(SPEED)
    for number in (1, 2):
        reference_times = [(3.0, 1.0), (3.5, 1.25)]
        run_log.append(Run(case=CASE, round=number, samples_ms=[1.5], reference_ms=reference_times, cache="warm"))
    return run_log


HERE = machine.describe()


def another_session(run_log: RunLog, *runs: Run, started: str = "2026-01-02T00:00:00+00:00") -> RunLog:
    later = RunLog.read(run_log.folder)
    later.begin(header(started))
    for run in runs:
        later.append(run)
    return RunLog.read(run_log.folder)


def test_what_is_written_is_read_again(run_log):
    again = RunLog.read(run_log.folder)
    assert again.difference(run_log.header) == "" and again.header.machine == run_log.header.machine
    assert again.difference(header(settings={"size": (64, 64), "in_chans": 3})) == "", "older sessions had three"
    assert again.difference(header(settings={"size": (64, 64), "in_chans": 1})) == "in_chans 3, not 1"
    assert again.runs == run_log.runs and again.machine_speeds == run_log.machine_speeds
    assert [*again.by_case()] == [CASE] and [run.round for run in again.by_case()[CASE]] == [1, 2]
    assert {line.session for line in (*again.runs, *again.machine_speeds)} == {run_log.session}


def test_sessions_lie_in_files_of_their_own_and_all_of_their_runs_count(run_log):
    before = run_log.path.read_bytes()
    both = another_session(run_log, Run(case=CASE, round=1, samples_ms=[2.5], reference_ms=[(3, 1)] * 2))
    assert run_log.path.read_bytes() == before and len([*run_log.folder.iterdir()]) == 2
    assert [(run.round, run.samples_ms) for run in both.by_case()[CASE]] == [(1, [1.5]), (1, [2.5]), (2, [1.5])]
    assert len({run.session for run in both.runs}) == 2


def test_a_failure_counts_until_its_round_went_well(run_log):
    failed = Run(case=CASE, round=3, status="error", reason="a", samples_ms=[])
    again = msgspec.structs.replace(failed, reason="b")
    both = another_session(run_log, failed, again)
    assert [run.reason for run in both.by_case()[CASE]] == ["", "", "b"]
    well = Run(case=CASE, round=3, samples_ms=[1.0])
    both = another_session(both, well, msgspec.structs.replace(failed, round=1), started="2026-01-03T00:00:00+00:00")
    assert [run.status for run in both.by_case()[CASE]] == ["ok"] * 3


@pytest.mark.parametrize(
    ("known_by", "hosts"),
    [
        ([("aaaaaaaa-1", ""), ("bbbbbbbb-2", ""), ("bbbbbbbb-2", "")], {"bbbbbbbb": [1, 2], "aaaaaaaa": [0]}),
        ([("aaaaaaaa-1", "id"), ("bbbbbbbb-2", "id")], {"aaaaaaaa": [0, 1]}),  # after a reboot
        ([("aaaaaaaa-1", "id"), ("bbbbbbbb-2", "other")], {"aaaaaaaa": [0], "bbbbbbbb": [1]}),
        ([("aaaaaaaa-1", ""), ("bbbbbbbb-2", "id"), ("aaaaaaaa-1", "id")], {"aaaaaaaa": [0, 1, 2]}),
        ([("", ""), ("aaaaaaaa-1", ""), ("", "")], {"": [0, 2], "aaaaaaaa": [1]}),
    ],
)
def test_sessions_of_a_host_are_known_by_boot_id_or_machine_id(tmp_path, known_by, hosts):
    run_log = RunLog(tmp_path / HERE.name)
    for day, (boot_id, host) in enumerate(known_by, 1):
        run_log.begin(header(f"2026-01-0{day}T00:00:00+00:00", boot_id=boot_id, host=host))
        run_log.append(Run(case=CASE, round=1))
    sessions, own = [*run_log.headers], run_log.header
    wanted = {host: [sessions[number] for number in numbers] for host, numbers in hosts.items()}
    run_log = RunLog.read(run_log.folder)
    assert [*run_log.hosts().items()] == [*wanted.items()]
    assert run_log.host_of() == {session: host for host in wanted for session in wanted[host]}
    assert run_log.others(own) == {host: of_host for host, of_host in wanted.items() if sessions[-1] not in of_host}


def test_a_host_keeps_its_own_failure(run_log):
    run_log.begin(header("2026-01-02T00:00:00+00:00", boot_id="another"))
    run_log.append(Run(case=CASE, round=1, status="oom"))
    run_log.append(Run(case=CASE, round=2))
    runs = RunLog.read(run_log.folder).by_case()[CASE]
    assert [(run.round, run.status) for run in runs] == [(1, "ok"), (2, "ok"), (1, "oom"), (2, "ok")]


@pytest.mark.parametrize(
    ("machine_id", "address", "known"),
    [
        ("0123456789abcdef" * 2, 0x3C7C3F112233, True),
        ("0123456789abcdef" * 2, 0x02FC00000001, False),  # a virtual machine's
        ("0123456789abcdef" * 2, 0x013C7C3F1122, False),  # random: there is no network card
        ("uninitialized", 0x3C7C3F112233, False),
        (None, 0x3C7C3F112233, False),
    ],
)
def test_a_machine_id_is_hashed_and_none_that_an_image_brought(monkeypatch, machine_id, address, known):
    monkeypatch.setattr(machine, "read", {"/etc/machine-id": machine_id}.get)
    monkeypatch.setattr(uuid, "getnode", lambda: address)
    hashed = machine.host_id()
    assert len(hashed) == 12 * known and not (known and hashed in machine_id)
    monkeypatch.setattr(uuid, "getnode", lambda: address + 4)
    assert not known or hashed != machine.host_id() != ""


@pytest.mark.parametrize("name", ["{} (conflicted copy).jsonl", "0 {}.jsonl", "Copy of {}.jsonl"])
def test_a_copy_of_a_session_counts_once(run_log, name):
    """Whichever of both is the longer one, and what was torn in one may be whole in the other."""
    whole, copy = run_log.path.read_bytes(), run_log.folder / name.format(run_log.session)
    shutil.copy(run_log.path, copy)
    for short in (run_log.path, copy):
        for size in (len(whole), len(whole) - 20, whole.index(b"\n") + 1):
            short.write_bytes(whole[:size])
            again = RunLog.read(run_log.folder)
            assert [run.round for run in again.runs] == [1, 2] and len(again.machine_speeds) == len(again.headers) == 1
        short.write_bytes(whole)
    assert {run.session for run in again.runs} == {min(run_log.path.stem, copy.stem)}


def test_two_sessions_that_began_alike_are_two(run_log):
    both = another_session(run_log, *run_log.runs, started="2026-01-01T00:00:00.001+00:00")
    assert [run.round for run in both.runs] == [1, 2, 1, 2]


def test_a_torn_last_line_costs_that_line_only(run_log):
    whole = run_log.path.read_bytes()
    run_log.path.write_bytes(whole[:-20])
    both = another_session(run_log, Run(case=CASE, round=2))
    assert [run.round for run in both.runs] == [1, 2]
    assert run_log.path.read_bytes() == whole[:-20], "no session writes to another's file"


@pytest.mark.parametrize("ending", [b"\r\n", b"\r"])
def test_line_breaks_of_other_systems(run_log, ending):
    lines = run_log.path.read_bytes().splitlines()
    run_log.path.write_bytes(ending.join(lines) + ending)
    assert RunLog.read(run_log.folder).runs == run_log.runs
    run_log.path.write_bytes(ending.join(lines))
    assert RunLog.read(run_log.folder).runs == run_log.runs, "the last line is whole"


def test_a_link_that_leads_nowhere_and_a_folder_are_named(run_log):
    path = run_log.folder / "20260102T000000-000000.jsonl"
    path.symlink_to("../annex/objects/x")
    with pytest.raises(Problem, match=r"a link to ../annex/objects/x, cannot be read: No such file .*move it"):
        RunLog.read(run_log.folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(Problem, match=r"0000.jsonl cannot be read: Is a directory; move it"):
        RunLog.read(run_log.folder)


def test_what_is_no_file_is_named_and_not_waited_for(run_log):
    """A named pipe is open for ever, a device never ends; a folder that cannot be listed is not taken for empty."""
    path = run_log.folder / "20260102T000000-000000.jsonl"
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path.name)):
        make(path)
        with pytest.raises(Problem, match=r"0000.jsonl.* cannot be read: .*; move it"):
            RunLog.read(run_log.folder)
        path.unlink()
    with pytest.raises(Problem, match="cannot be read: Not a directory"):
        read_all(run_log.path)


def test_blank_lines_a_mark_of_byte_order_and_the_zeros_of_a_crash_cost_no_run(run_log):
    whole = run_log.path.read_bytes()
    for text in (whole.replace(b"\n", b"\n\n"), b"\xef\xbb\xbf" + whole, whole + b"\0" * 512, whole + b" \n"):
        run_log.path.write_bytes(text)
        assert RunLog.read(run_log.folder).runs == run_log.runs
    for text in (whole + b">>>>>>> theirs", b"[1]", b"PK\3\4"):
        run_log.path.write_bytes(text)
        with pytest.raises(Problem, match="is not a run log's"):
            RunLog.read(run_log.folder)


def test_a_copy_of_a_session_under_another_label_is_named(run_log):
    other = run_log.folder.with_name(f"{run_log.name}-copy")
    shutil.copytree(run_log.folder, other)
    with pytest.raises(Problem, match=f"{other.name}/.* is a copy of .*/{run_log.name}/.*: remove one"):
        read_all(run_log.folder.parent)
    assert [one.folder for one in read_all(run_log.folder.parent, without=other)] == [run_log.folder]
    other.rename(run_log.folder.with_name("a\nb"))
    with pytest.raises(Problem, match=r"a\\nb': rename it"):
        read_all(run_log.folder.parent)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"[1.5]", b"[-1.5]", "line 3 .* > 0.0"),
        (b"[1.5]", b"[1e400]", "line 3 .*out of range"),
        (b"[1.5]", b"[1.5,1.5]", "line 3 .*2 samples between 2 reference times"),
        (b"[1.5]", b"[]", "line 3 .*0 samples between 2"),
        (b"[3.0,1.0]", b"[0,1.0]", "line 3 .* > 0.0"),
        (b'"fp32":90', b'"fp32":0', "line 2 .* > 0.0"),
        (b'"case":{', b'"case":{"batch_size":0,', "line 3 .* >= 1"),
        (b'"round":1,', b'"new":' + b"[" * 9999 + b"]" * 9999 + b",", "line 3 .*recursion"),
    ],
)
def test_what_could_not_be_evaluated_is_named(run_log, old, new, says):
    whole = run_log.path.read_bytes()
    assert old in whole
    run_log.path.write_bytes(whole.replace(old, new, 1))
    with pytest.raises(Problem, match=says):
        RunLog.read(run_log.folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"kind":"visit"}\n', "line 1"),
        (b"not json\n", "line 1"),
        (b"\xff\xfe\n", "line 1"),
        (msgspec.json.encode(SPEED) + b"\n", "a header is the first line"),
    ],
)
def test_anything_but_a_session_is_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "a-machine" / "one.jsonl"
    path.parent.mkdir()
    path.write_bytes(text)
    with pytest.raises(Problem, match=says) as error:
        read_all(tmp_path)
    assert "\n" not in str(error.value) and path.read_bytes() == text


def test_a_line_in_the_middle_that_is_damaged_is_named(run_log):
    lines = run_log.path.read_bytes().split(b"\n")
    lines[1] = lines[1][:10]
    run_log.path.write_bytes(b"\n".join(lines))
    with pytest.raises(Problem, match="line 2"):
        RunLog.read(run_log.folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settings": {"size": [64, 64]}}, ""),
        ({"settings": {"size": (32, 32)}}, "size [64, 64], not [32, 32]"),
        ({"settings": {"size": (64, 64), "new": 1}}, "new None, not 1"),
        ({"versions": {"torch": "2"}}, "torch '1', not '2'"),
        ({"versions": {"torch": "1", "openvino": "3"}}, ""),
        ({"versions": {"openvino": "3"}}, ""),
        ({"machine": msgspec.structs.replace(HERE, isa=["none"])}, f"instruction sets {', '.join(sorted(HERE.isa))!r}"),
        ({"machine": msgspec.structs.replace(HERE, isa=HERE.isa[::-1])}, ""),
        ({"machine": msgspec.structs.replace(HERE, ram_gb=HERE.ram_gb / 3)}, f"memory in GB {HERE.ram_gb}, not"),
        ({"machine": msgspec.structs.replace(HERE, ram_gb=HERE.ram_gb * 2.1)}, f"memory in GB {HERE.ram_gb}, not"),
        ({"machine": msgspec.structs.replace(HERE, ram_gb=HERE.ram_gb * 1.9)}, ""),
        ({"machine": msgspec.structs.replace(HERE, ram_gb=0)}, ""),
    ],
)
def test_only_what_matters_keeps_sessions_apart(run_log, changes, says):
    difference = run_log.difference(header(**changes))
    assert difference.startswith(says) and bool(difference) == bool(says)
    if says:
        alien = RunLog(run_log.folder)
        alien.begin(header("2026-01-02T00:00:00+00:00", **changes))
        with pytest.raises(Problem, match=r"move it to .*-LABEL"):
            RunLog.read(run_log.folder)
        alone = run_log.folder.with_name(f"{run_log.name}-other")
        alone.mkdir()
        alien.path.rename(alone / alien.path.name)
        assert [one.name for one in read_all(alone.parent)] == [run_log.name, f"{run_log.name}-other"], "the way out"


def test_memory_does_not_drift_apart_step_by_step(run_log):
    run_log.begin(header("2026-01-02T00:00:00+00:00", machine=msgspec.structs.replace(HERE, ram_gb=HERE.ram_gb * 1.5)))
    assert run_log.difference(header(machine=msgspec.structs.replace(HERE, ram_gb=HERE.ram_gb * 2.2)))


def test_a_log_of_another_benchmark_is_refused_even_where_it_is_alone(run_log):
    for benchmark in ("", "test"):
        assert len(read_all(run_log.folder.parent, benchmark=benchmark)) == 1
    with pytest.raises(Problem, match=r"is of the benchmark test, not of labels: move it"):
        read_all(run_log.folder.parent, benchmark="labels")
    run_log.begin(header("2026-01-02T00:00:00+00:00", benchmark="labels"))
    with pytest.raises(Problem, match=f"{run_log.session}.jsonl is of the benchmark labels, not of test: move it"):
        read_all(run_log.folder.parent)


def test_versions_of_all_sessions_count(run_log):
    for day, versions in ((2, {"onnx": "1"}), (3, {"torch": "1"}), (4, {"onnx": "2"})):
        run_log.begin(header(f"2026-01-0{day}T00:00:00+00:00", versions=versions))
    with pytest.raises(Problem, match="onnx '1', not '2'"):
        RunLog.read(run_log.folder)


def test_a_folder_is_of_the_machine_that_it_names(run_log, tmp_path):
    run_log.folder.rename(tmp_path / "amd-0.0-1c")
    with pytest.raises(Problem, match=f"is of {machine.describe().name}: move it"):
        read_all(tmp_path)


def test_a_file_that_a_crash_left_without_a_line_is_no_session(run_log):
    (run_log.folder / "20260101T000000-000000.jsonl").write_bytes(b'{"kind":"hea')
    assert len(RunLog.read(run_log.folder).runs) == 2


def test_lines_of_schema_2_get_their_allocator_and_layout_into_their_mode(tmp_path):
    """There both went without saying: retained, and OpenVINO's maps with their channels innermost."""
    run_log = RunLog(tmp_path / header().folder)
    run_log.begin(header())
    about = {"size": [64, 64], "threads": 1}
    cases = [
        {"mode": "baseline", "allocator": "plain", "protocol": "usual"} | about,
        {"mode": "compile"} | about,
        {"mode": "openvino-int8"} | about,
        {"mode": "openvino", "size": [64, 64, 64], "threads": 1},
    ]
    lines = [{"kind": "visit", "case": {"model": "lcnet_100"} | case, "samples_ms": [1.0]} for case in cases]
    head = run_log.path.read_bytes().replace(b'"schema":%d' % SCHEMA, b'"schema":2')
    run_log.path.write_bytes(head + b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    runs = RunLog.read(run_log.folder).runs
    names = ["baseline", "compile+retained", "openvino-int8+nhwc+retained", "openvino+retained"]
    assert [run.case.mode for run in runs] == names and runs[0].case.protocol == "fixed-iteration"
    assert [run.samples_ms for run in runs] == [[1.0]] * 4
    written = RunLog(tmp_path / "again" / header().folder)
    written.begin(RunLog.read(run_log.folder).header)
    written.append(runs[2])
    assert RunLog.read(written.folder).runs[0].case == runs[2].case, "what is read and written again stays"


def test_another_schema_is_refused(tmp_path):
    alien = RunLog(tmp_path / machine.describe().name)
    alien.begin(header())
    alien.path.write_bytes(alien.path.read_bytes().replace(b'"schema":%d' % SCHEMA, b'"schema":%d' % (SCHEMA + 1)))
    with pytest.raises(Problem, match="schema"):
        RunLog.read(alien.folder)
