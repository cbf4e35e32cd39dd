"""What the rule finds in the run logs of all benchmarks. Results of this benchmark in, a data frame out."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from segbench.analysis import estimates, stats
from segbench.analysis.tables import Results
from segbench.run_log import RunLog

NETWORK = ("host", "threads", "runtime", "network")
SCATTERS = {"all samples": "all_samples_ms", "valid samples": "uncorrected_log_ms", "drift-corrected": "log_ms"}
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def committed(results: Results) -> list[RunLog]:
    """The run logs of all benchmarks in this repository, where the results are of its own; else the results'."""
    if not any(run_log.folder.resolve().is_relative_to(HERE) for run_log in results.run_logs):
        return results.run_logs
    sessions = [*ROOT.glob("benchmarks/**/run_logs/**/*.jsonl"), *ROOT.glob("run_logs/**/*.jsonl")]
    folders = {path.parent for path in sessions if not {"quick", "old"} & {*path.parts}}
    return [RunLog.read(folder) for folder in sorted(folders)]


def name_of(run_log: RunLog) -> str:
    folder = run_log.folder.resolve()
    return folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else run_log.name


def kinds(results: Results) -> pd.DataFrame:
    """A row per run log, host, kind of process and kind of network: the reference, the slope, and the standard
    deviation of a run of a case by all samples, by the valid ones, and corrected, in %."""
    rows = []
    for run_log in committed(results):
        runs = [run for case in estimates.of_run_log(run_log).values() for run in case.runs.values()]
        for names, alike in estimates.grouped(runs, lambda run: run.network).items():
            row = {"run_log": name_of(run_log), "machine": run_log.name} | dict(zip(NETWORK, names, strict=True))
            row |= {"cases": len({run.case for run in alike}), "runs": len(alike)}
            row |= {"valid": sum(run.valid for run in alike), "slope": alike[0].slope}
            for name, field in SCATTERS.items():
                logs = estimates.by_case(alike, field)
                logs = [np.log(values) for values in logs] if field.endswith("samples_ms") else logs
                known = any(len(values) > 1 for values in logs)
                scatter = stats.scatter(logs, stats.Scatter(0, 0)).variance ** 0.5 if known else float("nan")
                row[f"{name}, %"] = 100 * scatter
            (level, gemm), (bound, gemm_bound) = alike[0].reference
            row |= {"convolution, ms": level, "convolution, bound, ms": bound}
            rows.append(row | {"GEMM, ms": gemm, "GEMM, bound, ms": gemm_bound})
    return pd.DataFrame(rows)


def between_sessions(results: Results) -> pd.DataFrame:
    """A row per run log with several sessions of a host: how often a session's 95 % interval holds what another one
    says of the same case, each by its own runs; the root mean square of the differences; and the median half width,
    in %. Sessions that only know a lower limit of a case are not asked for it."""
    rows = []
    for run_log in committed(results):
        pairs = []
        for estimate in estimates.of_run_log(run_log).values():
            sessions = {run.key.session for run in estimate.host_runs}
            alone = [estimate.only(lambda session, _, own=own: session == own) for own in sorted(sessions)]
            pairs += permutations([each for each in alone if not each.one_sided], 2)
        if len(pairs) > 30:
            hits = [one.interval_ms[0] <= other.latency_ms <= one.interval_ms[1] for one, other in pairs]
            apart = np.log([one.latency_ms / other.latency_ms for one, other in pairs])
            row = {"run_log": name_of(run_log), "machine": run_log.name, "pairs": len(pairs)}
            row |= {"coverage": np.mean(hits), "apart, %": 100 * np.sqrt(np.mean(apart**2))}
            rows.append(row | {"half width, %": 100 * np.median([one.half_width for one, _ in pairs])})
    return pd.DataFrame(rows)


TABLES = (kinds, between_sessions)
