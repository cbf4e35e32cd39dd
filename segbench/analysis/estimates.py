"""From runs to estimates: the latency of a case by one run, and by all of its runs. The rule is explained in
benchmarks/repeatability/README.md."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .. import modes
from ..cases import BUSY_CPUS, MEASURED, Case
from ..records import Run
from ..run_log import RunLog
from . import stats

NAN = float("nan")
DISTURBED = 0.05  # what a run without valid samples may be wrong by, beside how far outside they were (logs)
NOISY = 0.15  # half width of an interval from which on a figure is called noisy
# With fewer valid runs of a kind of process, its reference may stem from a disturbed time too.
VALID_SHARE = 0.1
MIN_PAIRS = 3  # fewest pairs of runs from which the reference times of two runtimes, or two hosts, are compared
# Standard deviation of the ratio of two hosts with one kind of CPU, over networks (46 encoders on two hosts of
# intel-6.167-2c: ratio 1.51 in the median, 1.28 to 1.96).
HOSTS = 0.08


class Key(NamedTuple):
    """What runs of several cases share: a round of a session on a host."""

    host: str
    session: str
    round: int


class RunEstimate:
    """The median of a run's valid samples, and the mean time of the reference convolution beside them. Where too few
    samples are valid, the nearest to valid are used."""

    def __init__(self, run: Run, key: Key, reference: stats.Reference):
        self.case, self.key, self.reference, self.kind = run.case, key, reference, kind_of_process(key.host, run.case)
        self.samples_ms, self.reference_ms = np.array(run.samples_ms), np.array(run.reference_ms)
        self.valid_samples = stats.valid_samples(self.reference_ms, reference.bound_ms)
        logs = np.log(self.reference_ms)
        excess = np.maximum(np.maximum(logs[1:], logs[:-1]) - np.log(reference.bound_ms), 0).max(axis=1)
        enough = int(self.valid_samples.sum()) >= min(stats.MIN_SAMPLES, len(self.samples_ms))
        chosen = self.valid_samples if enough else np.argsort(excess, kind="stable")[: stats.MIN_SAMPLES]
        self.valid, self.unloaded = enough, taken_cpus(run) <= BUSY_CPUS
        self.uncorrected_log_ms = self.log_ms = float(np.median(np.log(self.samples_ms[chosen])))
        self.level = float(np.mean((logs[1:, 0] + logs[:-1, 0])[chosen]) / 2)
        self.excess = float(np.mean(excess[chosen]))  # log of the reference times over their bound
        self.all_samples_ms = float(np.median(self.samples_ms))
        # `correct_drift` sets these from all runs of the host, and corrects `level` and `log_ms`.
        self.slope, self.weight, self.scatter = 0.0, 1.0, stats.Scatter()
        self.sessions = 1  # from which the median level of the host is known

    @property
    def network(self) -> tuple[str, int, str, str]:
        """Runs that share it follow the reference workload alike, and scatter alike."""
        return *self.kind, "3D" if len(self.case.size) == 3 else "decoder" if self.case.decoder else ""


class CaseEstimate:
    """The latency of one case by all of its runs; false where none was measured."""

    def __init__(self, runs: Iterable[RunEstimate] = (), raw: Iterable[Run] = (), first_host: str = ""):
        """`raw`: runs that failed too; `first_host`: whose figures are shown where it measured the case."""
        self.runs, self.raw = {run.key: run for run in runs}, [*raw]
        counts, self.first_host = Counter(key.host for key in self.runs), first_host
        self.hosts = sorted(counts, key=lambda host: (host != first_host, -counts[host], host))
        self.host = self.hosts[0] if self.hosts else ""  # the one whose runs give the latency
        self.host_runs = [run for key, run in self.runs.items() if key.host == self.host]
        valid = [run for run in self.host_runs if run.valid]
        self.counted = valid if len(valid) > 1 else self.host_runs
        # `carry_over` sets these: the estimate for `first_host`, and whether what it is from was disturbed.
        self.carried: tuple[float, float] | None = None
        self.carried_disturbed = False

    def __bool__(self) -> bool:
        return bool(self.runs)

    def only(self, keep: Callable[[str, int], bool]) -> "CaseEstimate":
        """From the runs whose session and round `keep` accepts; the drift correction stays that of all runs."""
        runs = [run for key, run in self.runs.items() if keep(key.session, key.round)]
        return CaseEstimate(runs, [run for run in self.raw if keep(run.session, run.round)], self.host)

    @property
    def samples(self) -> int:
        """Number of valid samples behind the estimate."""
        return sum(int(run.valid_samples.sum()) for run in self.counted)

    @property
    def valid_share(self) -> float:
        """Share of the samples that are valid."""
        return float(np.concatenate([run.valid_samples for run in self.runs.values()]).mean()) if self else NAN

    @cached_property
    def measured(self) -> tuple[float, float]:
        """Log latency on the host that measured it, and half of its 95 % interval; sessions' differences left out."""
        logs, weights = [run.log_ms for run in self.counted], [run.weight for run in self.counted]
        return stats.agreeing_mean(logs, weights, self.counted[0].scatter)

    @property
    def log_latency(self) -> tuple[float, float]:
        """The same for the host whose figures are shown."""
        return self.carried or self.measured

    @property
    def latency_ms(self) -> float:
        return float(np.exp(self.log_latency[0])) if self else NAN

    @property
    def all_samples_ms(self) -> float:
        """From all samples, valid or not."""
        medians = [run.all_samples_ms for run in self.host_runs]
        return float(np.median(medians) * np.exp(self.log_latency[0] - self.measured[0])) if self else NAN

    @property
    def sessions(self) -> int:
        return len({run.key.session for run in self.counted})

    @property
    def half_width(self) -> float:
        """Of the 95 % interval for the result of another session, as a logarithm."""
        run = self.counted[0]
        level = 1.96 * run.slope * stats.LEVEL / np.sqrt(run.sessions)
        return float(np.linalg.norm((self.log_latency[1], stats.session_half_width(self.sessions), level)))

    @property
    def half_width_on_host(self) -> float:
        """The same for comparisons with other cases of the host in the same sessions, which share its level."""
        return float(np.hypot(self.log_latency[1], stats.BETWEEN_95 / np.sqrt(self.sessions))) if self else NAN

    @property
    def one_sided(self) -> bool:
        """Whether every run was disturbed: then the network is at least as fast as this."""
        return bool(self) and (self.carried_disturbed or not any(run.valid and run.unloaded for run in self.counted))

    @property
    def interval_ms(self) -> tuple[float, float]:
        """95 % interval for the result of another session; from 0 where it is one-sided."""
        if not self:
            return NAN, NAN
        low, high = stats.interval_around(self.latency_ms, self.half_width)
        return 0.0 if self.one_sided else low, high

    @property
    def quality(self) -> str:
        """`at least`, `noisy`, or "" for a good estimate."""
        if not self:
            return ""
        return "at least" if self.one_sided else "noisy" if np.expm1(self.half_width) > NOISY else ""


NOTHING = CaseEstimate()


def of_run_log(run_log: RunLog, first_host: str = "") -> dict[Case, CaseEstimate]:
    """Case -> its estimate, in the run log's order. Figures of `first_host` are shown, by default those of the host
    with the most runs."""
    host_of = run_log.host_of()
    first_host = first_host or next(iter(run_log.hosts()), "")
    return of_cases(run_log.by_case(), lambda session: host_of.get(session, ""), first_host)


def of_cases(
    cases: dict[Case, list[Run]], host: Callable[[str], str] = lambda session: "", first_host: str = ""
) -> dict[Case, CaseEstimate]:
    """The same from these runs alone. `host`: session -> host."""
    keyed_runs = [pair for runs in cases.values() for pair in least_loaded(runs, host).items()]
    runs = []
    for pairs in grouped(keyed_runs, lambda pair: kind_of_process(pair[0].host, pair[1].case)).values():
        runs_of_kind = [run for _, run in pairs]
        unloaded = [run for run in runs_of_kind if taken_cpus(run) <= BUSY_CPUS]
        reference = stats.reference(np.concatenate([run.reference_ms for run in unloaded or runs_of_kind]))
        of_kind = [RunEstimate(run, key, reference) for key, run in pairs]
        trusted = bool(unloaded) and sum(run.valid for run in of_kind) >= VALID_SHARE * len(of_kind)
        for run in of_kind:
            run.valid &= trusted
        runs += of_kind
    correct_drift(runs)
    runs_of = grouped(sorted(runs, key=lambda run: run.key), lambda run: run.case)
    estimates = {case: CaseEstimate(runs_of.get(case, ()), raw, first_host) for case, raw in cases.items()}
    carry_over(estimates, first_host)
    return estimates


def grouped(things: Iterable, key: Callable) -> dict:
    """Key -> the things that have it, in their order."""
    groups = defaultdict(list)
    for thing in things:
        groups[key(thing)].append(thing)
    return groups


def least_loaded(runs: Iterable[Run], host: Callable[[str], str]) -> dict[Key, Run]:
    """The measured runs of a case by round; where a round was measured again, the run with less load beside it."""
    chosen: dict[Key, Run] = {}
    for run in runs:
        if run.reference_ms and run.status in MEASURED:
            key = Key(host(run.session), run.session, run.round)
            chosen[key] = min((chosen.get(key, run), run), key=taken_cpus)
    return chosen


def taken_cpus(run: Run) -> float:
    """CPUs that other processes, a quota and other virtual machines took during a run."""
    return run.busy_cpus + run.stolen_cpus


def kind_of_process(host: str, case: Case) -> tuple[str, int, str]:
    """Host, threads, and what else changes reference times: a runtime's idle threads, an allocator."""
    return host, case.threads, modes.process(case.mode)


def correct_drift(runs: list[RunEstimate]) -> None:
    """Bring every run to the median level of its host's valid runs, so that figures stay what users see.

    Levels become logarithms over that median; slope times level is taken off log latencies. A disturbed run counts as
    no slower than the worst valid one, and is not corrected where none is valid: load does not slow a network and the
    reference workload alike.
    """
    kinds = grouped(runs, lambda run: run.kind)
    medians = {kind: median_level(kind, kinds) for kind in kinds}
    for kind, of_kind in kinds.items():
        (median, sessions), valid_levels = medians[kind], [run.level for run in of_kind if run.valid]
        for run in of_kind:
            level = run.level if run.valid else min(run.level, max(valid_levels, default=median))
            run.level, run.sessions = level - median if valid_levels else 0.0, sessions
    for of_host in grouped(runs, lambda run: run.kind[:2]).values():
        networks, slope = grouped(of_host, lambda run: run.network), slope_of(of_host)
        for alike in networks.values():
            network_slope = slope_of(alike, slope, stats.CLASS_SPREAD)
            for run in alike:
                run.slope, run.log_ms = network_slope, run.log_ms - network_slope * run.level
        common = stats.scatter(by_case(of_host, "log_ms"))
        for alike in networks.values():
            scatter = stats.scatter(by_case(alike, "log_ms"), common)
            for run in alike:
                error = 0 if run.valid else DISTURBED + run.excess
                run.scatter, run.weight = scatter, scatter.variance / (scatter.variance + error**2)


def by_case(runs: list[RunEstimate], field: str) -> list[np.ndarray]:
    """A field of the valid runs, an array a case."""
    cases = grouped((run for run in runs if run.valid), lambda run: run.case)
    return [np.array([getattr(run, field) for run in of_case]) for of_case in cases.values()]


def slope_of(runs: list[RunEstimate], *prior: float) -> float:
    return stats.fitted_slope(by_case(runs, "level"), by_case(runs, "log_ms"), *prior)


def median_level(kind: tuple[str, int, str], kinds: dict[tuple, list[RunEstimate]]) -> tuple[float, int]:
    """The median level of a kind of process, and the number of sessions that it is from.

    Another one's is that of torch, with the allocator that most of its runs had, plus the median difference of their
    levels by runs of one model in one round, for the two may have been measured at other hours; with too few such pairs
    it is its own.
    """
    of_torch = [other for other in kinds if other[:2] == kind[:2] and other[2].split("+")[0] == "torch"]
    torch = max(of_torch, key=lambda other: len(kinds[other]), default=kind)
    runs, torch_runs = kinds[kind], kinds[torch] if torch != kind else []
    torch_beside = grouped((run for run in torch_runs if run.valid), lambda run: (run.key, run.case.group))
    offset, differences = 0.0, []
    for run in runs:
        pairs = torch_beside.get((run.key, run.case.group))
        if run.valid and pairs:
            differences.append(run.level - np.mean([other.level for other in pairs]))
    if len(differences) >= MIN_PAIRS:
        runs, offset = torch_runs, float(np.median(differences))
    levels = [run.level for run in runs if run.valid] or [run.level for run in runs]
    return float(np.median(levels)) + offset, len({run.key.session for run in runs})


def carry_over(estimates: dict[Case, CaseEstimate], first_host: str) -> None:
    """Give cases that `first_host` did not measure an estimate for it: its baseline over the speedup on another host,
    or without a baseline the other host's latency times the median ratio of what both measured. A latency is never
    copied: hosts of one kind differ by a factor, and every network by another."""
    ratios: dict[str, list[float]] = defaultdict(list)
    for estimate in estimates.values():
        for host in estimate.hosts[1:] if estimate.host == first_host else ():
            there = CaseEstimate([run for run in estimate.runs.values() if run.key.host == host])
            ratios[host].append(estimate.measured[0] - there.measured[0])
    elsewhere = [(case, estimate) for case, estimate in estimates.items() if estimate and estimate.host != first_host]
    for case, estimate in elsewhere:
        baselines = [estimates.get(case.under(mode), NOTHING) for mode in modes.BASELINES]
        ratio, baseline = max(
            ((speedup(baseline, estimate), baseline) for baseline in baselines if baseline.host == first_host),
            key=lambda pair: pair[0].pairs,
            default=(Speedup(), NOTHING),
        )
        if ratio.pairs:
            pairs_valid = [run.valid for key, run in estimate.runs.items() if key in baseline.runs]
            widths = ratio.half_width, 1.96 * HOSTS, baseline.measured[1]
            estimate.carried = baseline.measured[0] - float(np.log(ratio.ratio)), float(np.linalg.norm(widths))
            estimate.carried_disturbed = baseline.one_sided or not any(pairs_valid)
        elif len(ratios[estimate.host]) >= MIN_PAIRS:
            log_ms = estimate.measured[0] + float(np.median(ratios[estimate.host]))
            estimate.carried = log_ms, float(np.hypot(estimate.measured[1], 1.96 * HOSTS))


class Speedup(NamedTuple):
    """Ratio of the latencies of two cases with its 95 % interval; the pairs of runs in one round, and how many of these
    were undisturbed: where two or more were, the ratio is from those."""

    ratio: float = NAN
    low: float = NAN
    high: float = NAN
    pairs: int = 0
    valid_pairs: int = 0
    half_width: float = NAN  # of the interval, as a logarithm, as if both ends were known


def speedup(before: CaseEstimate, after: CaseEstimate) -> Speedup:
    """From pairs of runs in one round of a session, which share the machine's state, on whatever hosts; where there are
    none, from the two estimates. A one-sided estimate leaves one end of the interval open."""
    if not before or not after:
        return Speedup()
    pairs = [(run, after.runs[key]) for key, run in before.runs.items() if key in after.runs]
    valid = [(first, second) for first, second in pairs if first.valid and second.valid]
    if pairs:
        used = valid if len(valid) > 1 else pairs
        logs = [first.log_ms - second.log_ms for first, second in used]
        weights = [2 / (1 / first.weight + 1 / second.weight) for first, second in used]
        variance = float(np.mean([first.scatter.variance + second.scatter.variance for first, second in used]))
        common = stats.Scatter(variance, min(run.scatter.freedom for pair in used for run in pair))
        log_ratio, width = stats.agreeing_mean(logs, weights, common)
        sessions = len({first.key.session for first, _ in used})
        width = float(np.hypot(width, stats.session_half_width(sessions)))
    else:
        log_ratio = before.log_latency[0] - after.log_latency[0]
        width = float(np.hypot(before.half_width, after.half_width))
    ratio = float(np.exp(log_ratio))
    low, high = stats.interval_around(ratio, width)
    low, high = 0.0 if before.one_sided else low, float("inf") if after.one_sided else high
    return Speedup(ratio, low, high, len(pairs), len(valid), width)
