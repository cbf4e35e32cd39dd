"""What else could have been made of the raw samples of repetitions. Results of this benchmark in, a data frame out."""

from collections.abc import Callable
from itertools import combinations
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
ROOT = HERE.parents[1]


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


def committed(results: Results) -> list[Journal]:
    """The journals of all benchmarks in this repository, where the results are of its own; else the results'."""
    if not any(journal.folder.resolve().is_relative_to(HERE) for journal in results.journals):
        return results.journals
    sessions = [*ROOT.glob("benchmarks/**/journals/**/*.jsonl"), *ROOT.glob("journals/**/*.jsonl")]
    folders = {path.parent for path in sessions if not {"quick", "old"} & {*path.parts}}
    return [Journal.read(folder) for folder in sorted(folders)]


def name_of(journal: Journal) -> str:
    return (
        journal.folder.resolve().relative_to(ROOT).as_posix() if journal.folder.is_relative_to(ROOT) else journal.name
    )


def machines(results: Results) -> pd.DataFrame:
    """A row per journal: its machine's reference, the slope, and the standard deviation of a visit to a case by all
    samples, by those in the band, and levelled, in %."""
    rows = []
    for journal in committed(results):
        cases = [case for case in estimates.of_journal(journal).values() if case.estimator == "levelled"]
        kept = {case.raw[0].case.threads: case.machine for case in cases}
        for threads, machine in kept.items():
            (level, gemm), (bound, gemm_bound) = references.of_journal(journal)[threads]
            settled = [[v for v in case.visits.values() if v.settled] for case in cases if case.machine is machine]
            scatters = {
                "all samples": [[np.log(visit.all_samples_ms) for visit in visits] for visits in settled],
                "in the band": [[visit.log_ms for visit in visits] for visits in settled],
                "levelled": [[machine.levelled(visit) for visit in visits] for visits in settled],
            }
            row = {"journal": name_of(journal), "machine": journal.name, "threads": threads, "slope": machine.slope}
            row |= {
                f"{name}, %": 100 * stats.scatter([np.array(x) for x in logs]).variance ** 0.5
                for name, logs in scatters.items()
            }
            row |= {"freedom": machine.scatter.freedom, "convolution, ms": level, "convolution, bound, ms": bound}
            rows.append(row | {"GEMM, ms": gemm, "GEMM, bound, ms": gemm_bound})
    return pd.DataFrame(rows)


def journals_apart(results: Results) -> pd.DataFrame:
    """A row per pair of journals of one machine that share four cases or more: by how much what they publish differs
    (root mean square of logarithms, %), with the reference that is kept, and with one of each journal's own."""
    known = []
    for journal in committed(results):
        pair = [estimates.of_journal(journal), estimates.of_journal(journal, references.found([journal]))]
        known.append((journal, [{c: e.latency_ms for c, e in of.items() if e.estimator == "levelled"} for of in pair]))
    rows = []
    for (one, ours), (other, theirs) in combinations(known, 2):
        shared = [case for case in ours[0] if case in theirs[0] and case in ours[1] and case in theirs[1]]
        if len(shared) >= 4 and one.header.machine.name == other.header.machine.name:
            row = {"journal": name_of(one), "other": name_of(other), "machine": one.name, "cases": len(shared)}
            for name, a, b in zip(("kept", "own"), ours, theirs, strict=True):
                differences = np.log([a[case] / b[case] for case in shared])
                row[f"apart, {name} reference, %"] = 100 * float(np.sqrt(np.mean(differences**2)))
            rows.append(row)
    return pd.DataFrame(rows)


TABLES = (estimators, machines, journals_apart)
