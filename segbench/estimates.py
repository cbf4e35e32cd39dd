"""From visits to estimates: what one visit says of its case, and what all of them say. The rule is explained in
benchmarks/repeatability/README.md."""

from collections.abc import Collection, Iterable
from functools import cached_property

import numpy as np

from . import references, stats
from .cases import MEASURED, Case, Visit
from .journal import Journal
from .references import References

NAN = float("nan")
UNSETTLED = 0.05  # what a visit without samples in the band may be wrong by, beside how far outside they were (logs)
UNKNOWN_VARIANCE = 0.02**2  # of a visit, where no case has two
Key = tuple[str, int]  # (session, round)


class VisitEstimate:
    """What one visit says of its case: the median of its samples in the band, and at what level of the convolution
    yardstick they were taken. Where fewer than MIN_SAMPLES lie in the band, of those that came nearest."""

    def __init__(self, visit: Visit, reference: stats.Reference):
        self.samples_ms = np.array(visit.samples_ms)
        self.readings_ms = np.array(visit.readings_ms)
        self.in_band = stats.in_band(self.readings_ms, reference.bound_ms)
        logs = np.log(self.readings_ms)
        beside = (logs[1:] + logs[:-1]) / 2
        beyond = np.maximum(np.maximum(logs[1:], logs[:-1]) - np.log(reference.bound_ms), 0).max(axis=1)
        self.settled = int(self.in_band.sum()) >= stats.MIN_SAMPLES
        chosen = self.in_band if self.settled else np.argsort(beyond, kind="stable")[: stats.MIN_SAMPLES]
        self.log_ms = float(np.median(np.log(self.samples_ms[chosen])))
        self.level = float(np.mean(beside[chosen, 0]) - np.log(reference.level_ms[0]))
        self.beyond = float(np.mean(beyond[chosen]))  # how far outside the band, as a logarithm
        self.all_samples_ms = float(np.median(self.samples_ms))
        self.fastest_ms = float(self.samples_ms.min())


class Machine:
    """What all cases of a journal say of its machine: how networks go with the yardstick, and how visits scatter."""

    def __init__(self, cases: Iterable[list[VisitEstimate]]):
        settled = [[visit for visit in visits if visit.settled] for visits in cases]
        levels = [np.array([visit.level for visit in visits]) for visits in settled]
        logs = [np.array([visit.log_ms for visit in visits]) for visits in settled]
        self.slope = stats.fitted_slope(levels, logs)
        self.scatter = stats.scatter([y - self.slope * x for x, y in zip(levels, logs, strict=True)])

    def levelled(self, visit: VisitEstimate) -> float:
        """Log latency of a visit, as it would be with the yardstick at its reference."""
        return visit.log_ms - self.slope * visit.level

    def weight(self, visit: VisitEstimate) -> float:
        """1 for a settled visit; less by how far outside the band its samples were taken."""
        variance = self.scatter.variance if self.scatter.freedom else UNKNOWN_VARIANCE
        return 1.0 if visit.settled else variance / (variance + (UNSETTLED + visit.beyond) ** 2)


class CaseEstimate:
    """What the visits of one case say together; false where none was measured."""

    def __init__(self, visits: dict[Key, VisitEstimate], machine: Machine, raw: Iterable[Visit] = ()):
        """`raw`: those that failed too."""
        self.visits, self.machine, self.raw = visits, machine, [*raw]

    def __bool__(self) -> bool:
        return bool(self.visits)

    def only(self, keys: Collection[Key]) -> "CaseEstimate":
        """Of some of the visits."""
        return CaseEstimate({key: visit for key, visit in self.visits.items() if key in keys}, self.machine)

    @cached_property
    def fastest_ms(self) -> float:
        """The fastest sample of all visits."""
        return min(visit.fastest_ms for visit in self.visits.values())

    @cached_property
    def all_samples_ms(self) -> float:
        """From all samples, the disturbed ones too."""
        return float(np.median([visit.all_samples_ms for visit in self.visits.values()])) if self else NAN

    @cached_property
    def estimator(self) -> str:
        """`fastest` for long inferences, by the fastest sample of all: beside a busy neighbour a whole visit of a short
        one may look long; `levelled` where a visit found samples in the band, else `unsettled`; "" without a visit."""
        if not self:
            return ""
        if self.fastest_ms > stats.LONG_MS:
            return "fastest"
        return "levelled" if any(visit.settled for visit in self.visits.values()) else "unsettled"

    @cached_property
    def samples(self) -> int:
        """In the band, or for long inferences all."""
        chosen = "samples_ms" if self.estimator == "fastest" else "in_band"
        return sum(int(np.count_nonzero(getattr(visit, chosen))) for visit in self.visits.values())

    @cached_property
    def quiet_share(self) -> float:
        """Share of the samples in the band."""
        total = sum(len(visit.samples_ms) for visit in self.visits.values())
        return sum(int(visit.in_band.sum()) for visit in self.visits.values()) / total if total else NAN

    @cached_property
    def log_ms(self) -> dict[Key, float]:
        """Log latency that each visit says."""
        if self.estimator == "fastest":
            return {key: float(np.log(visit.fastest_ms)) for key, visit in self.visits.items()}
        return {key: self.machine.levelled(visit) for key, visit in self.visits.items()}

    @cached_property
    def weights(self) -> dict[Key, float]:
        if self.estimator != "levelled":
            return dict.fromkeys(self.visits, 1.0)
        return {key: self.machine.weight(visit) for key, visit in self.visits.items()}

    @cached_property
    def mean(self) -> tuple[float, float]:
        """Mean log latency over the visits, and half of its 95 % interval."""
        common = stats.Scatter(NAN, 0) if self.estimator == "fastest" else self.machine.scatter
        return stats.mean([*self.log_ms.values()], [*self.weights.values()], common)

    @cached_property
    def latency_ms(self) -> float:
        """Never below the fastest sample; for long and unsettled cases it is that."""
        if not self:
            return NAN
        return max(self.fastest_ms, float(np.exp(self.mean[0]))) if self.estimator == "levelled" else self.fastest_ms

    @cached_property
    def interval_ms(self) -> tuple[float, float]:
        """95 % interval of what another session would find; an unsettled case has none. Of long inferences it lies
        around the fastest sample of all, so a single further visit is more likely above it than below."""
        if self.estimator in ("", "unsettled"):
            return NAN, NAN
        return stats.around(self.latency_ms, self.mean[1])


NOTHING = CaseEstimate({}, Machine([]))


def of_journal(journal: Journal, known: References | None = None) -> dict[Case, CaseEstimate]:
    """Case -> its estimate, in the order in which the cases were first met. `known`: references of another journal of
    this machine, for what is compared with it."""
    return of_cases(journal.by_case(), references.of_journal(journal) | (known or {}))


def of_cases(cases: dict[Case, list[Visit]], known: References) -> dict[Case, CaseEstimate]:
    """The same of these visits alone; a wrong one keeps its estimate and is not ranked."""
    visits: dict[Case, dict[Key, VisitEstimate]] = {}
    for case, raw in cases.items():
        measured = sorted(
            (v for v in raw if v.readings_ms and v.status in MEASURED), key=lambda visit: (visit.round, visit.session)
        )
        visits[case] = {(v.session, v.round): VisitEstimate(v, known[case.threads]) for v in measured}
    machines = {}
    for threads in {case.threads for case in cases}:
        short = [some for case, some in visits.items() if case.threads == threads and not long(some)]
        machines[threads] = Machine([*some.values()] for some in short)
    return {case: CaseEstimate(visits[case], machines[case.threads], raw) for case, raw in cases.items()}


def long(visits: dict[Key, VisitEstimate]) -> bool:
    return min((visit.fastest_ms for visit in visits.values()), default=0) > stats.LONG_MS


def speedup(before: CaseEstimate, after: CaseEstimate) -> tuple[float, float, float]:
    """Ratio of the latencies of two cases with its 95 % interval: of visits in the same round of a session, which share
    what the machine did then; where there are none, of the estimates."""
    if "unsettled" in (before.estimator, after.estimator) or not before or not after:
        return NAN, NAN, NAN
    both = sorted(before.visits.keys() & after.visits.keys())
    if not both or before.estimator != after.estimator:
        width = float(np.hypot(before.mean[1], after.mean[1]))
        ratio = before.latency_ms / after.latency_ms
        return ratio, *stats.around(ratio, width)
    logs = [before.log_ms[key] - after.log_ms[key] for key in both]
    weights = [1 / (1 / before.weights[key] + 1 / after.weights[key]) for key in both]
    common = after.machine.scatter
    common = (
        stats.Scatter(2 * common.variance, common.freedom) if after.estimator == "levelled" else stats.Scatter(NAN, 0)
    )
    middle, width = stats.mean(logs, weights, common)
    return float(np.exp(middle)), *stats.around(float(np.exp(middle)), width)
