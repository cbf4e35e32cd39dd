"""From visits to estimates: what one visit says of its case, and what all of them say. The rule is explained in
benchmarks/repeatability/README.md."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from . import modes, stats
from .cases import BUSY_CPUS, MEASURED, Case, Visit
from .journal import Journal

NAN = float("nan")
DISTURBED = 0.05  # what a visit without undisturbed samples may be wrong by, beside how far outside they were (logs)
NOISY = 0.15  # half width of an interval from which on a figure is called noisy
MIN_PAIRS = 3  # visits of two kinds of process to one model in one round, from which on their readings are compared


class Key(NamedTuple):
    """What visits to several cases share: a round of a session on a host."""

    host: str
    session: str
    round: int


class Kind(NamedTuple):
    """A kind of process on a host: another runtime's idle threads, and another number of threads, read otherwise."""

    host: str
    threads: int
    runtime: str


class VisitEstimate:
    """What one visit says of its case: the median of its undisturbed samples, and the mean reading of the convolution
    yardstick beside them. Where too few are undisturbed, of those that came nearest."""

    def __init__(self, visit: Visit, key: Key, reference: stats.Reference, proven: bool):
        """`proven`: whether the reference is of a time when no other process was busy."""
        self.key, self.reference = key, reference
        self.samples_ms = np.array(visit.samples_ms)
        self.readings_ms = np.array(visit.readings_ms)
        self.in_band = stats.in_band(self.readings_ms, reference.bound_ms)
        logs = np.log(self.readings_ms)
        beyond = np.maximum(np.maximum(logs[1:], logs[:-1]) - np.log(reference.bound_ms), 0).max(axis=1)
        enough = int(self.in_band.sum()) >= min(stats.MIN_SAMPLES, len(self.samples_ms))
        chosen = self.in_band if enough else np.argsort(beyond, kind="stable")[: stats.MIN_SAMPLES]
        self.undisturbed = enough and proven
        self.calm = is_calm(visit)
        self.met_log_ms = self.log_ms = float(np.median(np.log(self.samples_ms[chosen])))
        self.level = float(np.mean((logs[1:, 0] + logs[:-1, 0])[chosen]) / 2)
        self.beyond = float(np.mean(beyond[chosen]))  # how far outside the band, as a logarithm
        self.all_samples_ms = float(np.median(self.samples_ms))
        # What all visits of the host tell: `level` and `log_ms` are corrected, and these are set.
        self.weight, self.slope = 1.0, 0.0


class CaseEstimate:
    """What the visits of one case say together; false where none was measured."""

    def __init__(
        self,
        visits: Iterable[VisitEstimate] = (),
        scatter: stats.Scatter = stats.Scatter(),  # noqa: B008 (a named tuple cannot change)
        raw: Iterable[Visit] = (),
        first_host: str = "",
    ):
        """`scatter`: of a visit, by cases of the same class; `raw`: visits that failed too; `first_host`: whose figures
        are shown where it measured the case."""
        self.scatter, self.raw = scatter, [*raw]
        self.visits: dict[Key, VisitEstimate] = {visit.key: visit for visit in visits}
        counts = defaultdict(int)
        for key in self.visits:
            counts[key.host] += 1
        self.hosts = sorted(counts, key=lambda host: (host != first_host, -counts[host], host))

    def __bool__(self) -> bool:
        return bool(self.visits)

    def only(self, keep: Callable[[str, int], bool]) -> "CaseEstimate":
        """Of the visits whose session and round it keeps; what was learnt of the host from all stays."""
        visits = [visit for key, visit in self.visits.items() if keep(key.session, key.round)]
        raw = [visit for visit in self.raw if keep(visit.session, visit.round)]
        return CaseEstimate(visits, self.scatter, raw, self.host)

    @property
    def host(self) -> str:
        """Whose latency it is: nothing is carried over from host to host but ratios."""
        return self.hosts[0] if self.hosts else ""

    @cached_property
    def of_host(self) -> list[VisitEstimate]:
        """The visits of that host."""
        return [visit for key, visit in self.visits.items() if key.host == self.host]

    @cached_property
    def counted(self) -> list[VisitEstimate]:
        """The undisturbed ones of these where there are two or more, else all."""
        undisturbed = [visit for visit in self.of_host if visit.undisturbed]
        return undisturbed if len(undisturbed) > 1 else self.of_host

    @cached_property
    def all_samples_ms(self) -> float:
        """From all samples of that host, the disturbed ones too."""
        return float(np.median([visit.all_samples_ms for visit in self.of_host])) if self else NAN

    @cached_property
    def samples(self) -> int:
        """Undisturbed ones that the estimate is from."""
        return sum(int(visit.in_band.sum()) for visit in self.counted)

    @cached_property
    def quiet_share(self) -> float:
        """Share of the samples that are undisturbed."""
        total = sum(len(visit.samples_ms) for visit in self.visits.values())
        return sum(int(visit.in_band.sum()) for visit in self.visits.values()) / total if total else NAN

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Log latency, and half of its 95 % interval without what differs between sessions."""
        return stats.centre([v.log_ms for v in self.counted], [v.weight for v in self.counted], self.scatter)

    @cached_property
    def half_width(self) -> float:
        """Of the 95 % interval of what another session would find, as a logarithm."""
        return stats.with_hours(self.centre[1], len({visit.key.session for visit in self.counted}))

    @cached_property
    def latency_ms(self) -> float:
        return float(np.exp(self.centre[0])) if self else NAN

    @cached_property
    def one_sided(self) -> bool:
        """Whether others disturbed every visit: then the network is at least as fast as this."""
        return bool(self) and not any(visit.undisturbed and visit.calm for visit in self.counted)

    @cached_property
    def interval_ms(self) -> tuple[float, float]:
        """95 % interval of what another session would find; from 0 where it is one-sided."""
        if not self:
            return NAN, NAN
        low, high = stats.around(self.latency_ms, self.half_width)
        return 0.0 if self.one_sided else low, high

    @cached_property
    def quality(self) -> str:
        """What a reader has to know of the estimate, in a word or two; "" where nothing."""
        if not self:
            return ""
        return "at least" if self.one_sided else "noisy" if np.expm1(self.half_width) > NOISY else ""


NOTHING = CaseEstimate()


def of_journal(journal: Journal, first_host: str = "") -> dict[Case, CaseEstimate]:
    """Case -> its estimate, in the order in which the cases were first met. `first_host`: whose figures are shown, or
    else those of the host with the most visits."""
    host_of = journal.host_of()
    first_host = first_host or next(iter(journal.hosts()), "")
    return of_cases(journal.by_case(), lambda session: host_of.get(session, ""), first_host)


def of_cases(
    cases: dict[Case, list[Visit]], host: Callable[[str], str] = lambda session: "", first_host: str = ""
) -> dict[Case, CaseEstimate]:
    """The same of these visits alone; a wrong one keeps its estimate and is not ranked. `host`: of a session."""
    kept = {case: least_busy(visits, host) for case, visits in cases.items()}
    kinds: dict[Kind, list[tuple[Key, Visit]]] = defaultdict(list)
    for case, visits in kept.items():
        for key, visit in visits.items():
            kinds[kind(case, key.host)].append((key, visit))
    estimated = {}
    for pairs in kinds.values():
        reference, proven = reference_of([visit for _, visit in pairs])
        for key, visit in pairs:
            estimated[visit.case, key] = VisitEstimate(visit, key, reference, proven)
    correct(estimated)
    scatters = weigh(estimated)
    of_case: dict[Case, list[VisitEstimate]] = {case: [] for case in cases}
    for (case, _), visit in sorted(estimated.items(), key=lambda item: item[0][1]):
        of_case[case].append(visit)
    found = {case: CaseEstimate(of_case[case], raw=raw, first_host=first_host) for case, raw in cases.items()}
    for case, estimate in found.items():
        estimate.scatter = scatters.get((estimate.host, *kind_of_network(case)), estimate.scatter)
    return found


def least_busy(visits: Iterable[Visit], host: Callable[[str], str]) -> dict[Key, Visit]:
    """Of visits to a case in one round of a session, one of which was made again because others were busy, the calmest."""
    kept: dict[Key, Visit] = {}
    for visit in visits:
        if visit.readings_ms and visit.status in MEASURED:
            key = Key(host(visit.session), visit.session, visit.round)
            kept[key] = min((kept.get(key, visit), visit), key=lambda each: each.busy_cpus)
    return kept


def kind(case: Case, host: str) -> Kind:
    return Kind(host, case.threads, modes.find(case.mode).runtime)


def kind_of_network(case: Case) -> tuple[int, str, str]:
    """What visits are pooled over, within a host: those alike in how they go with the yardstick, and in how they scatter."""
    network = "3D" if len(case.size) == 3 else "decoder" if case.decoder else ""
    return case.threads, modes.find(case.mode).runtime, network


def is_calm(visit: Visit) -> bool:
    """Whether neither other processes nor other machines of the hypervisor took much of a CPU meanwhile."""
    return visit.busy_cpus + visit.stolen_cpus <= BUSY_CPUS


def reference_of(visits: list[Visit]) -> tuple[stats.Reference, bool]:
    """Of a kind of process, from the readings of visits beside which nothing else was busy; and whether there are any."""
    calm = [visit for visit in visits if is_calm(visit)]
    readings = np.concatenate([visit.readings_ms for visit in calm or visits])
    return stats.reference(readings), bool(calm)


def correct(estimated: dict[tuple[Case, Key], VisitEstimate]) -> None:
    """Bring every visit to the level that its host has in the median when undisturbed: figures stay what users meet.

    Levels become logarithms over that median; log latencies lose slope times level. A disturbed visit is not taken for
    slower than the worst undisturbed one: what a neighbour takes from a network and from the yardstick is not alike.
    """
    by_kind: dict[Kind, list[tuple[Case, VisitEstimate]]] = defaultdict(list)
    for (case, key), visit in estimated.items():
        by_kind[kind(case, key.host)].append((case, visit))
    middles = {of: middle_of(of, by_kind) for of in by_kind}
    for of, visits in by_kind.items():
        middle = middles[of]
        highest = max(levels(visits)) - middle
        for _, visit in visits:
            visit.level -= middle
            if not visit.undisturbed:
                visit.level = min(visit.level, highest)
    by_host: dict[tuple, dict[tuple, dict[Case, list[VisitEstimate]]]] = defaultdict(lambda: defaultdict(dict))
    for (case, key), visit in estimated.items():
        classes = by_host[key.host, case.threads]
        classes[kind_of_network(case)].setdefault(case, []).append(visit)
    for classes in by_host.values():
        everything = slope([visits for cases in classes.values() for visits in cases.values()])
        for cases in classes.values():
            of_class = slope([*cases.values()], everything, stats.CLASS_SPREAD)
            for visit in (visit for visits in cases.values() for visit in visits):
                visit.slope = of_class
                visit.log_ms -= of_class * visit.level


def levels(visits: list[tuple[Case, VisitEstimate]]) -> list[float]:
    """Of the undisturbed visits, or where there are none of all."""
    return [v.level for _, v in visits if v.undisturbed] or [v.level for _, v in visits]


def middle_of(of: Kind, by_kind: dict[Kind, list[tuple[Case, VisitEstimate]]]) -> float:
    """The median level of a kind of process; torch's with the offset where that is known, for the two may have been
    measured at other hours."""
    torch = by_kind.get(of._replace(runtime="torch"), [])
    offset = offset_of(by_kind[of], torch)
    return float(np.median(levels(by_kind[of]))) if offset is None else float(np.median(levels(torch))) + offset


def offset_of(visits: list[tuple[Case, VisitEstimate]], torch: list[tuple[Case, VisitEstimate]]) -> float | None:
    """By what a kind of process reads more than torch's, from undisturbed visits to one model in one round; None where
    there are too few."""
    beside: dict[tuple, list[float]] = defaultdict(list)
    for case, visit in torch:
        if visit.undisturbed:
            beside[case.group, visit.key].append(visit.level)
    differences = [
        visit.level - np.mean(beside[case.group, visit.key])
        for case, visit in visits
        if visit.undisturbed and (case.group, visit.key) in beside
    ]
    return float(np.median(differences)) if len(differences) >= MIN_PAIRS else None


def slope(cases: list[list[VisitEstimate]], *prior: float) -> float:
    undisturbed = [[visit for visit in visits if visit.undisturbed] for visits in cases]
    x, y = ([np.array([getattr(v, name) for v in visits]) for visits in undisturbed] for name in ("level", "log_ms"))
    return stats.fitted_slope(x, y, *prior)


def weigh(estimated: dict[tuple[Case, Key], VisitEstimate]) -> dict[tuple, stats.Scatter]:
    """Give every visit its weight: 1 where undisturbed, less by how far outside the band its samples were taken.
    Returns how much visits scatter, by host and kind of network."""
    cases: dict[tuple, dict[Case, list[VisitEstimate]]] = defaultdict(dict)
    for (case, key), visit in estimated.items():
        cases[key.host, *kind_of_network(case)].setdefault(case, []).append(visit)
    logs = {
        of: [np.array([v.log_ms for v in visits if v.undisturbed]) for visits in by_case.values()]
        for of, by_case in cases.items()
    }
    hosts = {host: stats.scatter([y for of, ys in logs.items() if of[0] == host for y in ys]) for host, *_ in logs}
    scatters = {of: stats.scatter(ys, hosts[of[0]]) for of, ys in logs.items()}
    for of, by_case in cases.items():
        variance = scatters[of].variance
        for visit in (visit for visits in by_case.values() for visit in visits):
            if not visit.undisturbed:
                visit.weight = variance / (variance + (DISTURBED + visit.beyond) ** 2)
    return scatters


class Speedup(NamedTuple):
    """Ratio of the latencies of two cases with its 95 % interval, and the pairs of visits that it is from."""

    ratio: float = NAN
    low: float = NAN
    high: float = NAN
    pairs: int = 0


def speedup(before: CaseEstimate, after: CaseEstimate) -> Speedup:
    """From visits in the same round of a session, which share what the machine did then, on whatever hosts; where there
    are none, from the estimates."""
    if not before or not after:
        return Speedup()
    both = [(before.visits[key], after.visits[key]) for key in before.visits if key in after.visits]
    calm = [pair for pair in both if all(visit.undisturbed for visit in pair)]
    both = calm if len(calm) > 1 else both
    if not both:
        ratio = before.latency_ms / after.latency_ms
        width = float(np.hypot(before.half_width, after.half_width))
        return Speedup(ratio, *stats.around(ratio, width))
    logs = [one.log_ms - other.log_ms for one, other in both]
    weights = [2 / (1 / one.weight + 1 / other.weight) for one, other in both]
    common = stats.Scatter(
        before.scatter.variance + after.scatter.variance, min(before.scatter.freedom, after.scatter.freedom)
    )
    middle, width = stats.centre(logs, weights, common)
    width = stats.with_hours(width, len({one.key.session for one, _ in both}))
    return Speedup(float(np.exp(middle)), *stats.around(float(np.exp(middle)), width), len(both))


def slower(case: CaseEstimate, other: CaseEstimate) -> bool:
    """Whether the interval of the ratio of the two excludes that the first is as fast as the second."""
    return not case.one_sided and speedup(case, other).low > 1
