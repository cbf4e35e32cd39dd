"""Studies: each has a --help, a tiny run, and committed files that are up to date."""

import subprocess
import sys
import time

import msgspec
import pytest

from segbench.cases import Case
from studies import common, decoder_parts, estimator_study, protocol_checks

from .conftest import ROOT

STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.py") if "\nif __name__" in path.read_text())
TINY_CASE = Case(model="lcnet_100", mode="baseline", size=(64, 64), threads=1)


def run(study: str, *flags: str) -> subprocess.CompletedProcess:
    """Its output goes to whoever reads a failed test."""
    done = subprocess.run(
        [sys.executable, ROOT / "studies" / f"{study}.py", *flags], capture_output=True, text=True, timeout=300
    )
    print(done.stdout, done.stderr)
    return done


def rows(text: str) -> list[list[str]]:
    """The cells of the tables that a study prints, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("study", STUDIES)
def test_help_fits_a_terminal_and_imports_nothing_heavy(study):
    done = run(study, "--help")
    assert done.returncode == 0 and all(len(line) <= 80 for line in done.stdout.splitlines())
    code = f"import sys; from studies import {study}; print({{'torch', 'pandas', 'matplotlib'}} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT) == "set()\n"


@pytest.mark.slow
@pytest.mark.parametrize("study", ["agreement", "estimator_study"])
def test_committed_files_are_what_the_run_logs_give(study):
    assert run(study, "--check").returncode == 0


def test_a_check_names_what_differs_and_a_run_writes_it(tmp_path, capsys):
    def write(out, draw):
        (out / "table.csv").write_text("a\n1\n")
        return [out / "table.csv"]

    assert common.update(write, check=True, committed=tmp_path) == 1
    assert "table.csv differs" in capsys.readouterr().out and not (tmp_path / "table.csv").exists()
    assert common.update(write, check=False, committed=tmp_path) == 0
    assert common.update(write, check=True, committed=tmp_path) == 0
    (tmp_path / "table.csv").write_text("a\n2\n")
    assert common.update(write, check=True, committed=tmp_path) == 1


def test_run_logs_of_all_benchmarks_are_studied():
    benchmarks = {run_log.benchmark for run_log in estimator_study.committed_run_logs()}
    assert {"benchmark_official", "encoder_only"} <= benchmarks


def test_a_ratio_is_of_neighbours_in_time():
    """Both ways get slower together, which the ratio does not see."""
    seconds = iter([2.0 * 1.1**step if step % 2 == 0 else 1.0 * 1.1**step for step in range(11)])
    columns = common.in_turn(lambda: next(seconds), lambda: next(seconds), range(5)).columns("ratio")
    assert columns["pairs"] == 5
    assert columns["ratio"] == pytest.approx(2) == columns["low"] == columns["high"]


def test_measuring_ends_in_time_and_takes_one_step_at_least():
    assert len([*common.during(0)]) == 1
    assert 2 <= len([time.sleep(0.01) for _ in common.during(0.1)]) <= 10


@pytest.mark.slow
def test_memory_agrees_with_torchs_own_allocations():
    """Within 20 %; the profiler counts them one by one."""
    done = run("protocol_checks", "memory", "--models", "mobilenetv3_small_100")
    ratios = [float(row[-1]) for row in rows(done.stdout)[1:]]
    assert len(ratios) == 1 and all(0.8 < ratio < 1.2 for ratio in ratios)


@pytest.mark.slow
def test_a_small_error_grows_less_with_a_larger_shift():
    table = protocol_checks.calibration(TINY_CASE, 0)
    growth = [row["growth of an error"] for row in table]
    assert [row["shift"] for row in table] == [0, 1, 2] and growth == sorted(growth, reverse=True)


@pytest.mark.slow
def test_parts_of_an_inference_are_all_of_it():
    case = msgspec.structs.replace(TINY_CASE, decoder="fpn", classes=117)
    shares = {row["part"]: row["%"] for row in decoder_parts.parts(case, 3)}
    together = shares.pop("together"), shares.pop("without the profiler")
    assert together[0] == pytest.approx(100) and sum(shares.values()) == pytest.approx(100, abs=0.1)
    assert {"encoder, conv_stem", "laterals, top-down sums", "head"} <= shares.keys()


@pytest.mark.slow
def test_a_mode_is_set_against_a_bare_script():
    pytest.importorskip("openvino")
    (_, *table) = rows(run("runtime_checks", "bare", "--networks", "lcnet_100", "--pairs", "2").stdout)
    assert [row[1] for row in table] == ["onnxruntime", "openvino"]
    assert all(row[3] == "2" and 0 < float(row[5]) < float(row[4]) < float(row[6]) for row in table)
