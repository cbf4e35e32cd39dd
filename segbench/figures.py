"""From a journal's visits to figures: what a visit says, what the rounds say of a case, and what disturbed them."""

from collections.abc import Iterable

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

    def __init__(self, visit: Visit, floor_ms: np.ndarray, long: bool = False):
        """`long`: the case's inferences outlast the machine's states, so that its fastest sample is its figure."""
        samples = np.array(visit.samples_ms)
        self.long, self.samples = long, len(samples)
        self.quiet = samples[stats.quiet(visit.readings_ms, floor_ms)]  # latencies in ms of the quiet samples
        self.lost, self.scaled = stats.scaled(samples, visit.readings_ms, floor_ms)
        self.as_met_ms = float(np.median(samples))
        self.fastest_ms = float(samples.min())
        self.quiet_ms = float(np.median(self.quiet)) if len(self.quiet) else float("nan")
        self.scaled_ms = stats.calmest(self.lost, self.scaled)
        if long:
            self.quiet_ms = self.scaled_ms = self.fastest_ms


Figures = dict[tuple[int, int], Figure]  # by (session, round)


def of_visits(visits: dict[int, Visit], floors: dict) -> Figures:
    """Those of one case's visits that were measured; a wrong one keeps its figure and is not ranked."""
    seen = {number: visit for number, visit in sorted(visits.items()) if visit.readings_ms}
    # By the fastest sample of all: beside a busy neighbour the whole visit of a short inference may look long.
    long = min((min(visit.samples_ms) for visit in seen.values()), default=0) > stats.LONG_MS
    return {
        (visit.session, number): Figure(visit, floors[visit.session, visit.case.threads], long)
        for number, visit in seen.items()
    }


def is_long(of: Figures) -> bool:
    return any(figure.long for figure in of.values())


def fastest_ms(of: Figures) -> float:
    """The fastest sample of all visits."""
    return min(figure.fastest_ms for figure in of.values())


def quiet_ms(of: Figures) -> float:
    """Median of the quiet samples of all visits, for long inferences `fastest_ms`; NaN where there are too few."""
    if is_long(of):
        return fastest_ms(of)
    samples = np.concatenate([figure.quiet for figure in of.values()]) if of else np.array([])
    return float(np.median(samples)) if len(samples) >= stats.MIN_QUIET else float("nan")


def scaled_ms(of: Figures) -> float:
    """Of the samples of all visits that came nearest to quiet, scaled by what the yardsticks lost beside them; for long
    inferences `fastest_ms`."""
    if is_long(of):
        return fastest_ms(of)
    lost, scaled = (np.concatenate([getattr(one, name) for one in of.values()]) for name in ("lost", "scaled"))
    return stats.calmest(lost, scaled)


def per_round(of: Figures) -> tuple[str, dict[tuple[int, int], float]]:
    """How a case is figured, and its latency in ms by (session, round): `fastest` for long inferences, else `quiet`
    where its visits found quiet samples and `scaled` where they did not."""
    if is_long(of):
        return "fastest", {key: figure.fastest_ms for key, figure in of.items()}
    if np.isnan(quiet_ms(of)):
        return "scaled", {key: figure.scaled_ms for key, figure in of.items()}
    return "quiet", {key: figure.quiet_ms for key, figure in of.items() if len(figure.quiet)}


def figure(of: Figures) -> tuple[str, float, tuple[float, float]]:
    """How a case is figured, its latency in ms, and the 95 % interval of what another session would find: over rounds,
    never over the samples of one process, and with what sessions differ by beyond that. Of long inferences it lies
    around the fastest sample of all, so a single further visit is more likely above it than below."""
    how, latencies = per_round(of)
    middle = scaled_ms(of) if how == "scaled" else quiet_ms(of)
    width = np.hypot(stats.half_width([*latencies.values()]), stats.normal_width(stats.DRIFT))
    return how, middle, stats.around(middle, width)


def speedup(before: Figures, after: Figures) -> tuple[float, float, float]:
    """Ratio of the latencies of two cases with its 95 % interval: of their figures within one session, the geometric
    mean over the sessions, of those with quiet samples where there are such. The interval is over rounds that both
    share, so what changes between sessions is not in it."""
    both = sorted(before.keys() & after.keys())
    if not both:
        return (float("nan"),) * 3
    pairs = [(of_session(before, number), of_session(after, number)) for number in dict.fromkeys(k[0] for k in both)]
    sessions = present(quiet_ms(one) / quiet_ms(other) for one, other in pairs)
    middle = stats.geometric_mean(sessions or [scaled_ms(one) / scaled_ms(other) for one, other in pairs])
    ratios = present(before[key].quiet_ms / after[key].quiet_ms for key in both)
    if len(ratios) < 2:
        ratios = [before[key].scaled_ms / after[key].scaled_ms for key in both]
    return middle, *stats.around(middle, stats.half_width(ratios))


def present(values: Iterable[float]) -> list[float]:
    return [value for value in values if value == value]


def of_session(of: Figures, session: int) -> Figures:
    return {key: figure for key, figure in of.items() if key[0] == session}


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
            f"only {share:.1%} of the samples were quiet, so figures may be `scaled`, which repeat less well; "
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
