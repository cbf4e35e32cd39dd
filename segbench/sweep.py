"""Rounds over all cases: visits, limits, failures, progress. This process never imports torch."""

import os
import statistics
import time
from datetime import UTC, datetime

import msgspec
from tqdm import tqdm

from . import health, machine, modes, references, runtimes, stats
from .cases import MEASURED, Case, Floor, Outcome, Visit
from .journal import Header, Journal
from .messages import Floors, Order
from .schedule import Durations, Plan, duration, remaining_s
from .server import Server, ServerDied, left_out

WATCHED = 10  # visits of late that a warning looks at


class Sweep:
    """One run of a script: the visits that its plan still has to make, each appended to the journal."""

    def __init__(self, journal: Journal, plan: Plan, header: Header, elsewhere: Durations):
        """`header`: of the sessions that are begun; `elsewhere`: what visits took on any machine."""
        self.journal, self.plan, self.header, self.elsewhere = journal, plan, header, elsewhere
        counted = plan.counted(journal.visits)
        self.here = Durations(counted)
        self.repetition = 0
        self.servers: dict[tuple, Server] = {}  # by what their processes need set
        self.readings: dict[int, stats.Readings] = {}  # of this session, by number of threads
        self.latest: list[Visit] = []  # of this session
        self.failed: set[Case] = set()  # not visited again in this run
        self.skips = {(v.case, v.round, v.reason) for v in counted if v.status == "skipped"}  # said already
        self.warned: set[str] = set()
        self.progress = "no estimate yet"

    def run(self) -> None:
        """KeyboardInterrupt stops all processes and is passed on."""
        steps = self.plan.steps(self.journal.visits)
        if not steps and not self.plan.until:
            return
        if names := left_out():
            print(f"Not passed on to what is measured: {', '.join(names)}")
        if (cache := machine.cache_folder()).parent != (wanted := machine.wanted_cache()):
            print(f"Compiled code is kept in {cache}: {wanted} is relative, cannot be written to, or has a space in it")
        tqdm.monitor_interval = 0  # its thread would wake up beside a measurement
        bar = tqdm(total=len(steps), bar_format="{n_fmt}/{total_fmt} |{bar:20}| {desc}", dynamic_ncols=True)
        try:
            while steps := steps or self.plan.further_steps(self.journal):
                bar.total = max(bar.total, bar.n + len(steps))
                left = duration(remaining_s(steps, self.here, self.elsewhere))
                (number, case), *steps = steps
                bar.set_description_str(f"round {number}, {case.name} ... | {self.progress} | {left} left")
                self.take(number, case)
                bar.update()
        finally:
            bar.close()
            self.stop_servers()

    def take(self, number: int, case: Case) -> None:
        """One step: a visit, unless the case failed before, and what is said of it."""
        if case in self.failed:
            return
        reason = self.why_skipped(case)
        if (case, number, reason) in self.skips:
            self.give_up(case, "skipped", reason)
            return
        if self.plan.repetition(number) != self.repetition:
            self.begin_session(self.plan.repetition(number))
        skipped = Visit(case=case, status="skipped", reason=reason, started=now())
        visit = skipped if reason else self.visit_case(case)
        visit.round = number
        self.journal.append(visit)
        self.here.add(visit)
        self.progress = self.last_estimate(visit)
        if visit.readings_ms:
            self.readings[case.threads].add(health.seconds_since_epoch(visit.started), visit.readings_ms)
            self.latest = [*self.latest, visit][-WATCHED:]
        if visit.status not in MEASURED:
            self.give_up(case, visit.status, visit.reason)
        self.warn(case.threads)

    def give_up(self, case: Case, status: str, reason: str) -> None:
        self.failed.add(case)
        tqdm.write(f"{case.name}: {status}, {reason}")

    def begin_session(self, repetition: int) -> None:
        """A repetition shares nothing with the one before, and pays for its own start."""
        self.stop_servers()
        self.repetition, self.readings, self.latest, self.warned = repetition, {}, [], set()
        load, _, _ = os.getloadavg()
        about = {"started": now(), "commit": machine.commit(), "load": load}
        self.journal.begin(msgspec.structs.replace(self.header, **about))

    def visit_case(self, case: Case) -> Visit:
        """One visit, whatever becomes of it."""
        started, clock = now(), time.perf_counter()
        usual = case.protocol == "usual"
        server = self.server(case)
        try:
            if usual:
                server, bound_ms = Server(server.environment), (0, 0)  # that protocol pays for its own imports
            else:
                bound_ms = self.reference(server, case.threads).bound_ms
            started, clock = now(), time.perf_counter()
            order = Order(case.threads, case, bound_ms, self.plan.samples_wanted, self.plan.budget_s)
            order.source = self.plan.files.get(case.weights, "")
            visit = server.run(order).visit
        except ServerDied as death:
            server.stop()
            reason = f"the process that starts workers died: {death}"
            visit = Visit(case=case, status="error", reason=reason, budget_s=self.plan.budget_s)
        finally:
            if usual:
                server.stop()
        visit.started, visit.seconds = started, round(time.perf_counter() - clock, 3)
        visit.phases_s = {name: round(seconds, 4) for name, seconds in visit.phases_s.items()}
        return visit

    def why_skipped(self, case: Case) -> str:
        mode = modes.MODES[case.mode]
        if self.plan.skip_emulated and case.mode in self.plan.emulated:
            return "no native BF16 here, 40 to 90 times slower than FP32; --modes names what to measure nevertheless"
        return runtimes.of_mode(mode).missing(mode, case, self.header.machine) or too_large(case, self.journal.visits)

    def server(self, case: Case) -> Server:
        """That of the environment which the case's runtime needs."""
        environment = runtimes.of_mode(modes.MODES[case.mode]).environment(case.threads)
        key = tuple(sorted(environment.items()))
        if key not in self.servers:
            self.servers[key] = Server(environment)
        return self.servers[key]

    def stop_servers(self) -> None:
        for server in self.servers.values():
            server.stop()

    def reference(self, server: Server, threads: int) -> stats.Reference:
        """Of the machine, or by all readings of the session with that many threads up to now, of which some are taken
        first. It only says when a visit has samples enough."""
        if threads not in self.readings:
            started, clock = now(), time.perf_counter()
            answer = server.run(
                Order(threads, budget_s=self.plan.budget_s, native_bf16=self.header.machine.native_bf16)
            )
            if not isinstance(answer, Floors):
                raise ServerDied(f"finding the floors failed: {answer.visit.reason}")
            seconds = round(time.perf_counter() - clock, 3)
            readings, peaks = answer.readings_ms, answer.peak_gflops
            self.journal.append(
                Floor(threads=threads, started=started, readings_ms=readings, peak_gflops=peaks, seconds=seconds)
            )
            self.readings[threads] = stats.Readings()
            self.readings[threads].add(health.seconds_since_epoch(started), readings)
        return self.known(threads)

    def known(self, threads: int) -> stats.Reference:
        kept = references.kept().get(self.header.machine.name, {})
        return kept.get(threads) or stats.reference(self.readings[threads].all())

    def last_estimate(self, visit: Visit) -> str:
        """For the progress bar: whose it is, and how many of its samples count."""
        name, batch = visit.case.name, visit.case.batch_size
        if not visit.samples_ms:
            return f"{name}: {visit.status}"
        if not visit.readings_ms:
            return f"{name}: {batch / statistics.mean(visit.samples_ms) * 1e3:.3g} img/s"
        bound_ms = self.known(visit.case.threads).bound_ms
        mask = stats.in_band(visit.readings_ms, bound_ms)
        samples = [ms for ms, undisturbed in zip(visit.samples_ms, mask, strict=True) if undisturbed]
        rate = batch / statistics.median(samples or visit.samples_ms) * 1e3
        return f"{name}: {rate:.3g} img/s, {len(samples)} of {len(mask)} samples undisturbed"

    def warn(self, threads: int) -> None:
        """Say once a session what disturbs it."""
        if visits := [visit for visit in self.latest if visit.case.threads == threads]:
            readings = self.readings[threads]
            for kind, text in health.warnings(visits, readings, self.known(threads)).items():
                if kind not in self.warned:
                    self.warned.add(kind)
                    tqdm.write(f"Warning: {text}")


def too_large(case: Case, visits: list[Outcome]) -> str:
    """Why a batch will not fit into memory, by what smaller ones took; "" where it will, or nothing is known.

    Three times what one inference takes: the allocator is given room for two, and the check holds the output of one.
    """
    if case.batch_size == 1:
        return ""
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


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
