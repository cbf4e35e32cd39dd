"""From runs of estimates: what one run says of its case, and what all of them say. The rule is explained in
benchmarks/repeatability/README.md."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np

from .. import modes
from ..cases import BUSY_CPUS, MEASURED, Case
from ..records import Run
from ..run_log import RunLog
from . import stats

NAN = float("nan")
DISTURBED = 0.05  # what a run without valid samples may be wrong by, beside how far outside they were (logs)
NOISY = 0.15  # half width of an interval from which on a figure is called noisy
# Where fewer of the runs of a kind of process are valid, its reference may be of a disturbed time too.
VALID_SHARE = 0.1
MIN_PAIRS = 3  # runs of two runtimes to one model in one round, from which on their reference times are compared
# Standard deviation of what two hosts of one kind of CPU differ by beside a common factor (46 encoders on two hosts of
# intel-6.167-2c: 1.51 in the median, 1.28 to 1.96).
HOSTS = 0.08


class Key(NamedTuple):
    """What runs of several cases share: a round of a session on a host."""

    host: str
    session: str
    round: int


class RunEstimate:
    """What one run says of its case: the median of its valid samples, and the mean reading of the convolution
    reference workload beside them. Where too few are valid, of those that came nearest."""

    def __init__(self, run: Run, key: Key, reference: stats.Reference):
        self.case, self.key, self.reference = run.case, key, reference
        self.samples_ms, self.reference_ms = np.array(run.samples_ms), np.array(run.reference_ms)
        self.valid_samples = stats.valid_samples(self.reference_ms, reference.bound_ms)
        logs = np.log(self.reference_ms)
        beyond = np.maximum(np.maximum(logs[1:], logs[:-1]) - np.log(reference.bound_ms), 0).max(axis=1)
        enough = int(self.valid_samples.sum()) >= min(stats.MIN_SAMPLES, len(self.samples_ms))
        chosen = self.valid_samples if enough else np.argsort(beyond, kind="stable")[: stats.MIN_SAMPLES]
        self.valid, self.calm = enough, is_unloaded(run)
        self.met_log_ms = self.log_ms = float(np.median(np.log(self.samples_ms[chosen])))
        self.level = float(np.mean((logs[1:, 0] + logs[:-1, 0])[chosen]) / 2)
        self.beyond = float(np.mean(beyond[chosen]))  # how far outside the band, as a logarithm
        self.all_samples_ms = float(np.median(self.samples_ms))
        # What all runs of the host tell of this one: `correct` sets these, and corrects `level` and `log_ms`.
        self.slope, self.weight, self.scatter = 0.0, 1.0, stats.Scatter()
        self.sessions = 1  # that say what the median level of the host is

    @property
    def kind(self) -> tuple[str, int, str]:
        """Of its process: host, threads and runtime, whose idle threads lengthen reference times."""
        return self.key.host, self.case.threads, modes.find(self.case.mode).runtime

    @property
    def network(self) -> tuple[str, int, str, str]:
        """What runs are pooled by: these are alike in how they follow the reference workload and in how they scatter."""
        return *self.kind, "3D" if len(self.case.size) == 3 else "decoder" if self.case.decoder else ""


class CaseEstimate:
    """What the runs of one case say together; false where none was measured."""

    def __init__(self, runs: Iterable[RunEstimate] = (), raw: Iterable[Run] = (), first_host: str = ""):
        """`raw`: runs that failed too; `first_host`: whose figures are shown where it measured the case."""
        self.runs, self.raw = {run.key: run for run in runs}, [*raw]
        counts, self.first_host = Counter(key.host for key in self.runs), first_host
        self.hosts = sorted(counts, key=lambda host: (host != first_host, -counts[host], host))
        self.host = self.hosts[0] if self.hosts else ""  # whose runs the latency is from
        self.of_host = [run for key, run in self.runs.items() if key.host == self.host]
        valid = [run for run in self.of_host if run.valid]
        self.counted = valid if len(valid) > 1 else self.of_host
        # Instead of `met`, see `carry`; and whether what it was carried by was disturbed.
        self.carried: tuple[float, float] | None = None
        self.carried_disturbed = False

    def __bool__(self) -> bool:
        return bool(self.runs)

    def only(self, keep: Callable[[str, int], bool]) -> "CaseEstimate":
        """Of the runs whose session and round it keeps; what was learnt of the host from all stays."""
        runs = [run for key, run in self.runs.items() if keep(key.session, key.round)]
        return CaseEstimate(runs, [run for run in self.raw if keep(run.session, run.round)], self.host)

    @property
    def samples(self) -> int:
        """Valid ones that the estimate is from."""
        return sum(int(run.valid_samples.sum()) for run in self.counted)

    @property
    def valid_share(self) -> float:
        """Share of the samples that are valid."""
        return float(np.concatenate([run.valid_samples for run in self.runs.values()]).mean()) if self else NAN

    @cached_property
    def met(self) -> tuple[float, float]:
        """Log latency, and half of its 95 % interval without what differs between sessions."""
        logs, weights = [run.log_ms for run in self.counted], [run.weight for run in self.counted]
        return stats.centre(logs, weights, self.counted[0].scatter)

    @property
    def centre(self) -> tuple[float, float]:
        """The same on the host whose figures are shown."""
        return self.carried or self.met

    @property
    def latency_ms(self) -> float:
        return float(np.exp(self.centre[0])) if self else NAN

    @property
    def all_samples_ms(self) -> float:
        """From all samples, the disturbed ones too."""
        medians = [run.all_samples_ms for run in self.of_host]
        return float(np.median(medians) * np.exp(self.centre[0] - self.met[0])) if self else NAN

    @property
    def sessions(self) -> int:
        return len({run.key.session for run in self.counted})

    @property
    def half_width(self) -> float:
        """Of the 95 % interval of what another session would find, as a logarithm."""
        one = self.counted[0]
        level = 1.96 * one.slope * stats.LEVEL / np.sqrt(one.sessions)
        return float(np.linalg.norm((self.centre[1], stats.hours(self.sessions), level)))

    @property
    def apart(self) -> float:
        """The same for comparing it with other cases of the host: they share its level, and no other session counts."""
        return float(np.hypot(self.centre[1], stats.HOURS / np.sqrt(self.sessions))) if self else NAN

    @property
    def one_sided(self) -> bool:
        """Whether others disturbed every run: then the network is at least as fast as this."""
        return bool(self) and (self.carried_disturbed or not any(v.valid and v.calm for v in self.counted))

    @property
    def interval_ms(self) -> tuple[float, float]:
        """95 % interval of what another session would find; from 0 where it is one-sided."""
        if not self:
            return NAN, NAN
        low, high = stats.around(self.latency_ms, self.half_width)
        return 0.0 if self.one_sided else low, high

    @property
    def quality(self) -> str:
        """What a reader has to know of the estimate, in a word or two; "" where nothing."""
        if not self:
            return ""
        return "at least" if self.one_sided else "noisy" if np.expm1(self.half_width) > NOISY else ""


NOTHING = CaseEstimate()


def of_run_log(run_log: RunLog, first_host: str = "") -> dict[Case, CaseEstimate]:
    """Case -> its estimate, in the order in which the cases were first met. `first_host`: whose figures are shown, or
    else those of the host with the most runs."""
    host_of = run_log.host_of()
    first_host = first_host or next(iter(run_log.hosts()), "")
    return of_cases(run_log.by_case(), lambda session: host_of.get(session, ""), first_host)


def of_cases(
    cases: dict[Case, list[Run]], host: Callable[[str], str] = lambda session: "", first_host: str = ""
) -> dict[Case, CaseEstimate]:
    """The same of these runs alone; a wrong one keeps its estimate and is not ranked. `host`: of a session."""
    kept = [pair for runs in cases.values() for pair in least_loaded(runs, host).items()]
    kinds = grouped(kept, lambda pair: (pair[0].host, pair[1].threads, modes.find(pair[1].case.mode).runtime))
    runs = []
    for pairs in kinds.values():
        reference, calm = reference_of([run for _, run in pairs])
        of_kind = [RunEstimate(run, key, reference) for key, run in pairs]
        proven = calm and sum(run.valid for run in of_kind) >= VALID_SHARE * len(of_kind)
        for run in of_kind:
            run.valid &= proven
        runs += of_kind
    correct_drift(runs)
    by_case = grouped(sorted(runs, key=lambda run: run.key), lambda run: run.case)
    found = {case: CaseEstimate(by_case.get(case, ()), raw, first_host) for case, raw in cases.items()}
    carry(found, first_host)
    return found


def grouped(things: Iterable, key: Callable) -> dict:
    """Key -> the things that have it, in their order."""
    groups = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return groups


def least_loaded(runs: Iterable[Run], host: Callable[[str], str]) -> dict[Key, Run]:
    """The runs of a case by round; of one that was made again beside busy processes, the calmer."""
    kept: dict[Key, Run] = {}
    for run in runs:
        if run.reference_ms and run.status in MEASURED:
            key = Key(host(run.session), run.session, run.round)
            kept[key] = min((kept.get(key, run), run), key=taken_cpus)
    return kept


def taken_cpus(run: Run) -> float:
    """CPUs that other processes, a quota, and other machines of the hypervisor took meanwhile."""
    return run.busy_cpus + run.stolen_cpus


def is_unloaded(run: Run) -> bool:
    return taken_cpus(run) <= BUSY_CPUS


def reference_of(runs: list[Run]) -> tuple[stats.Reference, bool]:
    """Of a kind of process, from the reference times of runs that were calm; and whether there are any."""
    calm = [run for run in runs if is_unloaded(run)]
    return stats.reference(np.concatenate([run.reference_ms for run in calm or runs])), bool(calm)


def correct_drift(runs: list[RunEstimate]) -> None:
    """Bring every run of the level that its host has in the median when valid: figures stay what users meet.

    Levels become logarithms over that median; log latencies lose slope times level. A disturbed run is not taken for
    slower than the worst valid one, and not at all where there is none: what others take from a network and from
    the reference workload is not alike.
    """
    kinds = grouped(runs, lambda run: run.kind)
    middles = {kind: middle(kind, kinds) for kind in kinds}
    for kind, of_kind in kinds.items():
        (centre, sessions), known = middles[kind], [run.level for run in of_kind if run.valid]
        for run in of_kind:
            level = run.level if run.valid else min(run.level, max(known, default=centre))
            run.level, run.sessions = level - centre if known else 0.0, sessions
    for of_host in grouped(runs, lambda run: run.kind[:2]).values():
        networks, slope = grouped(of_host, lambda run: run.network), slope_of(of_host)
        for alike in networks.values():
            own = slope_of(alike, slope, stats.CLASS_SPREAD)
            for run in alike:
                run.slope, run.log_ms = own, run.log_ms - own * run.level
        common = stats.scatter(by_case(of_host, "log_ms"))
        for alike in networks.values():
            scatter = stats.scatter(by_case(alike, "log_ms"), common)
            for run in alike:
                far = 0 if run.valid else DISTURBED + run.beyond
                run.scatter, run.weight = scatter, scatter.variance / (scatter.variance + far**2)


def levels(runs: list[RunEstimate]) -> list[float]:
    """Of the valid runs, or where there are none of all."""
    return [run.level for run in runs if run.valid] or [run.level for run in runs]


def by_case(runs: list[RunEstimate], field: str) -> list[np.ndarray]:
    """A field of the valid runs, an array a case."""
    cases = grouped((run for run in runs if run.valid), lambda run: run.case)
    return [np.array([getattr(run, field) for run in of_case]) for of_case in cases.values()]


def slope_of(runs: list[RunEstimate], *prior: float) -> float:
    return stats.fitted_slope(by_case(runs, "level"), by_case(runs, "log_ms"), *prior)


def middle(kind: tuple[str, int, str], kinds: dict[tuple, list[RunEstimate]]) -> tuple[float, int]:
    """The median level of a kind of process, and from how many sessions it is. Of a runtime's it is torch's with what
    the runtime reads more, by runs of one model in one round, for the two may have been measured at other hours; its
    own where there are too few."""
    own, torch = kinds[kind], kinds.get((*kind[:2], "torch"), []) if kind[2] != "torch" else []
    beside = grouped((v for v in torch if v.valid), lambda run: (run.key, run.case.group))
    more = [
        run.level - np.mean([other.level for other in beside[run.key, run.case.group]])
        for run in own
        if run.valid and (run.key, run.case.group) in beside
    ]
    runs, offset = (torch, float(np.median(more))) if len(more) >= MIN_PAIRS else (own, 0.0)
    return float(np.median(levels(runs))) + offset, len({run.key.session for run in runs})


def carry(found: dict[Case, CaseEstimate], first_host: str) -> None:
    """Give what `first_host` did not measure its latency there: its baseline over the speedup that another host found,
    or without a baseline the latency there times the ratio of what both hosts measured, in the median. No latency is
    carried over as it is: hosts of one name differ by a factor, and every network by another."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for estimate in found.values():
        for host in estimate.hosts[1:] if estimate.host == first_host else ():
            there = CaseEstimate([run for run in estimate.runs.values() if run.key.host == host])
            ratios[host].append(estimate.met[0] - there.met[0])
    elsewhere = [(case, estimate) for case, estimate in found.items() if estimate and estimate.host != first_host]
    for case, estimate in elsewhere:
        baseline = found.get(msgspec.structs.replace(case, mode=modes.BASELINE), NOTHING)
        ratio = speedup(baseline, estimate)
        if baseline.host == first_host and ratio.pairs:
            pairs = [estimate.runs[key].valid for key in estimate.runs if key in baseline.runs]
            widths = ratio.half_width, 1.96 * HOSTS, baseline.met[1]
            estimate.carried = baseline.met[0] - float(np.log(ratio.ratio)), float(np.linalg.norm(widths))
            estimate.carried_disturbed = baseline.one_sided or not any(pairs)
        elif len(ratios[estimate.host]) >= MIN_PAIRS:
            middle = estimate.met[0] + float(np.median(ratios[estimate.host]))
            estimate.carried = middle, float(np.hypot(estimate.met[1], 1.96 * HOSTS))


class Speedup(NamedTuple):
    """Ratio of the latencies of two cases with its 95 % interval, and the pairs of runs that it is from."""

    ratio: float = NAN
    low: float = NAN
    high: float = NAN
    pairs: int = 0
    half_width: float = NAN  # of the interval, as a logarithm, where both ends are known


def speedup(before: CaseEstimate, after: CaseEstimate) -> Speedup:
    """From runs in the same round of a session, which share what the machine did then, on whatever hosts; where there
    are none, from the estimates. Where one side is only known to be at least so fast, so is an end of the interval."""
    if not before or not after:
        return Speedup()
    both = [(before.runs[key], after.runs[key]) for key in before.runs if key in after.runs]
    valid = [pair for pair in both if all(run.valid for run in pair)]
    both = valid if len(valid) > 1 else both
    if both:
        weights = [2 / (1 / one.weight + 1 / other.weight) for one, other in both]
        variance = float(np.mean([one.scatter.variance + other.scatter.variance for one, other in both]))
        common = stats.Scatter(variance, min(run.scatter.freedom for pair in both for run in pair))
        middle, width = stats.centre([one.log_ms - other.log_ms for one, other in both], weights, common)
        width = float(np.hypot(width, stats.hours(len({one.key.session for one, _ in both}))))
    else:
        middle, width = before.centre[0] - after.centre[0], float(np.hypot(before.half_width, after.half_width))
    low, high = stats.around(float(np.exp(middle)), width)
    low, high = 0.0 if before.one_sided else low, float("inf") if after.one_sided else high
    return Speedup(float(np.exp(middle)), low, high, len(both), width)


def slower(case: CaseEstimate, other: CaseEstimate) -> bool:
    """Whether the interval of the ratio of the two excludes that the first is as fast as the second."""
    return speedup(case, other).low > 1
