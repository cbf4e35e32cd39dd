"""Rounds over all cases: runs, limits, failures, progress. This process never imports torch."""

import shutil
import statistics
import time
from datetime import UTC, datetime

import msgspec
from tqdm import tqdm

from .. import machine, modes, runtimes
from ..analysis import stats
from ..cases import BUSY_CPUS, MEASURED, Case
from ..records import Header, MachineSpeed, Run
from ..run_log import RunLog
from .messages import Order
from .schedule import Plan, Step, duration
from .server import Server, ServerDied, removed_variables

IDLE_LOOKS = 2  # of a second each, in succession, after which a busy machine is taken for quiet again


class Sweep:
    """One command: it carries out what is left of its plan, and appends each run to the run log."""

    def __init__(self, run_log: RunLog, plan: Plan, header: Header):
        """`header`: of the sessions that are begun."""
        self.run_log, self.plan, self.header, self.settings = run_log, plan, header, plan.settings
        counted = plan.counted(run_log.runs)
        self.repetition = 0
        self.servers: dict[tuple, Server] = {}  # by what their processes need set
        # In this session, by number of threads and kind of process: a runtime's threads may lengthen reference times.
        self.reference_times: dict[tuple[int, str], list[tuple[float, float]]] = {}
        self.wait_s = self.settings.wait_s()  # that is left
        self.failed: set[Case] = set()  # not measured again by this command
        self.skips = {(run.case, run.round, run.reason) for run in counted if run.status == "skipped"}  # said already
        self.latest_result = ""

    def run(self) -> None:
        """KeyboardInterrupt stops all processes and is passed on."""
        steps = self.plan.steps(self.run_log.runs)
        if not steps and not self.settings.until:
            return
        if names := removed_variables():
            print(f"Not passed on to what is measured: {', '.join(names)}")
        if (cache := machine.cache_folder()).parent != (wanted := machine.wanted_cache()):
            print(f"Compiled code is kept in {cache}: {wanted} is relative, cannot be written to, or has a space in it")
        tqdm.monitor_interval = 0  # its thread would wake up beside a measurement
        columns = min(80, shutil.get_terminal_size().columns)  # 80 where there is no terminal
        shown = "{elapsed} gone, {remaining} left, {n_fmt}/{total_fmt} | {desc}"
        self.bar = tqdm(total=len(steps), bar_format=shown, ncols=columns)
        try:
            while steps := steps or self.plan.further_steps(self.run_log):
                self.bar.total = max(self.bar.total, self.bar.n + len(steps))
                (number, case), *steps = steps
                self.show(case)
                self.take(number, case)
                if self.lacks_baseline(number, case, steps):
                    self.take(number, case.under(modes.BASELINE))
                self.bar.update()
                if self.settings.quick and self.wait_s <= 0 < self.settings.wait_s():
                    steps = self.first_round(steps)
            self.bar.set_description_str("done")
        finally:
            self.bar.close()
            self.stop_servers()

    def show(self, case: Case) -> None:
        """In the bar: the case, its name cut to the space there is, and the result of the run before."""
        self.bar.set_description_str("", refresh=False)
        result = f" | previous: {self.latest_result}" if self.latest_result else ""
        room = max(0, self.bar.ncols - len(str(self.bar)) - len(result))
        self.bar.set_description_str(case.name[:room] + result)

    def take(self, number: int, case: Case) -> None:
        """One step: a run, unless the case failed before, and another where other processes disturbed it."""
        if case in self.failed:
            return
        mode = modes.MODES[case.mode]
        missing = runtimes.missing(mode, case, self.header.machine)
        reason = missing or too_large(case, self.run_log.runs)
        if (case, number, reason) in self.skips:
            self.give_up(case, "skipped", reason)
            return
        if self.plan.repetition(number) != self.repetition:
            self.begin_session(self.plan.repetition(number))
        skipped = Run(case=case, status="skipped", reason=reason, started=now())
        run = skipped if reason else self.run_case(case)
        self.record(run, number)
        if run.busy_cpus > BUSY_CPUS and self.wait_s > 0:
            clock = time.monotonic()
            if self.becomes_idle(run):
                self.record(self.run_case(case), number)
            self.wait_s -= time.monotonic() - clock

    def lacks_baseline(self, number: int, case: Case, left: list[Step]) -> bool:
        """Whether a mode was measured that joined the round later: it is compared with a baseline of its own session.
        `left`: what follows."""
        baseline, session = case.under(modes.BASELINE), self.run_log.session
        if baseline not in self.plan.cases or (number, baseline) in left:
            return False
        here = {run.case for run in self.run_log.runs if (run.session, run.round) == (session, number)}
        return case in here and baseline not in here and case not in self.failed

    def first_round(self, steps: list[Step]) -> list[Step]:
        """Without what a busy machine makes too long."""
        first = min(number for number, _ in [*steps, (1, None)])
        left = [step for step in steps if step[0] == first]
        if len(left) < len(steps):
            tqdm.write("Other processes stay busy, so one round has to do; later the same command measures the others")
        self.bar.total -= len(steps) - len(left)
        return left

    def record(self, run: Run, number: int) -> None:
        """Append a run of a round to the run log, and remember what later runs depend on."""
        run.round = number
        self.run_log.append(run)
        self.latest_result = run.status
        if run.samples_ms:
            self.latest_result = f"{run.case.batch_size / statistics.median(run.samples_ms) * 1e3:.3g} img/s"
        if run.reference_ms:
            self.reference_times.setdefault(reference_key(run.case), []).extend(run.reference_ms)
        if run.status not in MEASURED:
            self.give_up(run.case, run.status, run.reason)

    def becomes_idle(self, run: Run) -> bool:
        """Look once a second at what other processes use, until that is little or the run must not get longer."""
        quiet, busy_cpus, end = 0, run.busy_cpus, time.monotonic() + self.wait_s
        while quiet < IDLE_LOOKS:
            if (left := end - time.monotonic()) <= 0:
                return False
            self.bar.set_description_str(f"waiting: other processes use {busy_cpus:.1f} CPUs, up to {duration(left)}")
            load = machine.BackgroundLoad(run.case.threads)
            time.sleep(min(1, left))
            others, throttled, _ = load.cpus()
            busy_cpus = others + throttled
            quiet = quiet + 1 if busy_cpus <= BUSY_CPUS else 0
        return True

    def give_up(self, case: Case, status: str, reason: str) -> None:
        self.failed.add(case)
        tqdm.write(f"{case.name}: {status}, {reason}")

    def begin_session(self, repetition: int) -> None:
        """A repetition shares nothing with the one before, neither servers nor reference times."""
        self.stop_servers()
        self.repetition, self.reference_times = repetition, {}
        self.run_log.begin(msgspec.structs.replace(self.header, started=now(), commit=machine.commit()))

    def run_case(self, case: Case) -> Run:
        """One run, whatever becomes of it."""
        started, clock = now(), time.perf_counter()
        fixed_iterations = case.protocol == "fixed-iteration"
        server = self.server(case.mode, case.threads)
        try:
            if fixed_iterations:
                server, bound_ms = Server(server.environment), (0, 0)  # that protocol pays for its own imports
            else:
                bound_ms = self.reference(case).bound_ms
            started, clock = now(), time.perf_counter()
            samples_wanted = -(-self.settings.samples // self.settings.rounds)
            source = self.settings.files().get(case.weights, "")
            run = server.run(Order(case.threads, case, bound_ms, samples_wanted, self.settings.budget, source))
        except ServerDied as death:
            server.stop()
            reason = f"the process that starts workers died: {death}"
            run = Run(case=case, status="error", reason=reason, budget_s=self.settings.budget)
        finally:
            if fixed_iterations:
                server.stop()
        run.started, run.seconds = started, round(time.perf_counter() - clock, 3)
        run.phases_s = {name: round(seconds, 4) for name, seconds in run.phases_s.items()}
        return run

    def server(self, mode: str, threads: int) -> Server:
        """The server whose environment is what the mode needs."""
        environment = runtimes.environment(modes.MODES[mode], threads)
        key = tuple(sorted(environment.items()))
        if key not in self.servers:
            self.servers[key] = Server(environment)
        return self.servers[key]

    def stop_servers(self) -> None:
        for server in self.servers.values():
            server.stop()

    def reference(self, case: Case) -> stats.Reference:
        """From all reference times of the session under the case's runtime up to now, or else from those of torch, of
        which some are taken first. It only decides when a run has enough samples."""
        with_torch = reference_key(msgspec.structs.replace(case, mode=modes.BASELINE))
        if with_torch not in self.reference_times:
            self.reference_times[with_torch] = [*self.machine_speed(case.threads).reference_ms]
        return stats.reference(self.reference_times.get(reference_key(case), self.reference_times[with_torch]))

    def machine_speed(self, threads: int) -> MachineSpeed:
        """Measure it in a process with torch alone, and append it to the run log. Raises ServerDied."""
        started, clock = now(), time.perf_counter()
        order = Order(threads, budget_s=self.settings.budget, native_bf16=self.header.machine.native_bf16)
        machine_speed = self.server(modes.BASELINE, threads).run(order)
        if isinstance(machine_speed, Run):
            raise ServerDied(f"timing the reference workload failed: {machine_speed.reason}")
        machine_speed.started, machine_speed.seconds = started, round(time.perf_counter() - clock, 3)
        self.run_log.append(machine_speed)
        return machine_speed


def reference_key(case: Case) -> tuple[int, str]:
    """What reference times depend on beside the machine: number of threads, runtime and allocator."""
    return case.threads, modes.process(case.mode)


def too_large(case: Case, runs: list[Run]) -> str:
    """Why a batch will not fit into memory, by what smaller ones took; "" where it will, or nothing is known."""
    smaller = [run for run in runs if run.memory_mb and run.case.batch_size < case.batch_size]
    alike = [run for run in smaller if msgspec.structs.replace(run.case, batch_size=case.batch_size) == case]
    mb_per_image = max((run.memory_mb / run.case.batch_size for run in alike), default=0)
    needed, free = 3 * mb_per_image * case.batch_size / 1e3, machine.free_gb()  # the heap is grown by three times
    return f"needs about {needed:.1f} GB of memory, {free:.1f} GB are free" if needed > free else ""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
