"""From visits to estimates: what one visit says of its case, and what all of them say."""

from collections.abc import Iterable
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import stats
from .cases import Case, Visit
from .journal import Journal

NAN = float("nan")
Key = tuple[str, int]  # (session, round)


def seconds_since_epoch(started: str) -> float:
    return datetime.fromisoformat(started).timestamp()


def session_floors(journal: Journal) -> dict[tuple[str, int], stats.Floors]:
    """(session, threads) -> the floors by all readings of that session."""
    floors: dict[tuple[str, int], stats.Floors] = {}
    readings = [(line.session, line.threads, line) for line in journal.floors]
    readings += [(visit.session, visit.case.threads, visit) for visit in journal.visits if visit.readings_ms]
    for session, threads, line in readings:
        floors.setdefault((session, threads), stats.Floors()).add(seconds_since_epoch(line.started), line.readings_ms)
    return floors


class VisitEstimate:
    """What one visit says of its case."""

    def __init__(self, visit: Visit, floor_ms: NDArray, long: bool = False):
        """`long`: the case's inferences outlast the machine's states, so that its fastest sample counts."""
        self.long = long
        self.samples_ms = np.array(visit.samples_ms)
        self.readings_ms = np.array(visit.readings_ms)
        self.floor_ms = floor_ms
        self.quiet_samples_ms = self.samples_ms[stats.quiet(self.readings_ms, floor_ms)]
        self.all_samples_ms = float(np.median(self.samples_ms))
        self.fastest_ms = float(self.samples_ms.min())

    @cached_property
    def scaled(self) -> tuple[NDArray, NDArray]:
        """What every sample lost, and its latency without that."""
        return stats.scaled(self.samples_ms, self.readings_ms, self.floor_ms)

    @cached_property
    def quiet_ms(self) -> float:
        if self.long:
            return self.fastest_ms
        return float(np.median(self.quiet_samples_ms)) if len(self.quiet_samples_ms) else NAN

    @cached_property
    def scaled_ms(self) -> float:
        return self.fastest_ms if self.long else stats.calmest(*self.scaled)


class CaseEstimate:
    """What the visits of one case say together; false where none was measured."""

    def __init__(self, visits: dict[Key, VisitEstimate], raw: Iterable[Visit] = ()):
        """`raw`: those that failed too."""
        self.visits, self.raw = visits, [*raw]

    @classmethod
    def of(cls, visits: list[Visit], floors: dict[tuple[str, int], stats.Floors]) -> "CaseEstimate":
        """Of those that were measured; a wrong one keeps its estimate and is not ranked."""
        measured = sorted((v for v in visits if v.readings_ms), key=lambda visit: (visit.round, visit.session))
        # By the fastest sample of all: beside a busy neighbour the whole visit of a short inference may look long.
        long = min((min(visit.samples_ms) for visit in measured), default=0) > stats.LONG_MS
        lowest = {key: floors[key].lowest() for key in {(visit.session, visit.case.threads) for visit in measured}}
        return cls(
            {
                (visit.session, visit.round): VisitEstimate(visit, lowest[visit.session, visit.case.threads], long)
                for visit in measured
            },
            visits,
        )

    def __bool__(self) -> bool:
        return bool(self.visits)

    def in_session(self, session: str) -> "CaseEstimate":
        return CaseEstimate({key: visit for key, visit in self.visits.items() if key[0] == session})

    @property
    def sessions(self) -> list[str]:
        return [*dict.fromkeys(session for session, _ in self.visits)]

    @cached_property
    def long(self) -> bool:
        return any(visit.long for visit in self.visits.values())

    @cached_property
    def fastest_ms(self) -> float:
        """The fastest sample of all visits."""
        return min(visit.fastest_ms for visit in self.visits.values())

    @cached_property
    def all_samples_ms(self) -> float:
        """From all samples, the disturbed ones too."""
        return float(np.median([visit.all_samples_ms for visit in self.visits.values()])) if self else NAN

    @cached_property
    def quiet_samples(self) -> int:
        return sum(len(visit.quiet_samples_ms) for visit in self.visits.values())

    @cached_property
    def quiet_share(self) -> float:
        return self.quiet_samples / sum(len(visit.samples_ms) for visit in self.visits.values()) if self else NAN

    @cached_property
    def quiet_ms(self) -> float:
        """Median of the quiet samples of all visits, for long inferences the fastest; NaN where there are too few."""
        if self.long:
            return self.fastest_ms
        if self.quiet_samples < stats.MIN_QUIET:
            return NAN
        return float(np.median(np.concatenate([visit.quiet_samples_ms for visit in self.visits.values()])))

    @cached_property
    def scaled_ms(self) -> float:
        """Of the samples of all visits that came nearest to quiet, scaled by what the yardsticks lost beside them; for
        long inferences the fastest."""
        if self.long:
            return self.fastest_ms
        pairs = zip(*(visit.scaled for visit in self.visits.values()), strict=True)
        return stats.calmest(*(np.concatenate(parts) for parts in pairs))

    @cached_property
    def estimator(self) -> str:
        """By which samples: `fastest` for long inferences, else `quiet` where the visits found quiet samples and
        `scaled` where they did not; "" where nothing was measured."""
        if not self:
            return ""
        return "fastest" if self.long else "scaled" if np.isnan(self.quiet_ms) else "quiet"

    @cached_property
    def samples(self) -> int:
        """That the estimate is from."""
        return self.quiet_samples if self.estimator == "quiet" else sum(len(v.samples_ms) for v in self.visits.values())

    @cached_property
    def latencies_ms(self) -> dict[Key, float]:
        """Per visit, of those that the estimate is from."""
        if self.estimator == "quiet":
            return {key: visit.quiet_ms for key, visit in self.visits.items() if len(visit.quiet_samples_ms)}
        return {key: getattr(visit, f"{self.estimator}_ms") for key, visit in self.visits.items()}

    @cached_property
    def latency_ms(self) -> float:
        return getattr(self, f"{self.estimator}_ms") if self else NAN

    @cached_property
    def interval_ms(self) -> tuple[float, float]:
        """95 % interval of what another session would find: over visits, never over the samples of one process, and
        with what sessions differ by beyond that. Of long inferences it lies around the fastest sample of all, so a
        single further visit is more likely above it than below."""
        if not self:
            return NAN, NAN
        width = np.hypot(stats.half_width([*self.latencies_ms.values()]), stats.normal_width(stats.DRIFT))
        return stats.around(self.latency_ms, width)


NOTHING = CaseEstimate({})


def of_journal(journal: Journal) -> dict[Case, CaseEstimate]:
    """Case -> its estimate, in the order in which the cases were first met."""
    floors = session_floors(journal)
    return {case: CaseEstimate.of(visits, floors) for case, visits in journal.by_case().items()}


def speedup(before: CaseEstimate, after: CaseEstimate) -> tuple[float, float, float]:
    """Ratio of the latencies of two cases with its 95 % interval: of their estimates within one session, the geometric
    mean over the sessions, of those with quiet samples where there are such. The interval is over rounds that both
    share, so what changes between sessions is not in it."""
    both = sorted(before.visits.keys() & after.visits.keys())
    if not both:
        return NAN, NAN, NAN
    sessions = dict.fromkeys(session for session, _ in both)
    pairs = [(before.in_session(session), after.in_session(session)) for session in sessions]
    ratios = present(slow.quiet_ms / fast.quiet_ms for slow, fast in pairs)
    middle = stats.geometric_mean(ratios or [slow.scaled_ms / fast.scaled_ms for slow, fast in pairs])
    by_round = present(before.visits[key].quiet_ms / after.visits[key].quiet_ms for key in both)
    if len(by_round) < 2:
        by_round = [before.visits[key].scaled_ms / after.visits[key].scaled_ms for key in both]
    return middle, *stats.around(middle, stats.half_width(by_round))


def present(values: Iterable[float]) -> list[float]:
    """Those that are numbers."""
    return [value for value in values if value == value]
