"""From a journal's visits to figures: what a visit says, what the rounds say of a case, and what disturbed them."""

import numpy as np

from . import stats
from .cases import Visit
from .journal import Journal

HARDLY_QUIET = 0.05  # of the samples
BUSY_CPUS = 0.1  # of one CPU, used by others
STOLEN_CPUS = 0.05


def session_floors(journal: Journal) -> dict[tuple[int, int], np.ndarray]:
    """(session, threads) -> floors of both yardsticks in ms, (2,)."""
    keys = {(visit.session, visit.case.threads) for visit in journal.visits if visit.readings_ms}
    return {key: stats.floor(*journal.readings(*key)) for key in sorted(keys)}


class Figure:
    """What one visit says of its case."""

    def __init__(self, visit: Visit, floor_ms: np.ndarray):
        samples = np.array(visit.samples_ms)
        mask = stats.quiet(visit.readings_ms, floor_ms)
        self.samples, self.quiet = len(samples), int(mask.sum())
        self.as_met_ms = float(np.median(samples))
        self.quiet_ms = float(np.median(samples[mask])) if self.quiet >= stats.MIN_QUIET else float("nan")


def of_visits(visits: dict[int, Visit], floors: dict) -> dict[tuple[int, int], Figure]:
    """(session, round) -> figure, of the visits that were measured; a wrong one keeps its figure and is not ranked."""
    return {
        (visit.session, number): Figure(visit, floors[visit.session, visit.case.threads])
        for number, visit in sorted(visits.items())
        if visit.readings_ms
    }


def per_round(of: dict[tuple[int, int], Figure]) -> tuple[str, dict[tuple[int, int], float]]:
    """How a case is figured, and its latency in ms by (session, round).

    `quiet` where visits found quiet samples; `as met` where none did; `long` (as met too) where one inference outlasts
    the machine's states.
    """
    if of and np.median([figure.as_met_ms for figure in of.values()]) > stats.LONG_MS:
        return "long", {key: figure.as_met_ms for key, figure in of.items()}
    quiet = {key: figure.quiet_ms for key, figure in of.items() if figure.quiet_ms == figure.quiet_ms}
    return ("quiet", quiet) if quiet else ("as met", {key: figure.as_met_ms for key, figure in of.items()})


def figure(of: dict[tuple[int, int], Figure]) -> tuple[str, float, tuple[float, float]]:
    """How a case is figured, its latency in ms, and the 95 % interval: the geometric mean over visits that found quiet
    samples; the median of what was met otherwise, for the states of the machine are two, and a mean lies between."""
    how, latencies = per_round(of)
    values = [*latencies.values()]
    middle = stats.geometric_mean(values) if how == "quiet" else float(np.median(values))
    return how, middle, stats.interval(values)


def speedup(before: dict[tuple[int, int], Figure], after: dict[tuple[int, int], Figure]) -> tuple[float, float, float]:
    """Ratio of the latencies of two cases, low and high: the geometric mean of the ratios of quiet medians within one
    round of one session; where fewer than two rounds have both, of the two cases' figures, or of medians as met."""
    both = [(before[key], after[key]) for key in sorted(before.keys() & after.keys())]
    if not both:
        return (float("nan"),) * 3
    ratios = [one.quiet_ms / other.quiet_ms for one, other in both]
    ratios = [ratio for ratio in ratios if ratio == ratio]
    if len(ratios) >= 2:
        return stats.geometric_mean(ratios), *stats.interval(ratios)
    (how, one, _), (other_how, other, _) = figure(before), figure(after)
    if how == other_how == "quiet":
        return one / other, float("nan"), float("nan")
    ratios = [one.as_met_ms / other.as_met_ms for one, other in both]
    return float(np.median(ratios)), *stats.interval(ratios)


def warnings(journal: Journal, session: int, visits: list[Visit]) -> dict[str, str]:
    """What disturbed these visits of a session, by kind: the number, what follows from it, and what to do."""
    found, visits = {}, [visit for visit in visits if visit.session == session and visit.readings_ms]
    if not visits:
        return found
    threads = visits[-1].case.threads
    windows = stats.window_floors(*journal.readings(session, threads))
    drift = (windows.max(axis=0) / windows.min(axis=0)).max()
    if drift > stats.QUIET:
        found["drift"] = (
            f"the undisturbed speed moved by a factor of {drift:.2f} within session {session}, so samples from its "
            "slower stretches do not count as quiet; if it goes on, look for heat or a power limit"
        )
    floor = windows.min(axis=0)
    masks = [stats.quiet(visit.readings_ms, floor) for visit in visits if visit.case.threads == threads]
    share = float(np.concatenate(masks).mean())
    if share < HARDLY_QUIET and len(masks) > 1:
        found["quiet"] = (
            f"only {share:.1%} of the samples were quiet, so figures may be as met, which repeat less well; "
            "close what else runs, come back at another hour, or give a larger --budget and more --rounds"
        )
    others, stolen = (float(np.median([getattr(v, name) for v in visits])) for name in ("others_cpus", "stolen_cpus"))
    if others > BUSY_CPUS:
        found["busy"] = (
            f"other processes used {others:.2f} CPUs meanwhile, so most samples are disturbed and a visit takes "
            "longer; stop them, or leave cores to them with --threads"
        )
    if stolen > STOLEN_CPUS:
        found["stolen"] = (
            f"the hypervisor gave {stolen:.2f} CPUs to other machines meanwhile, so most samples are disturbed; "
            "come back at another hour, or take a machine with cores of its own"
        )
    return found


def summary(journal: Journal) -> list[str]:
    """What a reader should know of a journal's sessions before trusting it."""
    found = []
    for session in sorted({visit.session for visit in journal.visits}):
        found += [f"session {session}: {text}" for text in warnings(journal, session, journal.visits).values()]
    floors = session_floors(journal)
    for threads in sorted({threads for _, threads in floors}):
        of_threads = np.array([floor for (_, t), floor in floors.items() if t == threads])
        apart = of_threads.max(axis=0) / of_threads.min(axis=0)
        if (apart > stats.QUIET).any():
            found.append(
                f"sessions with {threads} threads differ in their floors by {apart[0]:.2f} (convolution) and "
                f"{apart[1]:.2f} (GEMM): another host of this kind, or a machine that never was quiet; compare only "
                "within a session"
            )
    return found
