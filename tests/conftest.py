"""Running the scripts as a user does, on tiny inputs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from hypothesis import HealthCheck, settings

from segbench import cli
from segbench.measure import server, sweep
from segbench.run_log import RunLog
from segbench.settings import parse

for profile, examples in {"short": 100, "long": 5000}.items():  # tests write their files anew for each example
    unhurried = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
    settings.register_profile(profile, max_examples=examples, **unhurried)
settings.load_profile("short")

# Every script that a test starts imports torch: 3 s from bytecode, 10 s where none may be written.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Two workers of pytest share two cores: more threads would spin for one another.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
ENCODER_ONLY = ROOT / "benchmarks" / "encoder_only" / "benchmark.py"
COMPARE = ROOT / "tools" / "compare.py"
MODELS = ("--models", "lcnet_100", "mobilenetv3_small_100")
TINY = ("--size", "64", "64", "--threads", "1", "--rounds", "2", "--samples", "6", "--budget", "0.5", "--no-wait")


class Script:
    """A script with an output folder of its own; the processes that it starts bear a mark in their environment."""

    def __init__(self, out: Path, cache: Path):
        self.out, self.mark, self.path = out, uuid.uuid4().hex, ENCODER_ONLY
        self.environment = os.environ | {"SEGBENCH_TEST": self.mark, "TORCHINDUCTOR_CACHE_DIR": str(cache)}

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, str(self.path), *TINY, "--out", str(self.out), *flags]

    def run(self, *flags: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*flags), capture_output=True, text=True, timeout=400, env=self.environment | environment
        )

    def start(self, *flags: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment | environment,
            # As in a terminal: what a shell starts in the background would ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def processes(self) -> list[psutil.Process]:
        """Those of this script that are alive, zombies left out."""
        alive = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SEGBENCH_TEST") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
            except psutil.Error:
                pass
        return alive

    def servers(self) -> list[psutil.Process]:
        """The processes that fork workers, and the worker."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if any("worker.serve()" in part for part in process.cmdline()):
                    found.append(process)
        return found

    def worker(self) -> psutil.Process | None:
        """The process that measures just now: a fork of one with the same command line."""
        servers = self.servers()
        return next((process for process in servers if process.ppid() in {other.pid for other in servers}), None)

    def runs(self) -> int:
        """In the run logs up to now, while another process appends to them."""
        paths = (self.out / "run_logs").glob("*/[!.]*.jsonl")
        return sum(b'"kind":"visit"' in line for path in paths for line in path.read_bytes().splitlines())

    def sessions(self) -> dict[str, bytes]:
        """The files of this machine's run log."""
        return {path.name: path.read_bytes() for path in self.folder().iterdir()}

    def folder(self) -> Path:
        """Of this machine's run log."""
        (path,) = {path.parent for path in (self.out / "run_logs").glob("*/*.jsonl")}
        return path

    def run_log(self) -> RunLog:
        return RunLog.read(self.folder())

    def table(self, name: str = "benchmark_results_all.csv") -> pd.DataFrame:
        return pd.read_csv(self.out / name)


def wait_for(condition: Callable[[], object], seconds: float = 90) -> object:
    """Until it is true; returns what it was then."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture
def script(tmp_path, cache) -> Script:
    return Script(tmp_path / "out", cache)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, cache) -> Script:
    """What one command leaves: two modes of a small encoder, with settings exported that would change them."""
    script = Script(tmp_path_factory.mktemp("measured") / "out", cache)
    exported = {"TORCHDYNAMO_DISABLE": "1", "GOMP_CPU_AFFINITY": "0"}
    script.done = script.run("--models", "lcnet_100", "--modes", "baseline", "compile", **exported)
    assert script.done.returncode == 0, script.done.stdout + script.done.stderr
    return script


@pytest.fixture
def copied(script, measured) -> Script:
    """A script whose folder holds a copy of that."""
    shutil.copytree(measured.out, script.out)
    return script


@pytest.fixture(scope="session")
def servers():
    """Processes that fork workers, by what they need set: to import torch takes longer than a tiny case."""
    kept: dict[tuple, server.Server] = {}
    yield kept
    for process in kept.values():
        process.stop()


@pytest.fixture
def run_here(monkeypatch, servers) -> Callable[..., int]:
    """Runs a script in this process, with servers that outlive it. Returns its exit status."""

    def kept(environment: dict[str, str]) -> server.Server:
        key = tuple(sorted(environment.items()))
        if key not in servers:
            servers[key] = server.Server(environment)
        return servers[key]

    def run(benchmark: cli.Benchmark, *flags: str) -> int:
        defaults = replace(benchmark.defaults, modes=benchmark.modes)
        return cli.run(benchmark, parse(defaults, benchmark.description, [*TINY, *flags]))

    monkeypatch.setattr(sweep, "Server", kept)
    monkeypatch.setattr(sweep.Sweep, "stop_servers", lambda self: None)
    return run
