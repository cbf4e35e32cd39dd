"""Which cases are measured in which rounds, what of that is left, and how long it will take."""

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ..analysis import estimates
from ..cases import MEASURED, Case
from ..records import Run
from ..run_log import RunLog
from ..settings import Settings, percent, shard

FIRST_GUESS_S = 5  # of a run, before any was seen

Step = tuple[int, Case]  # round and case


@dataclass(frozen=True)
class Plan:
    cases: list[Case]
    settings: Settings
    others: frozenset[str] = frozenset()  # sessions of other hosts, whose rounds do not count

    def repetition(self, number: int) -> int:
        """The repetition, from 1, that a round belongs to."""
        return min((number - 1) // self.settings.rounds + 1, self.settings.repetitions)

    def counted(self, runs: Iterable[Run]) -> list[Run]:
        """Those of this host, or of all hosts where their rounds count too."""
        return [run for run in runs if run.session not in self.others]

    def steps(self, runs: Iterable[Run]) -> list[Step]:
        """What is left: per round the models in a new order, the modes of each network next to each other."""
        runs, settings = self.counted(runs), self.settings
        done = {(run.round, run.case) for run in runs if not self.retried(run)}
        stuck = {run.case for run in runs if run.status == "timeout" and not self.retried(run)}
        order = []
        part, parts = shard(settings.shard)
        for number in range(part, settings.rounds * settings.repetitions + 1, parts):
            ends_repetition = number % settings.rounds == 0  # the fixed-iteration protocol has one run per repetition
            due = [case for case in self.cases if ends_repetition or case.protocol != "fixed-iteration"]
            order += [(number, case) for case in shuffled(due, f"{settings.seed}/{number}")]
        return [(number, case) for number, case in order if (number, case) not in done and case not in stuck]

    def retried(self, run: Run) -> bool:
        """Whether the same command runs the case again: after a failure, after a timeout under a larger budget."""
        if run.status == "timeout":
            return run.budget_s < self.settings.budget
        return run.status not in MEASURED

    def further_steps(self, run_log: RunLog) -> list[Step]:
        """One more round over the cases whose interval is still too wide, or the rest of a round that was begun."""
        if not self.settings.until:
            return []
        known = estimates.of_run_log(run_log, run_log.host_of().get(run_log.session, ""))
        candidates = [case for case in self.cases if case.protocol != "fixed-iteration"]
        estimate_of = {case: known.get(case, estimates.NOTHING) for case in candidates}
        wide = [case for case in candidates if self.is_wide(estimate_of[case])]
        number = max((run.round for run in self.counted(run_log.runs)), default=1)
        rest = [case for case in wide if number not in {run.round for run in self.counted(estimate_of[case].raw)}]
        number, wide = (number, rest) if rest else (number + 1, wide)
        return [(number, case) for case in shuffled(wide, f"{self.settings.seed}/{number}")]

    def is_wide(self, estimate: estimates.CaseEstimate) -> bool:
        """Whether a case that never failed has fewer than `max_rounds` runs, and an interval that is too wide."""
        runs = self.counted(estimate.raw)
        if len(runs) >= self.settings.max_rounds or any(run.status != "ok" for run in runs):
            return False
        return not estimate or not estimate.log_latency[1] <= percent(self.settings.until)


def shuffled(cases: list[Case], seed: str) -> list[Case]:
    """Models in a random order, of each its networks, and of each network its modes."""
    groups = defaultdict(list)
    for case in cases:
        groups[case.group].append(case)
    order, shuffle = list(groups.values()), random.Random(seed)
    shuffle.shuffle(order)
    for group in order:
        shuffle.shuffle(group)
        networks = [*dict.fromkeys(case.network for case in group)]
        # Small batches first, which show whether large ones fit into memory.
        group.sort(key=lambda case: (case.batch_size, networks.index(case.network)))
    return [case for group in order for case in group]


def about(count: int, runs: list[Run]) -> str:
    """How long so many runs will take, by the mean of earlier ones."""
    seconds = [run.seconds for run in runs if run.seconds] or [FIRST_GUESS_S]
    return duration(count * sum(seconds) / len(seconds))


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `1 h 35 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
