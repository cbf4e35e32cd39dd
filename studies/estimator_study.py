"""How well the estimator does on the run logs of all benchmarks. Measures nothing.

Writes what benchmarks/repeatability/README.md cites:

  estimator_kinds.csv: references, slope and scatter per kind of process
  estimator_between_sessions.csv: coverage of another session's estimates

    uv run studies/estimator_study.py
"""

from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import numpy as np

from segbench import settings
from segbench.analysis import estimates, stats
from segbench.problem import exit_with
from segbench.run_log import RunLog
from studies import common

ROOT = Path(__file__).resolve().parents[1]
NETWORK = ("host", "threads", "runtime", "network")
SCATTERS = {"all samples": "all_samples_ms", "valid samples": "uncorrected_log_ms", "drift-corrected": "log_ms"}
MIN_PAIRS = 30  # of sessions' estimates, for a coverage


def committed_run_logs() -> list[RunLog]:
    """The run logs of all benchmarks and of their studies."""
    sessions = ROOT.glob("benchmarks/**/run_logs/**/*.jsonl")
    folders = {path.parent for path in sessions if not {"quick", "old"} & {*path.parts}}
    return [RunLog.read(folder) for folder in sorted(folders)]


def about(run_log: RunLog) -> dict[str, str]:
    """Its first columns: the folder and the machine."""
    folder = run_log.folder.resolve()
    name = folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else run_log.name
    return {"run_log": name, "machine": run_log.name}


def kinds(run_logs: Iterable[RunLog]) -> list[dict]:
    """A row per run log, host, kind of process and kind of network: the reference times, the slope, and the standard
    deviation of a run of a case by all samples, by the valid ones, and drift-corrected, in %."""
    rows = []
    for run_log in run_logs:
        runs = [run for estimate in estimates.of_run_log(run_log).values() for run in estimate.runs.values()]
        for names, alike in estimates.grouped(runs, lambda run: run.network).items():
            row = about(run_log) | dict(zip(NETWORK, names, strict=True))
            row |= {"cases": len({run.case for run in alike}), "runs": len(alike)}
            row |= {"valid": sum(run.valid for run in alike), "slope": alike[0].slope}
            row |= {f"{name}, %": 100 * scatter(alike, field) for name, field in SCATTERS.items()}
            (level, gemm), (bound, gemm_bound) = alike[0].reference
            row |= {"convolution, ms": level, "convolution, bound, ms": bound}
            rows.append(row | {"GEMM, ms": gemm, "GEMM, bound, ms": gemm_bound})
    return rows


def scatter(runs: list[estimates.RunEstimate], field: str) -> float:
    """Standard deviation of the logarithm within a case; NaN where every case has a single valid run."""
    values = estimates.by_case(runs, field)
    if all(len(of_case) < 2 for of_case in values):
        return float("nan")
    logs = [np.log(of_case) for of_case in values] if field == "all_samples_ms" else values
    return stats.scatter(logs, stats.Scatter(0, 0)).variance ** 0.5


def between_sessions(run_logs: Iterable[RunLog]) -> list[dict]:
    """A row per run log with several sessions of a host: how often a session's 95 % interval holds another session's
    estimate of the same case, each from its own runs; the root mean square of the differences; and the median half
    width, in %. Left out are sessions that give only a lower limit for a case."""
    rows = []
    for run_log in run_logs:
        pairs = []
        for estimate in estimates.of_run_log(run_log).values():
            sessions = sorted({run.key.session for run in estimate.host_runs})
            by_session = [estimate.only(lambda name, _, session=session: name == session) for session in sessions]
            pairs += permutations([each for each in by_session if not each.one_sided], 2)
        if len(pairs) > MIN_PAIRS:
            covered = [first.interval_ms[0] <= second.latency_ms <= first.interval_ms[1] for first, second in pairs]
            differences = np.log([first.latency_ms / second.latency_ms for first, second in pairs])
            row = about(run_log) | {"pairs": len(pairs), "coverage": np.mean(covered)}
            row |= {"apart, %": 100 * np.sqrt(np.mean(differences**2))}
            rows.append(row | {"half width, %": 100 * np.median([first.half_width for first, _ in pairs])})
    return rows


def write(out: Path, draw: bool = True) -> list[Path]:
    """Both CSVs. Returns their paths."""
    import pandas as pd

    from segbench.analysis import tables

    run_logs = committed_run_logs()
    for table in (kinds, between_sessions):
        tables.write_csv(out / f"estimator_{table.__name__}.csv", pd.DataFrame(table(run_logs)))
    return sorted(out.glob("*.csv"))


def main() -> int:
    return common.update(write, settings.parse(common.Files(), __doc__).check)


if __name__ == "__main__":
    exit_with(main)
