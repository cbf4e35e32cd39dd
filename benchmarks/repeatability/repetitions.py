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

from segbench import estimates, stats
from segbench.cases import Case, Visit
from segbench.estimates import NAN, CaseEstimate
from segbench.journal import Journal
from segbench.modes import BASELINE
from segbench.tables import Results

COLUMNS = ("machine", "cpu", "protocol", "model", "mode")  # what names a row


def by_repetition(journal: Journal) -> dict[Case, dict[int, list[Visit]]]:
    """Case -> repetition -> its visits, of repetitions that are complete and went well."""
    rounds = journal.header.settings["rounds"]
    complete: dict[Case, dict[int, list[Visit]]] = {}
    for case, visits in journal.by_case().items():
        repetitions = defaultdict(list)
        for visit in sorted(visits, key=lambda visit: visit.round):
            if visit.status == "ok" and visit.samples_ms:
                repetitions[repetition(visit, journal)].append(visit)
        wanted = 1 if case.protocol == "usual" else rounds
        complete[case] = {number: some for number, some in repetitions.items() if len(some) == wanted}
    return complete


def repetition(visit: Visit, journal: Journal) -> int:
    """The number, from 1, of that which a visit belongs to."""
    return in_repetition(visit.round, journal)


def in_repetition(number: int, journal: Journal) -> int:
    return (number - 1) // journal.header.settings["rounds"] + 1


def parts(journal: Journal) -> dict[int, Journal]:
    """Repetition -> a journal of its own."""
    journals: dict[int, Journal] = {}
    for repetitions in by_repetition(journal).values():
        for number, visits in repetitions.items():
            if number not in journals:
                part = journals[number] = Journal(journal.folder / f"repetition {number}")
                part.headers, part.floors = journal.headers, journal.floors
            journals[number].visits += visits
    return dict(sorted(journals.items()))


@cache
def whole(journal: Journal) -> dict[Case, CaseEstimate]:
    return estimates.of_journal(journal)


@cache
def own_sessions(number: int, journal: Journal) -> dict[Case, CaseEstimate]:
    """Of one repetition as if there were no other."""
    cases = by_repetition(journal)
    return estimates.of_cases({case: each[number] for case, each in cases.items() if number in each})


def alone(visits: list[Visit], journal: Journal) -> dict:
    """The same of one repetition that knows nothing of the others, nor the level of its host beyond its own session."""
    return described(own_sessions(repetition(visits[0], journal), journal)[visits[0].case])


def corrected(visits: list[Visit], journal: Journal) -> dict:
    """This project's protocol."""
    return described(of_visits(visits, journal))


def described(estimate: CaseEstimate) -> dict:
    low, high = estimate.interval_ms
    row = {"latency_ms": estimate.latency_ms, "low_ms": low, "high_ms": high}
    return row | {"quiet_share": estimate.quiet_share}


def of_visits(visits: list[Visit], journal: Journal) -> CaseEstimate:
    """Of one repetition of a case: its own visits, at the level that its host has in all repetitions."""
    own = repetition(visits[0], journal)
    return whole(journal)[visits[0].case].only(lambda _, number: in_repetition(number, journal) == own)


def all_samples(visits: list[Visit], journal: Journal) -> dict:
    """The same visits, all samples counted."""
    latencies = [np.median(visit.samples_ms) for visit in visits]
    low, high = stats.interval(latencies)
    row = {"latency_ms": float(np.median(latencies)), "low_ms": low, "high_ms": high}
    return row | {"quiet_share": NAN}


def usual(visits: list[Visit], journal: Journal) -> dict:
    """The mean of the iterations of its one process, and the interval that they give."""
    from scipy.stats import sem, t

    (visit,) = visits
    samples = visit.samples_ms
    mean = float(np.mean(samples))
    low, high = t.interval(0.95, len(samples) - 1, mean, sem(samples))
    row = {"latency_ms": mean, "low_ms": float(low), "high_ms": float(high)}
    return row | {"quiet_share": NAN}


# Whose visits, how they are estimated.
PROTOCOLS = {
    "corrected": ("quiet", corrected),
    "alone": ("quiet", alone),
    "all_samples": ("quiet", all_samples),
    "usual": ("usual", usual),
}


def repetitions(results: Results) -> pd.DataFrame:
    """A row per machine, protocol, model, mode and repetition."""
    rows = [row for journal in results.journals for row in of_journal(journal)]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else COLUMNS)


def of_journal(journal: Journal) -> Iterator[dict]:
    complete = by_repetition(journal)
    starts = start_s(journal, complete)
    for protocol, (visited, estimate) in PROTOCOLS.items():
        for case in (case for case in complete if case.protocol == visited):
            eager = complete.get(msgspec.structs.replace(case, mode=BASELINE), {})
            for number, visits in complete[case].items():
                row = {"machine": journal.name, "cpu": journal.header.machine.label, "protocol": protocol}
                row |= {"model": case.model, "mode": case.mode, "repetition": number}
                row |= estimate(visits, journal)
                row["speedup"] = NAN
                if case.mode != BASELINE and number in eager:
                    baseline = eager[number]
                    row["speedup"] = (
                        estimates.speedup(of_visits(baseline, journal), of_visits(visits, journal))[0]
                        if protocol == "corrected"
                        else estimate(baseline, journal)["latency_ms"] / row["latency_ms"]
                    )
                row["seconds"] = sum(visit.seconds - preparing(visit) for visit in visits)
                row["seconds"] += starts[number] if visited == "quiet" else 0
                row["prepare_s"] = sum(preparing(visit) for visit in visits)
                yield row


def preparing(visit: Visit) -> float:
    """Seconds of compiling, which are counted apart."""
    return visit.phases_s["prepare"] if visit.cache else 0.0


def start_s(journal: Journal, complete: dict) -> dict[int, float]:
    """Repetition -> seconds per case of starting the server and finding the floors."""
    sessions, cases = defaultdict(set), defaultdict(int)
    for case, repetitions in complete.items():
        for number, visits in repetitions.items():
            sessions[number] |= {visit.session for visit in visits}
            cases[number] += case.protocol != "usual"
    spent = {
        number: sum(floor.seconds for floor in journal.floors if floor.session in some)
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
            "quiet_share": rows.quiet_share.mean(),
        }
        for key, rows in repetitions(results).groupby([*COLUMNS], sort=False)
    ]
    return pd.DataFrame(rows)


def covered(rows: pd.DataFrame) -> np.ndarray:
    """Per repetition whether its interval contains the median of the estimates of all others."""
    latencies = rows.latency_ms.to_numpy()
    others = [np.median(np.delete(latencies, index)) if len(latencies) > 1 else NAN for index in range(len(latencies))]
    return ((rows.low_ms <= others) & (others <= rows.high_ms)).to_numpy()
