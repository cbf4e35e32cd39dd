"""Rounds over all cases: what to visit next, limits, failures, progress. This process never imports torch."""

import os
import random
import statistics
import time
from datetime import UTC, datetime

import msgspec
from tqdm import tqdm

from . import figures, machine, modes, stats, worker
from .cases import Case, Visit
from .journal import Floor, Journal, Session
from .server import Server, ServerDied

# Seconds that a visit is expected to take before any of its kind was seen: (eager, compiled warm, compiled cold).
FIRST_GUESS_S = (5, 10, 40)
RETRIED = ("error", "oom", "skipped")  # by the same command later; a timeout only under a larger budget
WATCHED = 10  # visits of late that a warning looks at


class Plan:
    """Which cases are visited in which rounds, what of that a journal holds, and how long the rest will take."""

    def __init__(
        self,
        cases: list[Case],
        rounds: int,
        native_bf16: bool,
        visits: list[Visit],
        budget_s: float,
        known: list[Visit],
        repetitions: int = 1,
    ):
        """`visits` are those of the journal to go on with, `known` those of any machine, to guess times from."""
        self.cases, self.rounds, self.native_bf16, self.budget_s = cases, rounds, native_bf16, budget_s
        self.visits, self.known, self.repetitions = list(visits), known, repetitions
        self.skip_emulated = False  # no visit to a mode that would emulate BF16

    def repetition(self, number: int) -> int:
        """The repetition, from 1, that a round belongs to."""
        return min((number - 1) // self.rounds + 1, self.repetitions)

    def due(self, case: Case, number: int) -> bool:
        """Whether a round visits a case. Only the first does where BF16 is emulated: 40 to 90 times slower than FP32,
        and no figure to rank by. The usual protocol has one visit per repetition."""
        if modes.MODES[case.mode].autocast and not self.native_bf16:
            return number == 1
        return case.protocol != "usual" or number % self.rounds == 0

    def left(self, seed: int = 0) -> list[tuple[int, Case]]:
        """(round, case) still to visit: per round the models in a new order, each with its modes next to each other."""
        done = {(visit.round, visit.case) for visit in self.visits if not self.retried(visit)}
        stuck = {visit.case for visit in self.visits if visit.status == "timeout" and not self.retried(visit)}
        order = []
        for number in range(1, self.rounds * self.repetitions + 1):
            order += [(number, case) for case in shuffled(self.cases, f"{seed}/{number}") if self.due(case, number)]
        return [(number, case) for number, case in order if (number, case) not in done and case not in stuck]

    def wider(self, journal: Journal, until: float, most: int, seed: int = 0) -> list[tuple[int, Case]]:
        """(round, case) of one further round over the cases whose interval is not yet within a factor of 1 +- `until`
        of the figure and that have fewer than `most` rounds."""
        found, floors = journal.by_case(), figures.session_floors(journal)
        seen = {case: found.get(case, {}) for case in self.cases if self.due(case, 2) and case.protocol != "usual"}
        wide = []
        for case, visits in seen.items():
            good = {number: visit for number, visit in visits.items() if visit.status == "ok"}
            if len(visits) < most and len(good) == len(visits):
                how, latencies = figures.per_round(figures.of_visits(good, floors))
                if how == "scaled" or not stats.half_width([*latencies.values()]) <= until:
                    wide.append(case)
        number = max((visit.round for visit in journal.visits), default=1)
        rest = [case for case in wide if number not in seen[case]]  # of a round that was begun
        number, wide = (number, rest) if rest else (number + 1, wide)
        return [(number, case) for case in shuffled(wide, f"{seed}/{number}")]

    def retried(self, visit: Visit) -> bool:
        return visit.status in RETRIED or (visit.status == "timeout" and visit.budget_s < self.budget_s)

    def expected_s(self, case: Case) -> float:
        """Seconds that the next visit to a case will take: as its last ones, or those of its mode, or a guess."""
        compiles = modes.MODES[case.mode].compile
        cold = compiles and not any(visit.case == case for visit in self.visits)
        guess = FIRST_GUESS_S[compiles + cold]
        for visits in (self.visits, self.known):
            alike = [visit for visit in visits if visit.case.mode == case.mode and visit.seconds]
            alike = [visit for visit in alike if visit.case.protocol == case.protocol]
            alike = [visit for visit in alike if not compiles or (visit.compiled == "cold") == cold]
            same = [visit for visit in alike if visit.case == case]
            if same or alike:
                return statistics.mean(visit.seconds for visit in same or alike)
        return guess

    def remaining_s(self, steps: list[tuple[int, Case]]) -> float:
        """Of a case that is compiled for the first time only the first visit counts in full."""
        first = {case: self.expected_s(case) for case in dict.fromkeys(case for _, case in steps)}
        again = {
            case: min(expected, FIRST_GUESS_S[1]) if modes.MODES[case.mode].compile else expected
            for case, expected in first.items()
        }
        return sum(first.values()) + sum(again[case] for _, case in steps) - sum(again.values())


def shuffled(cases: list[Case], seed: str) -> list[Case]:
    """Models in a random order, the modes of each next to each other."""
    shuffle, groups = random.Random(seed), {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    order = list(groups.values())
    shuffle.shuffle(order)
    for group in order:
        shuffle.shuffle(group)
        group.sort(key=lambda case: case.batch_size)  # a small one tells whether a large one fits into memory
    return [case for group in order for case in group]


def run(journal: Journal, plan: Plan, quiet_wanted: int, seed: int = 0, until: float = 0, most: int = 0) -> None:
    """Visit what is left of the plan and append every visit to the journal; with `until` go on with rounds over the
    cases whose intervals are wider, each for `most` rounds at most.

    A case that failed is not visited again in this run. KeyboardInterrupt stops all processes and is passed on.
    """
    steps = plan.left(seed)
    if not steps and not until:
        return
    server, session, repetition, failed, warned = Server(), 0, 0, set(), set()
    tqdm.monitor_interval = 0  # its thread would wake up beside a measurement
    bar = tqdm(total=len(steps), bar_format="{n_fmt}/{total_fmt} |{bar:20}| {desc}", dynamic_ncols=True)
    last = "starting"
    try:
        while steps or (until and (steps := plan.wider(journal, until, most, seed))):
            bar.total = max(bar.total, bar.n + len(steps))
            number, case = steps[0]
            left = duration(plan.remaining_s(steps))
            bar.set_description_str(f"{case.name} (round {number}) | {last} | {left} left")
            if plan.repetition(number) != repetition:
                server.stop()  # a repetition shares nothing with the one before, and pays for its own start
                session, repetition = begin_session(journal), plan.repetition(number)
            if case not in failed:
                visit = attend(server, journal, session, plan, case, quiet_wanted)
                visit.session, visit.round = session, number
                journal.append(visit)
                plan.visits.append(visit)
                last = brief(visit, journal)
                if visit.status not in ("ok", "wrong"):
                    failed.add(case)
                    tqdm.write(f"{case.name}: {visit.status}, {visit.reason}")
                for kind, warning in figures.warnings(journal, session, plan.visits[-WATCHED:]).items():
                    if (session, kind) not in warned:
                        warned.add((session, kind))
                        tqdm.write(f"Warning: {warning}")
            steps = steps[1:]
            bar.update()
    finally:
        bar.close()
        server.stop()


def begin_session(journal: Journal) -> int:
    number = len(journal.sessions) + 1
    load, _, _ = os.getloadavg()
    journal.append(Session(number=number, started=now(), boot_id=machine.boot_id(), commit=machine.commit(), load=load))
    return number


def attend(server: Server, journal: Journal, session: int, plan: Plan, case: Case, quiet_wanted: int) -> Visit:
    """One visit, whatever becomes of it."""
    started, clock = now(), time.perf_counter()
    mode = modes.MODES[case.mode]
    missing = machine.missing_compiler() if mode.compile else ""
    if mode.autocast and not plan.native_bf16 and plan.skip_emulated:
        missing = "no native BF16 here, 40 to 90 times slower than FP32; --modes names what to measure nevertheless"
    if missing:
        return Visit(case=case, status="skipped", reason=missing, started=started)
    if reason := too_large(case, plan.visits):
        return Visit(case=case, status="skipped", reason=reason, started=started)
    usual = case.protocol == "usual"
    try:
        if usual:
            server, floor_ms = Server(), (0, 0)  # that protocol pays for the imports of a process of its own
        else:
            floor_ms = floors(server, journal, session, plan, case.threads)
        started, clock = now(), time.perf_counter()
        order = worker.Order(case.threads, case, floor_ms, quiet_wanted, plan.budget_s)
        visit = server.run(order).visit
    except ServerDied as death:
        server.stop()
        visit = Visit(
            case=case, status="error", reason=f"the process that starts workers died: {death}", budget_s=plan.budget_s
        )
    finally:
        if usual:
            server.stop()
    visit.started, visit.seconds = started, round(time.perf_counter() - clock, 3)
    visit.phases_s = {name: round(seconds, 4) for name, seconds in visit.phases_s.items()}
    return visit


def too_large(case: Case, visits: list[Visit]) -> str:
    """Why a batch will not fit into memory, by what smaller ones took; "" where it will, or nothing is known.

    Three times what one inference takes: the allocator is given room for two, and the check holds the output of one.
    """
    smaller = [
        visit.memory_mb / visit.case.batch_size
        for visit in visits
        if visit.memory_mb
        and visit.case.batch_size < case.batch_size
        and msgspec.structs.replace(visit.case, batch_size=case.batch_size) == case
    ]
    if not smaller:
        return ""
    needed, free = 3 * max(smaller) * case.batch_size / 1e3, machine.free_gb()
    return f"needs about {needed:.1f} GB of memory, {free:.1f} GB are free" if needed > free else ""


def floors(server: Server, journal: Journal, session: int, plan: Plan, threads: int) -> tuple[float, float]:
    """The session's floors for that many threads by all readings up to now; found first where there are none yet."""
    if not any(floor.session == session and floor.threads == threads for floor in journal.floors):
        started, clock = now(), time.perf_counter()
        found = server.run(worker.Order(threads, budget_s=plan.budget_s, native_bf16=plan.native_bf16))
        if not isinstance(found, worker.Floors):
            raise ServerDied(f"finding the floors failed: {found.visit.reason}")
        journal.append(
            Floor(
                session=session,
                threads=threads,
                started=started,
                readings_ms=found.readings_ms,
                peak_gflops=found.peak_gflops,
                seconds=round(time.perf_counter() - clock, 3),
            )
        )
    return tuple(stats.floor(*journal.readings(session, threads)).tolist())


def brief(visit: Visit, journal: Journal) -> str:
    """The last figure, for the progress bar."""
    if not visit.samples_ms:
        return visit.status
    if not visit.readings_ms:
        return f"last {visit.case.batch_size / statistics.mean(visit.samples_ms) * 1e3:.3g} img/s"
    mask = stats.quiet(visit.readings_ms, stats.floor(*journal.readings(visit.session, visit.case.threads)))
    kept = [value for value, keep in zip(visit.samples_ms, mask, strict=True) if keep] or visit.samples_ms
    rate = visit.case.batch_size / statistics.median(kept) * 1e3
    return f"last {rate:.3g} img/s, {mask.mean():.0%} quiet"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `1 h 35 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
