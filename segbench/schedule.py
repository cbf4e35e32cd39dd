"""Which cases are visited in which rounds, what of that is left, and how long it will take."""

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from . import estimates, modes, runtimes
from .cases import MEASURED, Case, Outcome
from .journal import Journal

FIRST_GUESS_S = 5  # of a visit, preparing left out, before any of its kind was seen

Step = tuple[int, Case]  # a round, and whom it visits


@dataclass(frozen=True)
class Plan:
    cases: list[Case]
    rounds: int
    budget_s: float = 2  # of measuring, per visit
    samples_wanted: int = 12  # undisturbed ones, per visit
    repetitions: int = 1
    share: tuple[int, int] = (1, 1)  # (2, 4): of the rounds the 2nd, the 6th, ...
    until: float = 0  # half width that visits leave a case, which further rounds are for; 0: no further rounds
    max_rounds: int = 20  # per case, with the further ones
    emulated: frozenset[str] = frozenset()  # modes that this machine would have to emulate
    skip_emulated: bool = False  # no visit to one of those
    seed: int = 0
    others: frozenset[str] = frozenset()  # sessions of other hosts, whose rounds do not count
    wait_s: float = 0  # that a run may get longer by, for visits that other processes disturbed
    short: bool = False  # where they stay busy for so long, one round has to do
    files: dict[str, str] = field(default_factory=dict)  # what a case calls its weights -> where they lie

    def repetition(self, number: int) -> int:
        """The repetition, from 1, that a round belongs to."""
        return min((number - 1) // self.rounds + 1, self.repetitions)

    def due(self, case: Case, number: int) -> bool:
        """Whether a round visits a case. Only the first does where the mode is emulated, for that is not ranked.
        The usual protocol has one visit per repetition."""
        if case.mode in self.emulated:
            return number == 1
        return case.protocol != "usual" or number % self.rounds == 0

    def counted(self, visits: Iterable[Outcome]) -> list[Outcome]:
        """Those of this host, or of all hosts where their rounds count too."""
        return [visit for visit in visits if visit.session not in self.others]

    def steps(self, visits: Iterable[Outcome]) -> list[Step]:
        """What is left: per round the models in a new order, each with its modes next to each other."""
        visits = self.counted(visits)
        done = {(visit.round, visit.case) for visit in visits if not self.retried(visit)}
        stuck = {visit.case for visit in visits if visit.status == "timeout" and not self.retried(visit)}
        order = []
        part, parts = self.share
        for number in range(part, self.rounds * self.repetitions + 1, parts):
            due = [case for case in self.cases if self.due(case, number)]
            order += [(number, case) for case in shuffled(due, f"{self.seed}/{number}")]
        return [(number, case) for number, case in order if (number, case) not in done and case not in stuck]

    def retried(self, visit: Outcome) -> bool:
        """Whether the same command visits the case again: after a failure, after a timeout under a larger budget."""
        if visit.status == "timeout":
            return visit.budget_s < self.budget_s
        return visit.status not in MEASURED

    def further_steps(self, journal: Journal) -> list[Step]:
        """One more round over the cases whose interval is not yet narrow enough, or what is left of one that was begun.
        The journal holds samples."""
        if not self.until:
            return []
        known = estimates.of_journal(journal, journal.host(journal.session))
        again = [case for case in self.cases if self.due(case, 2) and case.protocol != "usual"]
        seen = {case: known.get(case, estimates.NOTHING) for case in again}
        wide = [case for case in again if self.is_wide(seen[case])]
        number = max((visit.round for visit in self.counted(journal.visits)), default=1)
        rest = [case for case in wide if number not in {visit.round for visit in self.counted(seen[case].raw)}]
        number, wide = (number, rest) if rest else (number + 1, wide)
        return [(number, case) for case in shuffled(wide, f"{self.seed}/{number}")]

    def is_wide(self, estimate: estimates.CaseEstimate) -> bool:
        """Whether a case that never failed has fewer than `max_rounds` visits, and an interval that is too wide."""
        visits = self.counted(estimate.raw)
        if len(visits) >= self.max_rounds or any(visit.status != "ok" for visit in visits):
            return False
        return not estimate or not estimate.centre[1] <= self.until


def shuffled(cases: list[Case], seed: str) -> list[Case]:
    """Models in a random order, the cases of each next to each other."""
    groups = defaultdict(list)
    for case in cases:
        groups[case.group].append(case)
    order, shuffle = list(groups.values()), random.Random(seed)
    shuffle.shuffle(order)
    for group in order:
        shuffle.shuffle(group)
        group.sort(key=lambda case: case.batch_size)  # a small one tells whether a large one fits into memory
    return [case for group in order for case in group]


class Durations:
    """Seconds that visits took, kept as means: per case, and per mode and protocol, with everything to prepare ("cold")
    or not."""

    def __init__(self, visits: Iterable[Outcome] = ()):
        self.totals: dict[tuple, tuple[float, int]] = {}
        self.visited: set[Case] = set()
        for visit in visits:
            self.add(visit)

    def add(self, visit: Outcome) -> None:
        self.visited.add(visit.case)
        if visit.seconds:
            cold = visit.cache == "cold"
            for key in ((visit.case, cold), (visit.case.mode, visit.case.protocol, cold)):
                total, count = self.totals.get(key, (0.0, 0))
                self.totals[key] = total + visit.seconds, count + 1

    def mean(self, case: Case, cold: bool) -> float | None:
        """Of the case, or else of its mode; None where none was seen."""
        for key in ((case, cold), (case.mode, case.protocol, cold)):
            if key in self.totals:
                total, count = self.totals[key]
                return total / count
        return None


def remaining_s(steps: list[Step], here: Durations, elsewhere: Durations) -> float:
    """Seconds that the steps will take, by the visits to this machine or else those to any; the first visit to a case
    may have to prepare what later ones find on disk."""
    total, expected = 0.0, {}
    for _, case in steps:
        if case not in expected:
            mode = modes.MODES[case.mode]
            warm_s, cold_s = runtimes.of_mode(mode).expected_prepare_s(mode)
            expected[case] = here.mean(case, False) or elsewhere.mean(case, False) or FIRST_GUESS_S + warm_s
            if cold_s and case not in here.visited:
                total += here.mean(case, True) or elsewhere.mean(case, True) or FIRST_GUESS_S + cold_s
                continue
        total += expected[case]
    return total


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `1 h 35 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
