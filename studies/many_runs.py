"""How the tables and --list scale: made-up runs of four machines, measured in processes of their own; prints a table.

uv run tests/many_visits.py              # 10,000 and 30,000 runs: seconds and MB
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from tabulate import tabulate

from segbench import modes, zoo
from segbench.cases import Case
from segbench.records import MachineSpeed, Run
from segbench.run_log import RunLog, read_all

ROOT = Path(__file__).resolve().parents[1]
MACHINES = ("amd-1.1-2c", "amd-2.2-2c", "intel-3.3-2c", "arm-4.4-2c")
SAMPLES = 40  # a run, as in the committed run logs
RENDER = "import sys; sys.path.insert(0, sys.argv[1]); import render; render.render(*map(render.Path, sys.argv[2:]))"


def make(root: Path, runs: int) -> None:
    """Runs to the zoo under every mode, spread over four machines and as many sessions as there are rounds."""
    template = read_all(ROOT / "benchmarks" / "encoder_only" / "run_logs")[0].header
    cases = [
        Case(model=encoder.model, mode=mode, size=(512, 512), threads=2)
        for encoder in zoo.ENCODERS
        for mode in modes.MODES
    ]
    rng, rounds = np.random.default_rng(0), runs / len(MACHINES) / len(cases)
    for number, name in enumerate(MACHINES):
        machine = msgspec.structs.replace(template.machine, name=name, label=f"made-up CPU {number}, 2 cores")
        run_log, left = (
            RunLog(root / "benchmarks/encoder_only/run logs" / name, samples=False),
            runs // len(MACHINES),
        )
        for day in range(int(np.ceil(rounds))):
            started = f"2026-01-{day + 1:02}T00:00:00+00:00"
            run_log.begin(msgspec.structs.replace(template, machine=machine, started=started))
            reference_times = np.abs(rng.normal((3.4, 1.3), 0.05, (60, 2))).round(4).tolist()
            lines = [
                MachineSpeed(
                    threads=2, started=started, reference_ms=reference_times, peak_gflops={"fp32": 190.0, "bf16": 380.0}
                )
            ]
            lines += [run(rng, case, day + 1, started) for case in cases[:left]]
            left -= len(lines) - 1
            with run_log.path.open("ab") as file:  # not line by line to the disk: nobody will pull the plug
                file.writelines(msgspec.json.encode(line) + b"\n" for line in lines)


def run(rng: np.random.Generator, case: Case, number: int, started: str) -> Run:
    slow = 1 + 0.5 * (rng.random(SAMPLES + 1) < 0.5)
    latency = 10 * zoo.BY_MODEL[case.model].gmacs * rng.lognormal(0, 0.03)
    return Run(
        case=case,
        round=number,
        started=started,
        seconds=5,
        phases_s={"build": 1.0, "prepare": 3.0, "measure": 2.0, "inference": 1.5, "reference_times": 0.5},
        cache="warm" if "compile" in case.mode else "",
        params=int(zoo.BY_MODEL[case.model].params_m * 1e6),
        gmacs=zoo.BY_MODEL[case.model].gmacs,
        samples_ms=(latency * slow[1:]).round(3).tolist(),
        reference_ms=(np.array((3.4, 1.3)) * np.column_stack([slow, slow**0]) * 1.01).round(4).tolist(),
        memory_mb=20.0,
        rel_error=0.0,
        output_std=1.0,
        ran={"dtype": "float32", "threads": "2"},
    )


def measured(*command: str | Path) -> tuple[float, float]:
    """Seconds of a process, and its peak in MB."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status  # it was waited for
    if status:
        sys.exit(f"{command} failed")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    rows = []
    for runs in map(int, sys.argv[1:] or ("10000", "30000")):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make(root, runs)
            out = root / "benchmarks" / "encoder_only"
            size = sum(path.stat().st_size for path in out.rglob("*.jsonl")) / 1e6
            listed = measured(ROOT / "benchmarks/encoder_only/benchmark.py", "--list", "--out", out)
            rendered = measured("-c", RENDER, ROOT / "tools", root, root / "rendered")
        row = {"runs": runs, "run logs, MB": size, "all tables and pages, s": rendered[0], "MB": rendered[1]}
        rows.append(row | {"--list, s": listed[0], "--list, MB": listed[1]})
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3g"))


if __name__ == "__main__":
    main()
