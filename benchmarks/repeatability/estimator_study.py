"""What the rule finds in the journals of all benchmarks. Results of this benchmark in, a data frame out."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd

from segbench import estimates, stats
from segbench.journal import Journal
from segbench.tables import Results

NETWORK = ("host", "threads", "runtime", "network")
SCATTERS = {"all samples": "all_samples_ms", "undisturbed samples": "met_log_ms", "corrected": "log_ms"}
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
    """A row per journal, host, kind of process and kind of network: the reference, the slope, and the standard
    deviation of a visit to a case by all samples, by the undisturbed ones, and corrected, in %."""
    rows = []
    for journal in committed(results):
        visits = [visit for case in estimates.of_journal(journal).values() for visit in case.visits.values()]
        for names, alike in estimates.grouped(visits, lambda visit: visit.network).items():
            row = {"journal": name_of(journal), "machine": journal.name} | dict(zip(NETWORK, names, strict=True))
            row |= {"cases": len({visit.case for visit in alike}), "visits": len(alike)}
            row |= {"undisturbed": sum(visit.undisturbed for visit in alike), "slope": alike[0].slope}
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
            row = {"journal": name_of(journal), "machine": journal.name, "pairs": len(pairs)}
            row |= {"coverage": np.mean(hits), "apart, %": 100 * np.sqrt(np.mean(apart**2))}
            rows.append(row | {"half width, %": 100 * np.median([one.half_width for one, _ in pairs])})
    return pd.DataFrame(rows)


TABLES = (kinds, between_sessions)
