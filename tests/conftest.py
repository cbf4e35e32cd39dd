"""Running the scripts as a user does, on tiny inputs."""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pandas as pd
import psutil
import pytest

from segbench.run_log import RunLog

# Every script that a test starts imports torch: 3 s from bytecode, 10 s where none may be written.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ROOT = Path(__file__).parents[1]
ENCODER_ONLY = ROOT / "benchmarks" / "encoder_only" / "benchmark.py"
REPEATABILITY = ROOT / "benchmarks" / "repeatability" / "benchmark.py"
COMPARE = ROOT / "tools" / "compare.py"
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

    def worker(self) -> psutil.Process | None:
        """The process that measures just now: a fork of one with the same command line."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if any("worker.serve()" in part for part in command) and command == process.parent().cmdline():
                    return process
        return None

    def folder(self) -> Path:
        """Of this machine's run log."""
        (path,) = {path.parent for path in (self.out / "run_logs").glob("*/*.jsonl")}
        return path

    def run_log(self) -> RunLog:
        return RunLog.read(self.folder())

    def table(self, name: str = "benchmark_results_all.csv") -> pd.DataFrame:
        return pd.read_csv(self.out / name)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("inductor")


@pytest.fixture
def script(tmp_path, cache) -> Script:
    return Script(tmp_path / "out", cache)
