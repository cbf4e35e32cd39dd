"""Sessions of benchmarks/encoder_only/benchmark.py that end early, and workers that do."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from segbench.cases import Case
from segbench.measure import server
from segbench.measure.messages import Order

from .conftest import MODELS, wait_for


@pytest.mark.slow
def test_kill_9_loses_no_run_and_leaves_no_process(script):
    """Worker, server and parent one after the other in one run, parent and worker together in the next."""
    flags = (*MODELS, "--modes", "baseline", "channels_last", "--rounds", "2")

    def another_run() -> None:
        before = script.runs()
        wait_for(lambda: script.runs() > before)

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

    done = script.runs()
    again = script.run(*flags)
    assert again.returncode == 0, again.stdout
    assert script.runs() > done and not script.processes()
    assert [*script.table().status] == ["ok"] * 4
    run_log = script.run_log()
    assert sum(run.status == "error" for run in run_log.runs) <= 2, "a kill costs one run"
    assert [sorted(v.round for v in runs) for runs in run_log.by_case().values()] == [[1, 2]] * 4


def test_ctrl_c_says_how_to_go_on_and_two_runs_do_not_mix(script):
    flags = (*MODELS, "--modes", "baseline", "--rounds", "400")
    running = script.start(*flags)
    wait_for(lambda: script.runs() > 1)
    status = Path(f"/proc/{running.pid}/status").read_text()
    peak_mb = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024 / 1e6
    assert peak_mb < 100, "the sweeping process imports something heavy"
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
    """One while it measures, the other while torch is imported."""
    modes = ("--modes", "channels_last+retained")  # a name of 44 letters
    running = script.start("--models", "mobilenetv3_small_100", *modes, "--rounds", "100")
    measures = number == signal.SIGTERM
    wait_for(lambda: script.runs() > 1 and script.worker() if measures else script.servers())
    running.send_signal(number)
    said, _ = running.communicate(timeout=30)
    assert running.returncode == 128 + number and "same command goes on" in said and "Traceback" not in said
    if measures:
        lines = [line for line in re.split("[\\r\\n]+", said) if "left, 2/" in line]
        assert lines and all(len(line.rstrip()) <= 80 and line.rstrip().endswith(" img/s") for line in lines)
    wait_for(lambda: not script.processes(), 10)


@pytest.fixture(scope="module")
def parent():
    """A server's side that gives orders."""
    parent = server.Server({})
    yield parent
    parent.stop()


@pytest.mark.slow
def test_too_large_for_memory_is_oom(parent):
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64), batch_size=10**8)
    run = parent.run(Order(1, case, (0, 0), samples_wanted=1, budget_s=1))
    assert run.status == "oom", run.reason


@pytest.mark.slow
def test_a_worker_that_hangs_ends_as_timeout(parent, monkeypatch):
    monkeypatch.setattr(server, "longest_s", lambda order: 1)
    case = Case(model="lcnet_100", mode="baseline", size=(64, 64))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(parent.run, Order(1, case, (0, 0), samples_wanted=10**6, budget_s=1e3))
        worker = wait_for(lambda: parent.process and psutil.Process(parent.process.pid).children())[0]
        wait_for(lambda: worker.cpu_times().user > 1)  # it is built and measures
        worker.suspend()
        run = answer.result(timeout=60)
    assert run.status == "timeout" and run.reason.startswith("no inference within 1 s"), run.reason
