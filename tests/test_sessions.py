"""Real sessions of benchmarks/encoder_only/benchmark.py at 64x64: what they leave, and what comes after them."""

import os
import re
import subprocess
import sys

import msgspec
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.encoder_only import benchmark as encoder_only
from benchmarks.repeatability import benchmark as repeatability
from segbench import machine
from segbench.machine import usable_cores
from segbench.run_log import RunLog

from .conftest import COMPARE, MODELS


@pytest.mark.slow
def test_from_the_command_to_csv_and_png(measured):
    rows = measured.table()
    assert [*zip(rows.model, rows["mode"], strict=True)] == [("lcnet_100", "baseline"), ("lcnet_100", "compile")]
    assert (rows.status == "ok").all() and (rows.threads == 1).all()
    assert rows.rel_error[0] == 0 and rows.rel_error[1] < 1e-4
    # Published counts; that of GMACs is at another size, see test_zoo.
    assert rows.params_m.round(3).tolist() == [2.954, 2.954]
    assert (rows.gmacs > 0).all()
    assert (rows.page_faults <= 50).all() and (rows.memory_mb_img > 0).all()
    assert rows.prepare_s.notna().all() and rows.prepare_warm_s.notna()[1]
    for run in measured.run_log().runs:
        assert len(run.reference_ms) == len(run.samples_ms) + 1
    assert len(measured.table("benchmark_results.csv")) == len(measured.table("benchmark_results_comparison.csv")) == 1
    assert Image.open(measured.out / "benchmark_plot.png").info["Description"].startswith("data ")


@pytest.mark.slow
def test_compile_means_compiled_whatever_is_exported(measured):
    """TORCHDYNAMO_DISABLE made eager of it, with the status ok; an affinity made two threads share a CPU."""
    (said,) = (line for line in measured.done.stdout.splitlines() if line.startswith("Not passed on"))
    assert "GOMP_CPU_AFFINITY" in said and "TORCHDYNAMO_DISABLE" in said
    compiled = [run for run in measured.run_log().runs if run.case.mode == "compile"]
    assert compiled[-1].cache == "warm" and all(run.phases_s["compile"] > 0.1 for run in compiled)


def test_a_mode_that_joins_later_has_a_baseline_of_its_own_session(script):
    flags = ("--models", "lcnet_100", "--modes")
    assert script.run(*flags, "baseline").returncode == 0
    assert script.run(*flags, "channels_last").returncode == 0
    rows = script.table().set_index("mode")
    assert rows.pairs["channels_last"] == 2 and len(script.sessions()) == 2
    first, second = (runs for runs in (script.run_log().by_case()).values())
    assert [run.case.mode for run in first] == ["baseline"] * 4 and len(second) == 2
    assert "Nothing to measure" in script.run(*flags, "channels_last").stdout


@pytest.mark.slow
def test_the_same_command_again_measures_what_is_left(copied):
    before = {path.name: path.read_bytes() for path in copied.out.glob("*.csv")}
    sessions = copied.sessions()
    again = copied.run("--models", "lcnet_100", "--modes", "baseline", "compile")
    assert again.returncode == 0 and "Nothing to measure" in again.stdout
    assert copied.sessions() == sessions
    assert {path.name: path.read_bytes() for path in copied.out.glob("*.csv")} == before

    further = copied.run(*("--models", "lcnet_100", "--modes", "baseline", "--until", "0.001%", "--max-rounds", "3"))
    assert further.returncode == 0, further.stderr
    assert [[run.round for run in of_case] for of_case in copied.run_log().by_case().values()] == [[1, 2, 3], [1, 2]]
    assert len(copied.sessions()) == 2 and sessions.items() <= copied.sessions().items(), (
        "a session is a file of its own"
    )
    compared = subprocess.run(
        [sys.executable, COMPARE, copied.folder(), copied.folder(), "--modes", "baseline", "compile"],
        capture_output=True,
        text=True,
    )
    assert compared.returncode == 0 and "baseline / compile" in compared.stdout, compared.stderr

    sessions = copied.sessions()
    other = copied.run(*MODELS, "--size", "32", "32")
    assert other.returncode == 2 and "--label" in other.stderr and len(other.stderr.strip().splitlines()) == 1
    assert copied.sessions() == sessions


@pytest.mark.slow
def test_restart_starts_over_and_loses_nothing(copied):
    flags = ("--models", "lcnet_100", "--modes", "baseline", "--rounds", "1", "--samples", "1")
    (copied.folder() / "damaged.jsonl").write_text("damaged\n")  # starting over is the way out of that too
    before = copied.sessions()
    assert copied.run(*flags).returncode == 2 and copied.sessions() == before
    done = copied.run(*flags, "--restart")
    assert done.returncode == 0 and "2 earlier sessions are kept in" in done.stdout, done.stderr
    archived = {path.name: path.read_bytes() for path in (copied.out / "run_logs" / "old").rglob("*.jsonl")}
    assert archived == before and len(copied.sessions()) == len(copied.run_log().runs) == 1


@pytest.mark.slow
def test_a_session_beside_another_hosts_runs_measures_its_own(copied):
    flags = ("--models", "lcnet_100", "--modes", "baseline")
    first = copied.run_log()
    theirs = RunLog(first.folder)
    theirs.begin(msgspec.structs.replace(first.header, boot_id="another-host", host="", started="2026-01-01T00:00Z"))
    for line in (*first.machine_speeds, *first.runs):
        theirs.append(line)
    next(path for path in first.folder.iterdir() if path != theirs.path).unlink()

    for join in (("--join",), ("--shard", "1/1")):
        done = copied.run(*flags, *join, "--list")
        assert "0 runs to go" in done.stdout and "Nothing to measure" in done.stdout, done.stdout + done.stderr
        assert "4 runs since 2026-01-01, with those of another host with this kind of CPU (another-)" in done.stdout
    done = copied.run(*flags)
    assert done.returncode == 0 and "2 runs to go" in done.stdout, done.stdout + done.stderr
    assert "holds 4 runs of another host with this kind of CPU (another-); --join counts" in done.stdout
    run_log = copied.run_log()
    assert [run.round for run in run_log.by_case()[first.runs[0].case]] == [1, 2, 1, 2]
    assert run_log.header.boot_id == machine.boot_id() and run_log.header.host == machine.host_id()
    again = copied.run(*flags, "--list")
    assert "Nothing to measure" in again.stdout and "holds 4 runs of another host" in again.stdout

    theirs.path.write_bytes(theirs.path.read_bytes().replace(b"encoder_only", b"labels", 1))
    for flag in ("--report", "--list"):
        done = copied.run(*flags, flag)
        assert done.returncode == 2 and "is of the benchmark labels, not of encoder_only" in done.stderr, done.stderr


@pytest.mark.slow
def test_repetitions_of_both_protocols_beside_background_load(script, run_here):
    flags = ("--models", "lcnet_100", "--modes", "baseline", "--repetitions", "2", "--rounds", "1")
    all_cores = ("--threads", str(usable_cores()))  # else the load has a core of its own
    out = ("--out", str(script.out))
    assert run_here(repeatability.BENCHMARK, *flags, "--background-load", *all_cores, *out) == 0
    rows = script.table("benchmark_results.csv")
    assert set(rows.protocol) >= {"drift-corrected", "fixed-iteration"} and (rows.repetitions == 2).all()
    assert rows.machine.str.endswith("-background-load").all()
    run_log = script.run_log()
    assert len(run_log.headers) == 2, "each repetition is a session"
    assert {len(run.samples_ms) for run in run_log.runs if run.case.protocol == "fixed-iteration"} == {50}
    assert max(run.others_cpus for run in run_log.runs) > 0.01, "the background load is seen"
    children = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    assert not [command for command in children if "background_load" in command], "it is over"


def test_somebody_elses_damaged_run_log_is_left_as_it_is(script):
    path = script.out / "run_logs" / "amd-0.0-1c" / "one.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    done = script.run("--models", "lcnet_100")
    assert done.returncode == 2 and "line 1" in done.stderr and path.read_text() == "{}\n"


def test_failures_are_rows_and_harm_nobody(script):
    """A network that cannot take the size, a mode without its compiler, and one that works."""
    done = script.run(
        *("--models", "edgenext_x_small", "lcnet_100", "--modes", "baseline", "compile", "--size", "24", "24"),
        CXX="/no/such",
    )
    rows = script.table().set_index(["model", "mode"])
    assert done.returncode == 1 and "1 of 4 cases" in done.stdout
    assert rows.status.to_dict() == {
        ("lcnet_100", "baseline"): "ok",
        ("lcnet_100", "compile"): "skipped",
        ("edgenext_x_small", "baseline"): "error",
        ("edgenext_x_small", "compile"): "skipped",
    }
    assert "no C++ compiler" in rows.reason["lcnet_100", "compile"]
    assert rows.throughput_img_s["lcnet_100", "baseline"] > 0
    # The compiler is there again: what was skipped is made up for, what worked stays.
    left = script.run("--models", "lcnet_100", "--modes", "baseline", "compile", "--size", "24", "24", "--list")
    assert "2 runs to go" in left.stdout


@pytest.mark.slow
def test_beside_a_busy_loop_the_quick_run_ends_in_a_full_ranking(script, run_here, capsys):
    flags = ("--quick", *MODELS, "--modes", "baseline", "--rounds", "1", "--samples", "24", "--budget", "0.2")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            os.sched_setaffinity(busy.pid, {min(os.sched_getaffinity(0))})
            all_cores = ("--threads", str(usable_cores()))
            assert run_here(encoder_only.BENCHMARK, *flags, *all_cores, "--out", str(script.out)) == 0
        finally:
            busy.kill()
    top = script.table("benchmark_results.csv")
    assert len(top) == 2 and top["rank"].notna().all() and (top.throughput_img_s > 0).all()
    everything = script.table()
    assert len(everything) == 2 and (everything.status == "ok").all() and everything.throughput_low.gt(0).all()
    answer = " ".join(capsys.readouterr().out.strip().split("\n\n")[-1].split())
    assert re.search(r"(is fastest for \d of 2 networks|order shown is the best guess).* Of 2 figures", answer)
    assert max(run.busy_cpus for run in script.run_log().runs) > 0.2, "the loop is seen"


@pytest.mark.slow
def test_pretrained_weights_are_loaded_and_nan_is_wrong(script, tmp_path):
    """timm's own path from a hub's cache on disk, with weights that this test made: ones, and NaN."""
    import timm

    for model, value in (("lcnet_100", 1.0), ("mobilenetv3_small_100", float("nan"))):
        repository = timm.get_pretrained_cfg(model).hf_hub_id
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        state = timm.create_model(model).state_dict()
        state["classifier.bias"] = torch.full_like(state["classifier.bias"], value)
        (folder / "snapshots" / "0").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0")
        save_file(state, folder / "snapshots" / "0" / "model.safetensors")
    flags = ("--modes", "baseline", "--rounds", "1", "--pretrained")
    hub = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = script.run("--models", "lcnet_100", "mobilenetv3_small_100", "regnetx_002", *flags, **hub)
    rows = script.table().set_index("model")
    assert done.returncode == 1
    assert rows.status.to_dict() == {"lcnet_100": "ok", "mobilenetv3_small_100": "wrong", "regnetx_002": "error"}
    assert "NaN" in rows.reason["mobilenetv3_small_100"]
