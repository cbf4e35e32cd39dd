"""What the run logs of all benchmarks hold."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd

from segbench import cli
from segbench.analysis.tables import Results
from segbench.run_log import read_all

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {  # in the order of the pages
    "benchmarks/encoder_only/benchmark.py": "Encoders alone",
    "benchmarks/fpn_decoder/benchmark.py": "With Semantic FPN",
    "benchmarks/unet_decoder/benchmark.py": "With UNet",
    "benchmarks/runtimes/benchmark.py": "Deployment runtimes",
    "benchmarks/labels/benchmark.py": "From image to labels",
    "benchmarks/combined_benchmark.py": "FPN against UNet",
    "benchmark_official.py": "2D against the official 3D models",
    "benchmarks/batch_size_comparison.py": "Batch sizes",
    "benchmarks/decoder_peers/benchmark.py": "Against segmentation-models-pytorch's decoders",
    "benchmarks/repeatability/benchmark.py": "Does it repeat?",
}
AllResults = dict[str, Results]  # by the name of the benchmark
NOTHING = Results([])
REPEATS = "repeatability"  # measures the same cases again and again


def load(script: Path) -> ModuleType:
    """A script as a module; what lies beside it can be imported from then on."""
    sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location(f"script_{script.parent.name}_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def benchmarks(root: Path) -> Iterator[tuple[str, cli.Benchmark, Results]]:
    """Title, benchmark and results of every script that has a run log below `root`."""
    for name, title in SCRIPTS.items():
        benchmark = load(ROOT / name).BENCHMARK
        results = Results(read_all(benchmark.run_logs((root / name).parent)))
        if results.run_logs:
            yield title, benchmark, results


def rows(machine: str = "", model: str = "") -> pd.DataFrame:
    """Every row of the run logs without a label, with `benchmark`, or of one machine's, or of run logs that have a
    model; empty where there is none."""
    frames = []
    for _, benchmark, results in benchmarks(ROOT):
        own = [run_log for run_log in results.run_logs if run_log.name == (machine or run_log.header.machine.name)]
        own = [run_log for run_log in own if not model or any(v.case.model == model for v in run_log.runs)]
        if own and benchmark.name != REPEATS:
            frames.append(results.of(*own).rows.assign(benchmark=benchmark.script.relative_to(ROOT).as_posix()))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def all_results() -> AllResults:
    """Those of every script that has a run log."""
    return {benchmark.name: results for _, benchmark, results in benchmarks(ROOT)}


def machines(results_of: AllResults) -> list[str]:
    """That with the most cases first."""
    cases: dict[str, int] = {}
    for results in results_of.values():
        for run_log in results.run_logs:
            name = run_log.header.machine.name
            cases[name] = cases.get(name, 0) + len(results.estimates(run_log))
    return sorted(cases, key=lambda name: (-cases[name], name))


def of_machine(results_of: AllResults, benchmark: str, machine: str) -> Results:
    """Of a machine's run logs the one without a label, or else that with the most cases."""
    results = results_of.get(benchmark, NOTHING).of_machine(machine)
    run_logs = sorted(results.run_logs, key=lambda j: (j.name != machine, -len(results.estimates(j)), j.name))
    return results.of(*run_logs[:1])
