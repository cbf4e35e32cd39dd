"""What repetitions of both protocols say: spread, coverage, cost. Results of this benchmark in, data frames out.

A repetition is a sweep of `rounds` rounds in a session of its own, with its own floors. Spread is max/min over the
repetitions. Coverage is the share of 95 % intervals that contain the median of the estimates of all other repetitions.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import cache

import msgspec
import numpy as np
import pandas as pd

from segbench.analysis import estimates, stats
from segbench.analysis.estimates import NAN, CaseEstimate
from segbench.analysis.tables import Results
from segbench.cases import Case
from segbench.modes import BASELINE
from segbench.records import Run
from segbench.run_log import RunLog

COLUMNS = ("machine", "cpu", "protocol", "model", "mode")  # what names a row


def by_repetition(run_log: RunLog) -> dict[Case, dict[int, list[Run]]]:
    """Case -> repetition -> its runs, of repetitions that are complete and went well."""
    rounds = run_log.header.settings["rounds"]
    complete: dict[Case, dict[int, list[Run]]] = {}
    for case, runs in run_log.by_case().items():
        repetitions = defaultdict(list)
        for run in sorted(runs, key=lambda run: run.round):
            if run.status == "ok" and run.samples_ms:
                repetitions[repetition(run, run_log)].append(run)
        wanted = 1 if case.protocol == "fixed-iteration" else rounds
        complete[case] = {number: some for number, some in repetitions.items() if len(some) == wanted}
    return complete


def repetition(run: Run, run_log: RunLog) -> int:
    """The number, from 1, of that which a run belongs to."""
    return in_repetition(run.round, run_log)


def in_repetition(number: int, run_log: RunLog) -> int:
    return (number - 1) // run_log.header.settings["rounds"] + 1


def parts(run_log: RunLog) -> dict[int, RunLog]:
    """Repetition -> a run log of its own."""
    run_logs: dict[int, RunLog] = {}
    for repetitions in by_repetition(run_log).values():
        for number, runs in repetitions.items():
            if number not in run_logs:
                part = run_logs[number] = RunLog(run_log.folder / f"repetition {number}")
                part.headers, part.machine_speeds = run_log.headers, run_log.machine_speeds
            run_logs[number].runs += runs
    return dict(sorted(run_logs.items()))


@cache
def whole(run_log: RunLog) -> dict[Case, CaseEstimate]:
    return estimates.of_run_log(run_log)


@cache
def own_sessions(number: int, run_log: RunLog) -> dict[Case, CaseEstimate]:
    """Of one repetition as if there were no other."""
    cases = by_repetition(run_log)
    return estimates.of_cases({case: each[number] for case, each in cases.items() if number in each})


def alone(runs: list[Run], run_log: RunLog) -> dict:
    """The same of one repetition that knows nothing of the others, nor the level of its host beyond its own session."""
    return described(own_sessions(repetition(runs[0], run_log), run_log)[runs[0].case])


def drift_corrected(runs: list[Run], run_log: RunLog) -> dict:
    """This project's protocol."""
    return described(of_runs(runs, run_log))


def described(estimate: CaseEstimate) -> dict:
    low, high = estimate.interval_ms
    row = {"latency_ms": estimate.latency_ms, "low_ms": low, "high_ms": high}
    return row | {"valid_share": estimate.valid_share}


def of_runs(runs: list[Run], run_log: RunLog) -> CaseEstimate:
    """Of one repetition of a case: its own runs, at the level that its host has in all repetitions."""
    own = repetition(runs[0], run_log)
    return whole(run_log)[runs[0].case].only(lambda _, number: in_repetition(number, run_log) == own)


def all_samples(runs: list[Run], run_log: RunLog) -> dict:
    """The same runs, all samples counted."""
    latencies = [np.median(run.samples_ms) for run in runs]
    low, high = stats.interval(latencies)
    row = {"latency_ms": float(np.median(latencies)), "low_ms": low, "high_ms": high}
    return row | {"valid_share": NAN}


def fixed_iterations(runs: list[Run], run_log: RunLog) -> dict:
    """The mean of the iterations of its one process, and the interval that they give."""
    from scipy.stats import sem, t

    (run,) = runs
    samples = run.samples_ms
    mean = float(np.mean(samples))
    low, high = t.interval(0.95, len(samples) - 1, mean, sem(samples))
    row = {"latency_ms": mean, "low_ms": float(low), "high_ms": float(high)}
    return row | {"valid_share": NAN}


# Whose runs, how they are estimated.
PROTOCOLS = {
    "drift-corrected": ("project", drift_corrected),
    "alone": ("project", alone),
    "all_samples": ("project", all_samples),
    "fixed-iteration": ("fixed-iteration", fixed_iterations),
}


def repetitions(results: Results) -> pd.DataFrame:
    """A row per machine, protocol, model, mode and repetition."""
    rows = [row for run_log in results.run_logs for row in of_run_log(run_log)]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else COLUMNS)


def of_run_log(run_log: RunLog) -> Iterator[dict]:
    complete = by_repetition(run_log)
    starts = start_s(run_log, complete)
    for protocol, (measured_with, estimate) in PROTOCOLS.items():
        for case in (case for case in complete if case.protocol == measured_with):
            eager = complete.get(msgspec.structs.replace(case, mode=BASELINE), {})
            for number, runs in complete[case].items():
                row = {"machine": run_log.name, "cpu": run_log.header.machine.label, "protocol": protocol}
                row |= {"model": case.model, "mode": case.mode, "repetition": number}
                row |= estimate(runs, run_log)
                row["speedup"] = NAN
                if case.mode != BASELINE and number in eager:
                    baseline = eager[number]
                    row["speedup"] = (
                        estimates.speedup(of_runs(baseline, run_log), of_runs(runs, run_log))[0]
                        if protocol == "drift-corrected"
                        else estimate(baseline, run_log)["latency_ms"] / row["latency_ms"]
                    )
                row["seconds"] = sum(run.seconds - preparing(run) for run in runs)
                row["seconds"] += starts[number] if measured_with == "project" else 0
                row["prepare_s"] = sum(preparing(run) for run in runs)
                yield row


def preparing(run: Run) -> float:
    """Seconds of compiling, which are counted apart."""
    return run.phases_s["prepare"] if run.cache else 0.0


def start_s(run_log: RunLog, complete: dict) -> dict[int, float]:
    """Repetition -> seconds per case of starting the server and finding the floors."""
    sessions, cases = defaultdict(set), defaultdict(int)
    for case, repetitions in complete.items():
        for number, runs in repetitions.items():
            sessions[number] |= {run.session for run in runs}
            cases[number] += case.protocol != "fixed-iteration"
    spent = {
        number: sum(machine_speed.seconds for machine_speed in run_log.machine_speeds if machine_speed.session in some)
        for number, some in sessions.items()
    }
    return {number: spent[number] / max(1, cases[number]) for number in spent}


def protocols(results: Results) -> pd.DataFrame:
    """A row per machine, protocol, model and mode."""
    rows = [
        {
            **dict(zip(COLUMNS, key, strict=True)),
            "repetitions": len(rows),
            "throughput_img_s": 1e3 / rows.latency_ms.median(),
            "spread": rows.latency_ms.max() / rows.latency_ms.min(),
            "speedup": rows.speedup.median(),
            "speedup_spread": rows.speedup.max() / rows.speedup.min(),
            "coverage": covered(rows).mean(),
            "seconds": rows.seconds.median(),
            "prepare_s": rows.prepare_s.median(),
            "valid_share": rows.valid_share.mean(),
        }
        for key, rows in repetitions(results).groupby([*COLUMNS], sort=False)
    ]
    return pd.DataFrame(rows)


def covered(rows: pd.DataFrame) -> np.ndarray:
    """Per repetition whether its interval contains the median of the estimates of all others."""
    latencies = rows.latency_ms.to_numpy()
    others = [np.median(np.delete(latencies, index)) if len(latencies) > 1 else NAN for index in range(len(latencies))]
    return ((rows.low_ms <= others) & (others <= rows.high_ms)).to_numpy()
