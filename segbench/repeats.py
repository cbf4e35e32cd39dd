"""What repetitions of both protocols say of them: spread, coverage, cost. Journals of benchmarks/repeatability in, data
frames out.

A repetition is a sweep of `rounds` rounds in a session of its own, with its own floors. Spread is max/min over the
repetitions. Coverage is the share of 95 % intervals that contain the median of the figures of all other repetitions.
"""

from collections import defaultdict
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd

from . import figures, modes, stats, tables
from .cases import Case, Visit
from .journal import Journal

DIGITS = {"repetitions": 0, "throughput_img_s": 1, "spread": 3, "speedup": 2, "speedup_spread": 3, "coverage": 2}
DIGITS |= {"seconds": 1, "prepare_s": 1, "quiet_share": 2}
NAN = float("nan")
COLUMNS = ("machine", "cpu", "protocol", "model", "mode")  # what names a row


class Figured(NamedTuple):
    """What one repetition of one protocol says of one case."""

    latency_ms: float
    low_ms: float
    high_ms: float
    figure: str  # quiet, scaled, as met or mean
    quiet_share: float


def by_repetition(journal: Journal) -> dict[Case, dict[int, dict[int, Visit]]]:
    """Case -> repetition -> round -> visit, of repetitions that are complete and went well."""
    rounds = journal.header.settings["rounds"]
    found: dict[Case, dict[int, dict[int, Visit]]] = {}
    for case, visits in journal.by_case().items():
        repetitions = defaultdict(dict)
        for number, visit in sorted(visits.items()):
            if visit.status == "ok" and visit.samples_ms:
                repetitions[(number - 1) // rounds + 1][number] = visit
        wanted = 1 if case.protocol == "usual" else rounds
        found[case] = {number: of for number, of in repetitions.items() if len(of) == wanted}
    return found


def parts(journal: Journal) -> list[Journal]:
    """The repetitions as journals of their own."""
    found: dict[int, Journal] = {}
    for of_case in by_repetition(journal).values():
        for number, visits in of_case.items():
            if number not in found:
                part = found[number] = Journal(journal.path.with_suffix(f".{number}"))
                part.header, part.sessions, part.floors = journal.header, journal.sessions, journal.floors
            found[number].visits += visits.values()
    return [found[number] for number in sorted(found)]


def quiet(visits: dict[int, Visit], floors: dict) -> Figured:
    of = figures.of_visits(visits, floors)
    how, latency, (low, high) = figures.figure(of)
    share = sum(len(figure.quiet) for figure in of.values()) / sum(figure.samples for figure in of.values())
    return Figured(latency, low, high, how, share)


def quiet_speedup(before: dict[int, Visit], after: dict[int, Visit], floors: dict) -> float:
    return figures.speedup(figures.of_visits(before, floors), figures.of_visits(after, floors))[0]


def as_met(visits: dict[int, Visit], floors: dict) -> Figured:
    latencies = [np.median(visit.samples_ms) for visit in visits.values()]
    return Figured(float(np.median(latencies)), *stats.interval(latencies), "as met", NAN)


def usual(visits: dict[int, Visit], floors: dict) -> Figured:
    """The mean of the iterations of its one process, and the interval that they give."""
    from scipy.stats import sem, t

    (visit,) = visits.values()
    samples = visit.samples_ms
    low, high = t.interval(0.95, len(samples) - 1, np.mean(samples), sem(samples))
    return Figured(float(np.mean(samples)), float(low), float(high), "mean", NAN)


PROTOCOLS = {"quiet": ("quiet", quiet), "as met": ("quiet", as_met), "usual": ("usual", usual)}  # whose visits, how


def repetitions(journals: list[Journal]) -> pd.DataFrame:
    """A row per machine, protocol, model, mode and repetition."""
    rows = []
    for journal in journals:
        found, floors = by_repetition(journal), figures.session_floors(journal)
        starts = start_s(journal, found)
        for protocol, (of, estimate) in PROTOCOLS.items():
            for case, of_case in found.items():
                if case.protocol != of:
                    continue
                before = found.get(msgspec.structs.replace(case, mode=tables.BASELINE), {})
                for number, visits in of_case.items():
                    row = {"machine": journal.header.name, "cpu": journal.header.machine.label, "protocol": protocol}
                    row |= {"model": case.model, "mode": case.mode, "repetition": number}
                    row |= estimate(visits, floors)._asdict()
                    row["speedup"] = NAN
                    if case.mode != tables.BASELINE and number in before:
                        row["speedup"] = (
                            quiet_speedup(before[number], visits, floors)
                            if protocol == "quiet"
                            else estimate(before[number], floors).latency_ms / row["latency_ms"]
                        )
                    row["seconds"] = sum(visit.seconds - preparing(visit) for visit in visits.values())
                    row["seconds"] += starts[number] if of == "quiet" else 0
                    row["prepare_s"] = sum(preparing(visit) for visit in visits.values())
                    rows.append(row)
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else COLUMNS)


def preparing(visit: Visit) -> float:
    """Seconds of compiling, which are counted apart."""
    return visit.phases_s["prepare"] if modes.MODES[visit.case.mode].compile else 0.0


def start_s(journal: Journal, found: dict) -> dict[int, float]:
    """Repetition -> seconds per case of starting the server and finding the floors."""
    sessions, cases = defaultdict(set), defaultdict(int)
    for case, of_case in found.items():
        for number, visits in of_case.items():
            sessions[number] |= {visit.session for visit in visits.values()}
            cases[number] += case.protocol != "usual"
    spent = {number: sum(f.seconds for f in journal.floors if f.session in of) for number, of in sessions.items()}
    return {number: spent[number] / max(1, cases[number]) for number in spent}


def protocols(journals: list[Journal]) -> pd.DataFrame:
    """A row per machine, protocol, model and mode."""
    keys = list(COLUMNS)
    rows = [
        {
            **dict(zip(keys, key, strict=True)),
            "repetitions": len(of),
            "throughput_img_s": 1e3 / of.latency_ms.median(),
            "spread": of.latency_ms.max() / of.latency_ms.min(),
            "speedup": of.speedup.median(),
            "speedup_spread": of.speedup.max() / of.speedup.min(),
            "coverage": covered(of).mean(),
            "seconds": of.seconds.median(),
            "prepare_s": of.prepare_s.median(),
            "quiet_share": of.quiet_share.mean(),
            "figured": ", ".join(of.figure.drop_duplicates()),
        }
        for key, of in repetitions(journals).groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows)


def covered(of: pd.DataFrame) -> np.ndarray:
    """Per repetition whether its interval contains the median of the figures of all others."""
    latencies = of.latency_ms.to_numpy()
    others = [np.median(np.delete(latencies, index)) if len(latencies) > 1 else NAN for index in range(len(latencies))]
    return ((of.low_ms <= others) & (others <= of.high_ms)).to_numpy()


def samples(journals: list[Journal]) -> pd.DataFrame:
    """A row per sample of the quiet protocol: latency, and the mean of the readings beside it, over the floors."""
    found = []
    for journal in journals:
        floors = figures.session_floors(journal)
        for visit in journal.visits:
            if visit.readings_ms:
                readings = np.array(visit.readings_ms) / floors[visit.session, visit.case.threads]
                beside = (readings[:-1] + readings[1:]) / 2
                rows = pd.DataFrame({"latency_ms": visit.samples_ms, "convolution": beside[:, 0], "gemm": beside[:, 1]})
                rows["quiet"] = stats.quiet(readings, (1, 1))
                case = visit.case
                rows[["machine", "model", "mode", "round"]] = journal.header.name, case.model, case.mode, visit.round
                found.append(rows)
    return pd.concat(found, ignore_index=True)
