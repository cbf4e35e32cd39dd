"""Spread, coverage and cost of both protocols over their repetitions. Results of this benchmark in, data frames out.

A repetition is a session of `rounds` rounds. Spread is max/min over the
repetitions. Coverage is the share of 95 % intervals that contain the median of the estimates of all other repetitions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from segbench import modes
from segbench.analysis import estimates, stats
from segbench.analysis.estimates import NAN, CaseEstimate
from segbench.analysis.tables import Results
from segbench.cases import Case
from segbench.records import Run
from segbench.run_log import RunLog

COLUMNS = ["machine", "cpu", "protocol", "model", "mode"]  # these name a row


def by_repetition(run_log: RunLog) -> dict[Case, dict[int, list[Run]]]:
    """Case -> number of a repetition -> its runs; only complete repetitions without failure."""
    rounds = run_log.header.settings["rounds"]
    complete: dict[Case, dict[int, list[Run]]] = {}
    for case, runs in run_log.by_case().items():
        repetitions = defaultdict(list)
        for run in sorted(runs, key=lambda run: run.round):
            if run.status == "ok" and run.samples_ms:
                repetitions[repetition(run.round, run_log)].append(run)
        wanted = 1 if case.protocol == "fixed-iteration" else rounds
        complete[case] = {number: runs for number, runs in repetitions.items() if len(runs) == wanted}
    return complete


def repetition(round_number: int, run_log: RunLog) -> int:
    """The number, from 1, of the repetition that a round belongs to."""
    return (round_number - 1) // run_log.header.settings["rounds"] + 1


def parts(run_log: RunLog) -> dict[int, RunLog]:
    """Number of a repetition -> a run log with its runs."""
    run_logs: dict[int, RunLog] = {}
    for repetitions in by_repetition(run_log).values():
        for number, runs in repetitions.items():
            if number not in run_logs:
                part = run_logs[number] = RunLog(run_log.folder / f"repetition {number}")
                part.headers, part.machine_speeds = run_log.headers, run_log.machine_speeds
            run_logs[number].runs += runs
    return dict(sorted(run_logs.items()))


@cache
def of_all(run_log: RunLog) -> dict[Case, CaseEstimate]:
    """Estimates from all repetitions."""
    return estimates.of_run_log(run_log)


@cache
def of_repetition(number: int, run_log: RunLog) -> dict[Case, CaseEstimate]:
    """Estimates from one repetition as if there were no other."""
    cases = by_repetition(run_log)
    return estimates.of_cases({case: runs[number] for case, runs in cases.items() if number in runs})


def drift_corrected(runs: list[Run], run_log: RunLog) -> CaseEstimate:
    """From the runs of one repetition, drift corrected to the level of the host in all repetitions."""
    wanted = repetition(runs[0].round, run_log)
    return of_all(run_log)[runs[0].case].only(lambda _, number: repetition(number, run_log) == wanted)


def alone(runs: list[Run], run_log: RunLog) -> CaseEstimate:
    """The same, at the level of the host in this repetition."""
    return of_repetition(repetition(runs[0].round, run_log), run_log)[runs[0].case]


class Plain(NamedTuple):
    """An estimate without a rule for disturbed samples."""

    latency_ms: float
    interval_ms: tuple[float, float]
    valid_share: float = NAN


def all_samples(runs: list[Run], run_log: RunLog) -> Plain:
    """From all samples of the same runs."""
    latencies = [np.median(run.samples_ms) for run in runs]
    return Plain(float(np.median(latencies)), stats.interval(latencies))


def fixed_iterations(runs: list[Run], run_log: RunLog) -> Plain:
    """The mean over the iterations of one process."""
    from scipy.stats import sem, t

    (run,) = runs
    mean, error = float(np.mean(run.samples_ms)), sem(run.samples_ms)
    return Plain(mean, t.interval(0.95, len(run.samples_ms) - 1, mean, error))


# Name in tables -> the protocol that measured the runs, and how the latency follows from them.
PROTOCOLS = {
    "drift-corrected": ("project", drift_corrected),
    "alone": ("project", alone),
    "all_samples": ("project", all_samples),
    "fixed-iteration": ("fixed-iteration", fixed_iterations),
}


def repetitions(results: Results) -> pd.DataFrame:
    """A row per machine, protocol, model, mode and repetition."""
    rows = [row for run_log in results.run_logs for row in of_run_log(run_log)]
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def of_run_log(run_log: RunLog) -> Iterator[dict]:
    complete = by_repetition(run_log)
    starts = start_s(run_log, complete)
    for protocol, (measured_with, estimate) in PROTOCOLS.items():
        for case in (case for case in complete if case.protocol == measured_with):
            baseline = modes.own_baseline(case.mode)
            eager = complete.get(case.under(baseline), {})
            about = {"machine": run_log.name, "cpu": run_log.header.machine.title, "protocol": protocol}
            about |= {"model": case.model, "mode": beside(case, complete)}
            for number, runs in complete[case].items():
                after, speedup = estimate(runs, run_log), NAN
                if case.mode != baseline and number in eager:
                    before = estimate(eager[number], run_log)
                    speedup = before.latency_ms / after.latency_ms
                    if protocol == "drift-corrected":
                        speedup = estimates.speedup(before, after).ratio  # by pairs of runs
                low_ms, high_ms = after.interval_ms
                row = about | {"repetition": number, "latency_ms": after.latency_ms, "low_ms": low_ms}
                row |= {"high_ms": high_ms, "valid_share": after.valid_share, "speedup": speedup}
                row["seconds"] = sum(run.seconds - preparing(run) for run in runs) + starts[measured_with, number]
                yield row | {"prepare_s": sum(preparing(run) for run in runs)}


def beside(case: Case, complete: Iterable[Case]) -> str:
    """The mode whose row a case is shown in. The fixed-iteration protocol has glibc's allocator as it comes, also where
    this project's had it retained."""
    measured = {other.mode for other in complete if other.protocol != case.protocol}
    retained = f"{case.mode}+{modes.RETAINED}"
    return retained if case.mode not in measured and retained in measured else case.mode


def preparing(run: Run) -> float:
    """Seconds of compiling, which are counted apart."""
    return run.phases_s.get("prepare", 0.0) if run.cache else 0.0


def start_s(run_log: RunLog, complete: dict) -> dict[tuple[str, int], float]:
    """Protocol and repetition -> seconds per case of starting the server and timing the reference workload; 0 for the
    fixed-iteration protocol, which needs neither."""
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    for number in {number for repetitions in complete.values() for number in repetitions}:
        runs = [run for repetitions in complete.values() for run in repetitions.get(number, ())]
        sessions = {run.session for run in runs}
        cases = {run.case for run in runs if run.case.protocol == "project"}
        total = sum(speed.seconds for speed in run_log.machine_speeds if speed.session in sessions)
        seconds["project", number] = total / max(1, len(cases))
    return seconds


def protocols(results: Results) -> pd.DataFrame:
    """A row per machine, protocol, model and mode."""
    rows = []
    for key, repeated in repetitions(results).groupby(COLUMNS, sort=False):
        latencies, speedups = repeated.latency_ms, repeated.speedup
        row = dict(zip(COLUMNS, key, strict=True)) | {"repetitions": len(repeated)}
        row |= {"throughput_img_s": 1e3 / latencies.median(), "spread": latencies.max() / latencies.min()}
        row |= {"speedup": speedups.median(), "speedup_spread": speedups.max() / speedups.min()}
        row |= {"coverage": covered(repeated).mean(), "seconds": repeated.seconds.median()}
        rows.append(row | {"prepare_s": repeated.prepare_s.median(), "valid_share": repeated.valid_share.mean()})
    return pd.DataFrame(rows, columns=None if rows else COLUMNS)


def covered(rows: pd.DataFrame) -> np.ndarray:
    """(repetitions,) of bool: whether its interval contains the median latency of all others."""
    latencies = rows.latency_ms.to_numpy()
    others = [np.median(np.delete(latencies, index)) if len(latencies) > 1 else NAN for index in range(len(latencies))]
    return ((rows.low_ms <= others) & (others <= rows.high_ms)).to_numpy()
