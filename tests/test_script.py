"""Real runs of benchmarks/encoder_only/benchmark.py at 64x64."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from segbench import machine, modes
from segbench.cases import Case
from segbench.machine import usable_cores
from segbench.measure import server
from segbench.measure.messages import Order
from segbench.problem import Problem
from segbench.run_log import RunLog
from segbench.settings import Settings, parse, resolve

from .conftest import COMPARE, ENCODER_ONLY, REPEATABILITY, ROOT, Script

MODELS = ("--models", "lcnet_100", "mobilenetv3_small_100")


def wait_for(condition, seconds: float = 90):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def runs(script: Script) -> int:
    paths = [*(script.out / "run_logs").glob("*/[!.]*.jsonl")]
    return sum(b'"kind":"visit"' in line for path in paths for line in path.read_bytes().splitlines())


def files(script: Script) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in script.folder().iterdir()}


@pytest.fixture(scope="module")
def measured(tmp_path_factory, cache) -> Script:
    """What one command leaves: two modes of a small encoder."""
    script = Script(tmp_path_factory.mktemp("measured") / "out", cache)
    done = script.run("--models", "lcnet_100", "--modes", "baseline", "compile")
    assert done.returncode == 0, done.stderr
    return script


@pytest.fixture
def copied(script, measured) -> Script:
    """A script whose folder holds a copy of that."""
    shutil.copytree(measured.out, script.out)
    return script


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
def test_the_same_command_again_measures_what_is_left(copied):
    before = {path.name: path.read_bytes() for path in copied.out.glob("*.csv")}
    sessions = files(copied)
    again = copied.run("--models", "lcnet_100", "--modes", "baseline", "compile")
    assert again.returncode == 0 and "Nothing to measure" in again.stdout
    assert files(copied) == sessions
    assert {path.name: path.read_bytes() for path in copied.out.glob("*.csv")} == before

    further = copied.run(*("--models", "lcnet_100", "--modes", "baseline", "--until", "0.001%", "--max-rounds", "3"))
    assert further.returncode == 0, further.stderr
    assert [[run.round for run in of_case] for of_case in copied.run_log().by_case().values()] == [[1, 2, 3], [1, 2]]
    assert len(files(copied)) == 2 and sessions.items() <= files(copied).items(), "a session is a file of its own"
    compared = subprocess.run(
        [sys.executable, COMPARE, copied.folder(), copied.folder(), "--modes", "baseline", "compile"],
        capture_output=True,
        text=True,
    )
    assert compared.returncode == 0 and "baseline / compile" in compared.stdout, compared.stderr

    sessions = files(copied)
    other = copied.run(*MODELS, "--size", "32", "32")
    assert other.returncode == 2 and "--label" in other.stderr and len(other.stderr.strip().splitlines()) == 1
    assert files(copied) == sessions


@pytest.mark.slow
def test_restart_starts_over_and_loses_nothing(copied):
    flags = ("--models", "lcnet_100", "--modes", "baseline", "--rounds", "1", "--samples", "1")
    first = files(copied)
    assert "kept in" in copied.run(*flags, "--restart").stdout
    next(copied.folder().iterdir()).write_text("damaged\n")  # starting over is the way out of that too
    assert copied.run(*flags).returncode == 2 and copied.run(*flags, "--restart").returncode == 0
    archived = {path.name: path.read_bytes() for path in (copied.out / "run_logs" / "old").rglob("*.jsonl")}
    assert len(archived) == 2 and first.items() <= archived.items()
    assert len(files(copied)) == 1


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


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--models", "resnet18,resnet34"), "--models resnet18 resnet34"),
        (("--models", "hf-hub:timm/resnet18.a1_in1k"), "timm's own names: resnet18.a1_in1k"),
        (("--models", "stunet_s"), "3D model"),
        (("--modes", "compiled"), "did you mean compile"),
        (("--size", "0", "64"), "--size 0 64"),
        (("--size", "64"), "--size 64"),
        (("--samples", "-1"), "--samples -1"),
        (("--rounds", "0"), "--rounds 0"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--in-chans", "0"), "--in-chans 0"),
        (("--threads", "4096"), "--threads 4096"),
        (("--budget", "-3"), "--budget -3"),
        (("--budget", "inf"), "--budget inf"),
        (("--budget", "nan"), "--budget nan"),
        (("--label", "../x"), "--label"),
        (("--label", "x" * 41), "--label"),
        (("--models",), "--models names no model"),
        (("--modes",), "--modes names no mode"),
        (("--allocator",), "--allocator names none"),
        (("--until", "5%", "--max-rounds", "1"), "--max-rounds 1"),
        (("--until", "soon"), "--until 'soon'"),
        (("--until", "5%", "--repetitions", "2"), "exclude each other"),
        (("--shard", "3/4", "--rounds", "2"), "at most 2"),
        (("--shard", "2"), "--shard '2'"),
        (("--shard", "1/2", "--until", "5%"), "exclude each other"),
        (("--shard", "1/2", "--restart"), "exclude each other"),
        (("--join", "--restart"), "exclude each other"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_line(flags, says):
    defaults = Settings(modes=modes.DEFAULT)
    with pytest.raises(Problem) as problem:
        resolve(parse(defaults, "", flags), Path("unused"), defaults, {})
    assert says in str(problem.value) and "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        pytest.param(("--models", "resnet81"), "did you mean resnet18", marks=pytest.mark.slow),  # it asks timm
        (("--out", "/proc/nowhere"), "cannot be written"),
        (("--report",), "no run log"),
    ],
)
def test_bad_input_has_status_2(script, flags, says):
    done = script.run(*flags)
    *_, last = done.stderr.strip().splitlines()
    assert done.returncode == 2 and says in last, done.stderr
    assert "Traceback" not in done.stderr


def test_compare_says_what_is_wrong_in_a_line(tmp_path):
    done = subprocess.run([sys.executable, COMPARE, tmp_path, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and str(tmp_path) in done.stderr


SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.py", "benchmarks/*.py", "benchmarks/*/*.py", "tools/*.py")
    for path in ROOT.glob(pattern)
    if re.search(r"exit_with\(|cli\.main\(", path.read_text()) and path.name != "problem.py"
)
INSTALLED = [script for script in SCRIPTS if "ModuleNotFoundError" in (ROOT / script).read_text()]


@pytest.mark.parametrize("path", SCRIPTS)
def test_help_fits_a_terminal_and_needs_no_torch(path):
    heavy = {"torch", "timm", "pandas", "matplotlib", "scipy"}
    code = (
        "import atexit, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        f"atexit.register(lambda: print('imported:', *{heavy} & set(sys.modules)))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT / path, "--help"], capture_output=True, text=True)
    *lines, imported = done.stdout.splitlines()
    assert done.returncode == 0 and imported.rstrip() == "imported:", done.stdout + done.stderr
    assert lines and not [line for line in lines if len(line) > 80]


@pytest.mark.parametrize("path", INSTALLED)
def test_without_the_environment_a_line_says_how_to_run_it(path):
    done = subprocess.run([sys.executable, "-S", "-E", ROOT / path], capture_output=True, text=True)
    assert done.returncode == 1 and f"uv run {ROOT / path}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_list_needs_no_torch(script):
    done = script.run("--list")
    assert done.returncode == 0 and "lcnet_100" in done.stdout and "runs to go" in done.stdout, done.stderr
    assert not script.out.exists()


@pytest.mark.slow
def test_repetitions_of_both_protocols_beside_background_load(script):
    script.path = REPEATABILITY
    flags = ("--models", "lcnet_100", "--modes", "baseline", "--repetitions", "2", "--rounds", "1")
    all_cores = ("--threads", str(usable_cores()))  # else the load has a core of its own
    done = script.run(*flags, "--background-load", *all_cores)
    assert done.returncode == 0, done.stderr
    rows = script.table("benchmark_results.csv")
    assert set(rows.protocol) >= {"drift-corrected", "fixed-iteration"} and (rows.repetitions == 2).all()
    assert rows.machine.str.endswith("-background-load").all()
    run_log = script.run_log()
    assert len(run_log.headers) == 2, "each repetition is a session"
    assert {len(run.samples_ms) for run in run_log.runs if run.case.protocol == "fixed-iteration"} == {50}
    assert max(run.others_cpus for run in run_log.runs) > 0.01, "the background load is seen"
    assert not script.processes()


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
def test_beside_a_busy_loop_the_quick_run_ends_in_a_full_ranking(script):
    flags = (*MODELS, "--modes", "baseline", "--size", "64", "64", "--rounds", "1", "--budget", "0.2", "--no-wait")
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            os.sched_setaffinity(busy.pid, {min(os.sched_getaffinity(0))})
            command = [sys.executable, str(ENCODER_ONLY), "--quick", *flags, "--out", str(script.out)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=script.environment)
        finally:
            busy.kill()
    assert done.returncode == 0, done.stderr
    top = script.table("benchmark_results.csv")
    assert len(top) == 2 and top["rank"].notna().all() and (top.throughput_img_s > 0).all()
    everything = script.table()
    assert len(everything) == 2 and (everything.status == "ok").all() and everything.throughput_low.gt(0).all()
    answer = " ".join(done.stdout.strip().split("\n\n")[-1].split())
    assert re.search(r"(is fastest for \d of 2 networks|order shown is the best guess).* Of 2 figures", answer)
    assert max(run.busy_cpus for run in script.run_log().runs) > 0.2, "the loop is seen"


@pytest.mark.slow
def test_too_large_for_memory_is_oom(script):
    done = script.run("--models", "lcnet_100", "--modes", "baseline", "--batch-size", "100000000", "--rounds", "1")
    assert done.returncode == 1 and script.table().status.tolist() == ["oom"], done.stderr


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


@pytest.mark.slow
def test_kill_9_loses_no_run_and_leaves_no_process(script):
    """Worker, server and parent one after the other in one run, parent and worker together in the next."""
    flags = ("--models", "lcnet_100", "--modes", "baseline", "compile", "channels_last", "--rounds", "3")

    def another_run() -> None:
        before = runs(script)
        wait_for(lambda: runs(script) > before)

    running = script.start(*flags)
    another_run()
    wait_for(script.worker).kill()
    another_run()
    wait_for(script.worker).parent().kill()
    another_run()
    running.kill()
    running.communicate()
    wait_for(lambda: not script.processes(), 30)

    running = script.start(*flags)
    another_run()
    worker = wait_for(script.worker)
    running.kill()
    worker.kill()
    running.communicate()
    wait_for(lambda: not script.processes(), 30)

    done = runs(script)
    again = script.run(*flags)
    assert again.returncode == 0, again.stdout
    assert runs(script) > done and not script.processes()
    assert [*script.table().status] == ["ok"] * 3
    run_log = script.run_log()
    assert sum(run.status == "error" for run in run_log.runs) <= 2, "a kill costs one run"
    assert [sorted(v.round for v in runs) for runs in run_log.by_case().values()] == [[1, 2, 3]] * 3


def fill(script: Script, wanted: int) -> None:
    """Add a session of as many runs of other models to this machine's run log."""
    run_log = script.run_log()
    run_log.begin(msgspec.structs.replace(run_log.header, started="2026-01-01T00:00:00+00:00"))
    template = next(run for run in run_log.runs if run.samples_ms)
    samples, reference_times = template.samples_ms[:1] * 60, template.reference_ms[:1] * 61
    for number in range(wanted):
        case = msgspec.structs.replace(template.case, model=f"model_{number % 50}")
        changes = {"case": case, "round": number // 50 + 1, "samples_ms": samples, "reference_ms": reference_times}
        run_log.append(msgspec.structs.replace(template, session="", **changes))


def test_ctrl_c_says_how_to_go_on_and_two_runs_do_not_mix(script):
    flags = (*MODELS, "--modes", "baseline", "--rounds", "400")
    assert script.run("--models", "lcnet_100", "--modes", "baseline", "--rounds", "1").returncode == 0
    fill(script, 1000)
    before = runs(script)
    running = script.start(*flags)
    wait_for(lambda: runs(script) > before + 1)
    status = Path(f"/proc/{running.pid}/status").read_text()
    peak_mb = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6
    assert before == 1001 and peak_mb < 150, "the sweeping process imports something heavy, or keeps samples"
    mapped = Path(f"/proc/{running.pid}/maps").read_text()
    assert "numpy" in mapped and not re.search("torch|pandas|matplotlib", mapped)
    second = script.run(*flags)
    assert second.returncode == 2 and "another session" in second.stderr
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 130 and "same command goes on" in said and "Traceback" not in said
    wait_for(lambda: not script.processes(), 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_other_signals_end_it_as_ctrl_c_does(script, number):
    modes = ("--modes", "channels_last", "--allocator", "default")  # a name of 41 letters
    running = script.start("--models", "mobilenetv3_small_100", *modes, "--rounds", "400")
    wait_for(lambda: runs(script) > 1 and script.worker())
    running.send_signal(number)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 128 + number and "same command goes on" in said and "Traceback" not in said
    lines = [line for line in re.split("[\\r\\n]+", said) if "left, 2/" in line]
    assert lines and all(len(line.rstrip()) <= 80 and line.rstrip().endswith(" img/s") for line in lines)
    wait_for(lambda: not script.processes(), 10)


@pytest.mark.slow
def test_a_worker_that_hangs_ends_as_timeout(monkeypatch):
    monkeypatch.setattr(server, "INFERENCE_S", 2)
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64))
    parent, order = server.Server({}), Order(1, case, (0, 0), samples_wanted=10**6, budget_s=1e3)
    monkeypatch.setattr(server, "longest_s", lambda order: 2)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(parent.run, order)
        worker = wait_for(lambda: parent.process and psutil.Process(parent.process.pid).children())[0]
        wait_for(lambda: worker.cpu_times().user > 1)  # it is built and measures
        worker.suspend()
        run = answer.result(timeout=60)
    parent.stop()
    assert run.status == "timeout" and run.reason.startswith("no inference within 2 s"), run.reason
