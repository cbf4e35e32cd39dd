"""Whatever stands in a file that others wrote: a result or one line, never a traceback, never a silent loss.

For a long search: uv run pytest tests/test_fuzz.py --hypothesis-profile long
"""

import dataclasses
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import catalogue
from segbench import machine
from segbench.cases import Case
from segbench.problem import Problem
from segbench.records import SCHEMA, Header, Run
from segbench.run_log import RunLog
from segbench.settings import Settings, parse, resolve


def session(folder: Path) -> tuple[RunLog, list[bytes]]:
    """A run log of three runs, and its lines; nothing else is left in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    run_log = RunLog(folder)
    here = machine.Machine(name=folder.name, label="", isa=[], native_bf16=False, cores=1)
    started = "2026-01-01T00:00:00+00:00"
    run_log.begin(Header(schema=SCHEMA, benchmark="test", machine=here, settings={}, versions={}, started=started))
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64))
    for number in (1, 2, 3):
        run_log.append(Run(case=case, round=number, samples_ms=[1.5] * number))
    return run_log, run_log.path.read_bytes().splitlines(keepends=True)


@given(st.data())
def test_any_bytes_as_a_run_log(tmp_path, data):
    run_log, lines = session(tmp_path / "amd-1.1-1c")
    text = b"".join(data.draw(st.lists(st.sampled_from(lines) | st.binary(max_size=40), max_size=6)))
    run_log.path.write_bytes(text)
    try:
        runs = RunLog.read(run_log.folder).runs
    except Problem as problem:
        assert "\n" not in str(problem) and str(run_log.path) in str(problem)
    else:  # whole lines are there, once
        assert len(runs) == len({line for line in text.splitlines(keepends=True) if line in lines[1:]})


@given(st.floats(0, 1))
def test_a_session_that_was_cut_anywhere(tmp_path, share):
    run_log, lines = session(tmp_path / "amd-1.1-1c")
    text = b"".join(lines)
    run_log.path.write_bytes(text[: round(share * len(text))])
    whole = [line for line in run_log.path.read_bytes().splitlines() if line + b"\n" in lines]
    assert len(RunLog.read(run_log.folder).runs) == max(len(whole) - 1, 0)


KEYS = ["processor", "vendor_id", "cpu family", "model", "model name", "flags", "cpu MHz", "CPU implementer"]
KEYS += ["CPU architecture", "CPU part", "Features", "physical id", "core id"]
VALUES = st.sampled_from(["", "0", "-1", "0x41", "0xd4f", "AArch64", "5TEJ", "unknown", "1e9", "GenuineIntel", "avx2"])
CPUINFO = st.lists(st.tuples(st.sampled_from(KEYS), VALUES | st.text(max_size=8)), max_size=12).map(
    lambda pairs: "\n".join(f"{key}\t: {value}" for key, value in pairs)
)
NUMBERS = st.sampled_from([b"", b"max", b"-1", b"0", b"0 0", b"max 0", b"1500 1000", b"9" * 30, b"x y z"])
GROUPS = ["0::/job", "4:cpu,memory:/job", "0::/", "no form", "0::", ":::", "0::/../..", "1:name=systemd:/x", "0::/a\0b"]


CONTROLS = ["cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.stat", "memory.max", "memory.current"]
CONTROLS += ["memory.stat", "memory.limit_in_bytes", "memory.usage_in_bytes"]


@given(
    CPUINFO.map(str.encode) | st.binary(max_size=100),
    st.lists(st.sampled_from(GROUPS) | st.text(max_size=10), max_size=3).map("\n".join),
    st.dictionaries(st.sampled_from(CONTROLS), NUMBERS | st.binary(max_size=20)),
    st.sampled_from(["", "0-1", "0-", ",", "x", "3-1", "0-1,5"]),
)
def test_any_description_of_the_machine(tmp_path, cpuinfo, groups, files, atom):
    for folder in ("proc/self", "sys/devices/cpu_atom", "sys/fs/cgroup/job", "sys/fs/cgroup/cpu/job"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/cpuinfo").write_bytes(cpuinfo)
    (tmp_path / "proc/self/cgroup").write_bytes(groups.encode())
    (tmp_path / "sys/devices/cpu_atom/cpus").write_text(atom)
    for name in CONTROLS:
        for folder in ("job", "cpu/job"):
            (tmp_path / "sys/fs/cgroup" / folder / name).write_bytes(files.get(name, b""))
    here = machine.describe(tmp_path)
    assert here.cores >= 1 and set(here.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    assert machine.free_gb(tmp_path) >= 0 and machine.throttled_s(tmp_path) >= 0
    assert msgspec.json.decode(msgspec.json.encode(here), type=machine.Machine) == here


FLAGS = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Settings) if field.name != "models"]
ANY = st.sampled_from(["", "0", "-1", "1", "64", "nan", "inf", "1e400", "5%", "2/4", "0/0", "default", "ä", "9" * 20])


@given(st.lists(st.sampled_from(FLAGS) | ANY | st.text(st.characters(exclude_characters="\0"), max_size=5), max_size=5))
def test_any_flags(tmp_path, flags):
    try:
        asked = parse(Settings(modes=("baseline",)), "Test.", [*flags, "--models", "lcnet_100"])
        wanted = resolve(asked, tmp_path, Settings(modes=("baseline",)), {})
    except Problem as problem:
        assert "\n" not in str(problem).strip()
    except SystemExit as ended:  # --help, or tyro's own message
        assert ended.code in (0, 2)
    else:
        assert wanted.models and wanted.modes and wanted.rounds > 0 and wanted.threads >= 1


TABLE = pd.DataFrame({"machine": ["amd", "intel"], "whole_s": [1.5, 2.5], "ct": ["a, b", np.nan]})
LINES = [*TABLE.to_csv(index=False).encode().splitlines(keepends=True), b"<<<<<<< HEAD\n", b"=======\n", b"version 1\n"]


@given(st.lists(st.sampled_from(LINES) | st.binary(max_size=20)))
def test_any_table_of_evidence(tmp_path, parts):
    (tmp_path / "amd.csv").write_bytes(b"".join(parts))
    try:
        frame = catalogue.evidence(tmp_path)
    except Problem as problem:
        assert "\n" not in str(problem) and "amd.csv" in str(problem)
    else:
        assert "machine" in frame and not any(b"<<<" in part or part == b"=======\n" for part in parts)


def test_a_table_of_evidence_is_read_as_it_was_written(tmp_path):
    assert catalogue.evidence(tmp_path).empty
    TABLE.to_csv(tmp_path / "amd.csv", index=False)
    assert catalogue.evidence(tmp_path).equals(TABLE)
