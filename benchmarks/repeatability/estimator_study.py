"""What else could have been made of the raw samples of repetitions. Results of this benchmark in, a data frame out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import repetitions

from segbench import estimates, references, stats
from segbench.cases import Case
from segbench.estimates import CaseEstimate
from segbench.journal import Journal, read_all
from segbench.tables import Results

HERE = Path(__file__).resolve().parent


def with_slope(slope: float | None) -> Callable[[CaseEstimate], float]:
    """The mean of the visits at that slope, None for the one that the machine's visits say."""

    def estimate(case: CaseEstimate) -> float:
        fitted = case.machine.slope if slope is None else slope
        visits = [visit for visit in case.visits.values() if visit.settled] or [*case.visits.values()]
        return float(np.exp(np.mean([visit.log_ms - fitted * visit.level for visit in visits])))

    return estimate


def pooled(case: CaseEstimate) -> np.ndarray:
    return np.concatenate([visit.samples_ms for visit in case.visits.values()])


ESTIMATORS: dict[str, Callable[[CaseEstimate], float]] = {
    "levelled, as published": lambda case: case.latency_ms,
    "levelled, plain mean of settled visits": with_slope(None),
    "levelled by a slope of 1.5": with_slope(stats.SLOPE),
    "in the band, not levelled": with_slope(0),
    "mean of all samples": lambda case: float(np.mean(pooled(case))),
    "median of all samples": lambda case: float(np.median(pooled(case))),
    "minimum": lambda case: float(np.min(pooled(case))),
    "median of the visits' fastest": lambda case: float(np.median([v.fastest_ms for v in case.visits.values()])),
    "median of the visits' medians": lambda case: case.all_samples_ms,
}


def journals(results: Results) -> list[tuple[str, Journal]]:
    """By what their rows are called; before those that are committed here the first run, on which choices were made."""
    named = [(journal.name, journal) for journal in results.journals]
    if any(journal.folder.resolve().is_relative_to(HERE) for _, journal in named):
        first = read_all(HERE / "studies" / "first" / "journals")
        named = [(f"{journal.name}, first run", journal) for journal in first] + named
    return named


def of_protocol(journal: Journal) -> dict[Case, dict[int, CaseEstimate]]:
    """Case -> repetition -> its estimate."""
    complete = repetitions.by_repetition(journal)
    return {
        case: {number: repetitions.of_visits(visits, journal) for number, visits in some.items()}
        for case, some in complete.items()
        if case.protocol == "quiet" and some
    }


def estimators(results: Results) -> pd.DataFrame:
    """A row per machine and estimator: spread (max/min) over the repetitions, worst and median case, and its median
    level over that of what is published, in %."""
    rows = []
    for name, journal in journals(results):
        cases = of_protocol(journal)
        for estimator, estimate in ESTIMATORS.items() if cases else ():
            latencies = [[estimate(case) for case in some.values()] for some in cases.values()]
            published = [[case.latency_ms for case in some.values()] for some in cases.values()]
            rows.append({"machine": name, "estimator": estimator, **spread(latencies), **bias(latencies, published)})
        if cases:
            complete = repetitions.by_repetition(journal)
            latencies = [
                [repetitions.before(visits, journal)["latency_ms"] for visits in complete[case].values()]
                for case in cases
            ]
            row = {"machine": name, "estimator": "the rule before"}
            rows.append(row | spread(latencies) | bias(latencies, published))
    return pd.DataFrame(rows)


def spread(latencies: list[list[float]]) -> dict[str, float]:
    spreads = [max(some) / min(some) for some in latencies]
    return {"cases": len(spreads), "spread, worst": max(spreads), "spread, median": float(np.median(spreads))}


def bias(latencies: list[list[float]], published: list[list[float]]) -> dict[str, float]:
    pairs = zip(latencies, published, strict=True)
    return {"over the published, %": 100 * (float(np.median([np.median(a) / np.median(b) for a, b in pairs])) - 1)}


def machines(results: Results) -> pd.DataFrame:
    """A row per machine and number of threads: its reference, its slope and the scatter of a visit."""
    rows = []
    for name, journal in journals(results):
        known = estimates.of_journal(journal)
        for threads, reference in references.of_journal(journal).items():
            machine = next(case.machine for key, case in known.items() if key.threads == threads and case)
            row = {"machine": name, "threads": threads, "slope": machine.slope}
            row |= {"scatter, %": 100 * machine.scatter.variance**0.5, "freedom": machine.scatter.freedom}
            for place, yardstick in enumerate(("convolution", "GEMM")):
                row[f"{yardstick}, ms"] = reference.level_ms[place]
                row[f"{yardstick}, bound, ms"] = reference.bound_ms[place]
            rows.append(row)
    return pd.DataFrame(rows)


TABLES = (estimators, machines)
