"""What the rule finds in the journals of all benchmarks. Results of this benchmark in, a data frame out."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from segbench import estimates, stats
from segbench.estimates import CaseEstimate, Kind
from segbench.journal import Journal
from segbench.tables import Results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def committed(results: Results) -> list[Journal]:
    """The journals of all benchmarks in this repository, where the results are of its own; else the results'."""
    if not any(journal.folder.resolve().is_relative_to(HERE) for journal in results.journals):
        return results.journals
    sessions = [*ROOT.glob("benchmarks/**/journals/**/*.jsonl"), *ROOT.glob("journals/**/*.jsonl")]
    folders = {path.parent for path in sessions if not {"quick", "old"} & {*path.parts}}
    return [Journal.read(folder) for folder in sorted(folders)]


def name_of(journal: Journal) -> str:
    folder = journal.folder.resolve()
    return folder.relative_to(ROOT).as_posix() if folder.is_relative_to(ROOT) else journal.name


def kinds(results: Results) -> pd.DataFrame:
    """A row per journal, host, kind of process and kind of network: the reference, the slope, and the standard deviation
    of a visit to a case by all samples, by the undisturbed ones, and corrected, in %."""
    rows = []
    for journal in committed(results):
        groups: dict[tuple, list[CaseEstimate]] = {}
        for case, estimate in estimates.of_journal(journal).items():
            if estimate:
                kind, (_, _, network) = estimates.kind(case, estimate.host), estimates.kind_of_network(case)
                groups.setdefault((kind, network), []).append(estimate)
        rows += [row(journal, kind, network, cases) for (kind, network), cases in groups.items()]
    return pd.DataFrame(rows)


def row(journal: Journal, kind: Kind, network: str, cases: list[CaseEstimate]) -> dict:
    visits = [[visit for visit in case.of_host if visit.undisturbed] for case in cases]
    shown = next(visit for case in cases for visit in case.of_host)
    (level, gemm), (bound, gemm_bound) = shown.reference
    scatters = {"all samples": lambda visit: np.log(visit.all_samples_ms)}
    scatters |= {"undisturbed": lambda visit: visit.met_log_ms, "corrected": lambda visit: visit.log_ms}
    row = {"journal": name_of(journal), **kind._asdict(), "network": network, "cases": len(cases), "slope": shown.slope}
    row |= {"undisturbed visits": sum(map(len, visits)), "visits": sum(len(case.of_host) for case in cases)}
    for name, value in scatters.items():
        values = [np.array([value(visit) for visit in each]) for each in visits]
        known = any(len(each) > 1 for each in values)
        row[f"{name}, %"] = 100 * stats.scatter(values, stats.Scatter(0, 0)).variance ** 0.5 if known else float("nan")
    row |= {"convolution, ms": level, "convolution, bound, ms": bound}
    return row | {"GEMM, ms": gemm, "GEMM, bound, ms": gemm_bound}


def between_sessions(results: Results) -> pd.DataFrame:
    """A row per journal with several sessions of a host: how often a session's 95 % interval holds what another one
    says of the same case, each by its own visits; the root mean square of the differences; and the median half width,
    in %. Sessions that only know a lower limit of a case are not asked for it."""
    rows = []
    for journal in committed(results):
        pairs = []
        for estimate in estimates.of_journal(journal).values():
            sessions = {visit.key.session for visit in estimate.of_host}
            alone = [estimate.only(lambda session, _, own=own: session == own) for own in sorted(sessions)]
            pairs += permutations([each for each in alone if not each.one_sided], 2)
        if len(pairs) > 30:
            hits = [one.interval_ms[0] <= other.latency_ms <= one.interval_ms[1] for one, other in pairs]
            apart = np.log([one.latency_ms / other.latency_ms for one, other in pairs])
            row = {"journal": name_of(journal), "pairs": len(pairs), "coverage": np.mean(hits)}
            row |= {"apart, %": 100 * np.sqrt(np.mean(apart**2))}
            rows.append(row | {"half width, %": 100 * np.median([one.half_width for one, _ in pairs])})
    return pd.DataFrame(rows)


TABLES = (kinds, between_sessions)
