"""Rows of whole CTs: none is lost, and what ends without a result says so."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks.whole_ct import benchmark, segment
from benchmarks.whole_ct.jobs import JobResult
from segbench import machine
from segbench.problem import Problem
from segbench.settings import parse

from .conftest import ROOT

WRITER = """
import sys
from pathlib import Path
from benchmarks.whole_ct import benchmark
for number in range(20):
    row = {"machine": "m", "export": "", "ct": "a", "writer": sys.argv[2], "number": number, f"{sys.argv[2]}_s": 1.5}
    benchmark.record(Path(sys.argv[1]), row)
    print(number, flush=True)
"""


def test_rows_of_processes_at_once_are_all_kept(tmp_path):
    """Two of 20 rows each, and a third that is killed in the middle: what it had written is kept, too."""
    evidence = tmp_path / "m.csv"
    command = [sys.executable, "-W", "ignore", "-c", WRITER, str(evidence)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with_output = {"stdout": subprocess.PIPE, "text": True, "env": environment}
    writers = [subprocess.Popen([*command, name], **with_output) for name in "abc"]
    written = [writers[2].stdout.readline() for _ in range(7)]
    writers[2].kill()
    assert [writer.wait() for writer in writers[:2]] == [0, 0] and writers[2].wait() == -9
    for writer in writers:
        writer.stdout.close()
    rows = pd.read_csv(evidence)
    for name in "ab":
        assert sorted(rows[rows.writer == name].number) == [*range(20)]
    assert len(written) == 7 and {*range(7)} <= {*rows[rows.writer == "c"].number}
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv" and path.name[0] != "."] == ["m.csv"]


def ended(tmp_path, *flags) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", ROOT / "benchmarks" / "whole_ct" / "benchmark.py", *flags]
    return subprocess.run([*map(str, command), "--out", str(tmp_path)], capture_output=True, text=True)


def test_nothing_to_measure_has_status_2(tmp_path):
    done = ended(tmp_path, "--models", "stunet_s", "--ways", "stock", "--voxels", "5000", "5000", "5000")
    assert done.returncode == 2 and "GB are free" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "wrote" not in done.stdout and not any(tmp_path.glob("*/*.csv"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--ways",), "--ways names nothing"),
        (("--models",), "--models names nothing"),
        (("--export",), "--export names nothing"),
        (("--modes",), "--modes names no mode"),
    ],
)
def test_flags_that_name_nothing_are_one_line(tmp_path, flags, says):
    with pytest.raises(Problem, match=says):
        benchmark.check(parse(benchmark.Settings(), "", [*flags, "--out", str(tmp_path)]))
    assert not any(tmp_path.iterdir())


ROW = {"machine": "m", "cpu": "c", "threads": 2, "model": "stunet_s", "voxels": "8x8x8", "step": 0.5, "way": "nnunet"}
ROW |= {"mode": "baseline", "export": "torch", "repeat": 1, "classes": 5, "tiles": 1, "whole_s": 9.5, "prepare_s": 1}
ROW |= {"preparing_mb": 9, "same_labels": 1}
TABLE = pd.DataFrame([ROW]).to_csv(index=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TABLE * 2, "text in the column threads"),
        (TABLE.replace("model", "network"), "no column model"),
        (TABLE.replace("nnunet", "speedy"), "no way called speedy"),
        (TABLE[:-30], "row 2"),
        ("", "does not name the columns"),
    ],
)
def test_a_table_that_cannot_be_read_is_known_before_anything_runs(tmp_path, text, says):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "m.csv").write_text(text)
    with pytest.raises(Problem, match=says):
        benchmark.check(parse(benchmark.Settings(), "", ["--out", str(tmp_path)]))


def test_modes_without_native_bf16_leave_nothing(monkeypatch, tmp_path):
    here = machine.describe()
    monkeypatch.setattr(machine, "describe", lambda: type("Here", (), {"native_bf16": False, "name": here.name}))
    flags = ["--models", "stunet_s", "--ways", "optimised", "--modes", "openvino-bf16", "--out", str(tmp_path)]
    with pytest.raises(Problem, match="no native BF16"):
        benchmark.check(parse(benchmark.Settings(), "", flags))


def arranged(monkeypatch, tmp_path, run) -> None:
    """benchmark.py on a small CT with `run` in the place of a process."""
    flags = ["--models", "stunet_s", "--voxels", "8", "8", "8", "--repeats", "1", "--modes", "baseline"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *flags, "--out", str(tmp_path)])
    monkeypatch.setattr(benchmark, "started", run)


def test_all_that_is_skipped_ends_without_a_file(monkeypatch, tmp_path, capsys):
    arranged(monkeypatch, tmp_path, None)
    monkeypatch.setattr(benchmark, "too_large", lambda job, free_gb: "needs 9 GB")
    with pytest.raises(Problem, match="nothing was measured"):
        benchmark.main()
    assert "skipped, needs 9 GB" in capsys.readouterr().out and not any(tmp_path.glob("runs/*.csv"))


def test_a_full_disk_is_one_line_and_keeps_what_ran(monkeypatch, tmp_path, capsys):
    runs = []

    def run(job):
        runs.append(job.way)
        if len(runs) == 3:
            raise OSError(28, "No space left on device")
        np.save(job.labels, np.zeros((8, 8, 8), np.uint8))
        return JobResult(
            {"network": 1.0, "stitching": 1.0}, {"sliding window": 5.0, "preparing": 5.0}, 2.0, 1.0, 5.0, 1, (1.0, 1.0)
        )

    arranged(monkeypatch, tmp_path, run)
    with pytest.raises(Problem, match="No space left on device"):
        benchmark.main()
    assert runs == ["nnunet", "nnunet", "optimised"]
    assert len(pd.read_csv(next(tmp_path.glob("runs/*.csv")))) == 1 and "wrote" not in capsys.readouterr().out


def test_labels_that_do_not_fit_the_disk_are_one_line(monkeypatch, tmp_path):
    """In the process of a run; /dev/full takes nothing."""
    (tmp_path / "labels.npy").symlink_to("/dev/full")
    from benchmarks.whole_ct import optimised

    monkeypatch.setattr(optimised, "optimised", lambda job, lap: np.zeros((300, 300, 300), np.uint8))
    task = type("Job", (), {"way": "optimised", "labels": str(tmp_path / "labels.npy")})
    with pytest.raises(OSError):
        segment.run(task)
