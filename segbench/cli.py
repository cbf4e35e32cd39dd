"""What a script says of itself, and the way from its flags to run log, CSV and PNG."""

import dataclasses
import logging
import os
import platform
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import NoReturn

import tyro
from filelock import FileLock, Timeout

from . import machine, modes, runtimes, zoo
from .analysis import reports
from .cases import MEASURED, Case
from .measure.schedule import Durations, Plan, duration, remaining_s
from .measure.sweep import Sweep
from .run_log import SCHEMA, Header, RunLog, RunLogError, folders, of_another_host, read_all, session_files
from .settings import Problem, Settings, percent, resolve, shard

QUICK = {"models": ("five",), "modes": ("baseline", "compile", "openvino")}
QUICK |= {"samples": 24, "rounds": 2, "budget": 1.0}
PACKAGES = ("timm", "dynamic_network_architectures", "numpy")  # beside the runtimes': other builds, other networks


@dataclass(frozen=True)
class Benchmark:
    """What a script says of itself."""

    script: Path
    name: str
    description: str
    cases: Callable[[Settings], Sequence[Case]]
    report: Callable[[], reports.Report]  # called when everything is measured: it may import what draws
    modes: tuple[str, ...] = modes.DEFAULT
    modes_without_bf16: tuple[str, ...] = ()  # by default; those that would emulate BF16 are then skipped, with a row
    defaults: Settings = dataclasses.field(default_factory=Settings)
    quick: dict[str, object] = dataclasses.field(default_factory=lambda: QUICK)  # what --quick sets
    subfolder: str = ""  # of run_logs/ and plots/, for scripts that share a folder
    beside: Callable[[Settings], AbstractContextManager] = lambda settings: nullcontext()  # while it is measured

    def run_logs(self, out: Path) -> Path:
        """The folder of the run logs."""
        return out / "run_logs" / self.subfolder

    def plots(self, out: Path) -> Path:
        """The folder of the pictures of further machines."""
        return out / "plots" / self.subfolder


def main(benchmark: Benchmark) -> NoReturn:
    """Run a script: exit status 0, 1 where a case failed, 2 for bad input, 130 for Ctrl-C, 143 for SIGTERM."""
    tame_terminal()
    settings = tyro.cli(
        type(benchmark.defaults),
        prog=benchmark.script.name,
        description=benchmark.description,
        default=benchmark.defaults,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    received = [signal.SIGINT]
    try:
        end_as_by_ctrl_c(received)
        status = run(benchmark, settings)
    except (Problem, RunLogError) as problem:
        print(f"{benchmark.script.name}: {problem}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"\n{benchmark.script.name}: stopped; what was measured is kept", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `| head`: whoever read has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(128 + received[-1] if status == 130 else status)


def end_as_by_ctrl_c(received: list[int]) -> None:
    """Have SIGTERM and SIGHUP raise KeyboardInterrupt; which one came is added to a list."""

    def stop(number: int, _) -> None:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup has SIGHUP ignored
            signal.signal(number, stop)


def tame_terminal() -> None:
    """No terminal, locale, closed stream or notebook's picture window costs a measurement."""
    os.environ.pop("MPLBACKEND", None)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that cannot be written to
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        else:
            stream.reconfigure(errors="replace")


def run(benchmark: Benchmark, settings: Settings) -> int:
    """From flags to run log and report. Returns the exit status."""
    here = machine.describe()
    skip_emulated = bool(benchmark.modes_without_bf16) and settings.modes is None and not here.native_bf16
    default_modes = benchmark.modes_without_bf16 if skip_emulated else benchmark.modes
    settings = resolve(settings, benchmark.script.parent, benchmark.defaults, benchmark.quick, default_modes)
    header = Header(
        schema=SCHEMA,
        benchmark=benchmark.name,
        machine=here,
        settings=settings.header(),
        versions=versions(settings.modes),
        label=settings.label,
        boot_id=machine.boot_id(),
        host=machine.host_id(),
    )
    if settings.report:
        report(benchmark, settings.out, header)
        return 0
    if settings.list:
        Session(benchmark, settings, header, skip_emulated).announce()
        return 0
    writable(settings.out)
    try:
        with FileLock(settings.out / f".lock-{platform.node()}", timeout=0):
            return Session(benchmark, settings, header, skip_emulated).measure()
    except Timeout:
        raise Problem(f"another run is measuring into {settings.out}; wait for it, or use --out FOLDER") from None


def emulates(name: str, here: machine.Machine) -> bool:
    mode = modes.MODES[name]
    return runtimes.of_mode(mode).emulates(mode, here)


def versions(names: Sequence[str]) -> dict[str, str]:
    """The builds that the numbers of these modes depend on."""
    builds = machine.installed(PACKAGES)
    for name in names:
        builds |= runtimes.of_mode(modes.MODES[name]).versions()
    return builds


class Session:
    """The run log to go on with, and what is left of the plan."""

    def __init__(self, benchmark: Benchmark, settings: Settings, header: Header, skip_emulated: bool):
        """Reads all run logs of the folder once. Raises Problem where this machine's run log is of other settings."""
        self.benchmark, self.settings, self.header = benchmark, settings, header
        self.read_run_logs()
        self.others = self.run_log.others(header)  # host -> its sessions
        self.joins = settings.join or bool(settings.shard)  # hosts that share out rounds count each other's
        self.plan = Plan(
            cases=[*benchmark.cases(settings)],
            rounds=settings.rounds,
            budget_s=settings.budget,
            samples_wanted=-(-settings.samples // settings.rounds),
            repetitions=settings.repetitions,
            shard=shard(settings.shard),
            until=percent(settings.until),
            max_rounds=settings.max_rounds,
            emulated=frozenset(name for name in settings.modes if emulates(name, header.machine)),
            skip_emulated=skip_emulated,
            seed=settings.seed,
            others=frozenset() if self.joins else frozenset(chain.from_iterable(self.others.values())),
            wait_s=settings.wait_s(),
            short=settings.quick,
            files=settings.files(),
        )

    def read_run_logs(self) -> None:
        """The run log to go on with, and what runs of any machine took."""
        benchmark, settings, header = self.benchmark, self.settings, self.header
        root = benchmark.run_logs(settings.out)
        self.run_log = RunLog(root / header.folder, samples=bool(settings.until))
        self.elsewhere = Durations()
        for folder in folders(root):
            own = folder == self.run_log.folder
            if own and settings.restart:  # it is put aside, whatever it holds
                continue
            run_log = RunLog.read(folder, own and bool(settings.until), benchmark.name)
            for run in run_log.runs:
                self.elsewhere.add(run)
            if own:
                self.run_log = run_log
        if settings.out != benchmark.script.parent:  # what is published says how long runs take
            with suppress(RunLogError):
                for run_log in read_all(benchmark.run_logs(benchmark.script.parent), False, benchmark.name):
                    for run in run_log.runs:
                        self.elsewhere.add(run)
        if difference := self.run_log.difference(header):
            raise Problem(
                f"{self.run_log.folder} was measured with {difference}: --label NAME begins a run log of its own, "
                "--restart puts that one aside"
            )

    def announce(self) -> None:
        """Say what will be done and how long it will take."""
        settings, header, plan = self.settings, self.header, self.plan
        torch = machine.installed(["torch"])["torch"]
        print(f"{header.machine.label}, {settings.threads} threads, torch {torch}, {header.folder}")
        if settings.list:
            self.list_cases()
        steps = plan.steps(self.run_log.runs)
        about = duration(remaining_s(steps, Durations(plan.counted(self.run_log.runs)), self.elsewhere))
        rounds = f"{settings.rounds} rounds" + f" and {settings.repetitions} repetitions" * (settings.repetitions > 1)
        print(f"{len(plan.cases)} cases in {rounds}: {len(steps)} runs of go, about {about}")
        self.announce_earlier()
        if settings.until:
            print(f"then more rounds of what is not within +- {settings.until}, up to {settings.max_rounds} per case")
        if plan.emulated and not plan.skip_emulated:
            names = ", ".join(sorted(plan.emulated))
            print(
                f"Warning: this CPU has no native BF16: {names} will be 40 to 90 times slower than FP32, so they are "
                "measured once; leave them out with --modes baseline compile"
            )
        if not steps and not settings.until:
            print("Nothing to measure: it holds all of that; --restart measures anew")

    def announce_earlier(self) -> None:
        """Say which runs are there already, and whether their rounds count."""
        folder, counted = os.path.relpath(self.run_log.folder), self.plan.counted(self.run_log.runs)
        names = ", ".join(host or "unknown" for host in self.others)
        hosts = "another host" if len(self.others) == 1 else f"{len(self.others)} other hosts"
        started = [header.started for name, header in self.run_log.headers.items() if name not in self.plan.others]
        if started:
            there = f"{len(counted):,} runs since {started[0][:10]}"
            there += f", with those of {hosts} of this kind of CPU ({names})" * (self.joins and bool(self.others))
            print(f"Goes on with {folder}, {there}; --label NAME begins another")
        if self.plan.others:
            beside = f"{len(self.run_log.runs) - len(counted):,} runs of {hosts} of this kind of CPU ({names})"
            print(f"{folder}{' also' * bool(started)} holds {beside}; --join counts their rounds as done")

    def list_cases(self) -> None:
        listed: dict[tuple[str, str], list[str]] = {}
        for case in self.plan.cases:
            listed.setdefault((zoo.family(case.model), case.network), []).append(case.mode)
        width = max(len(network) for _, network in listed)
        for (family, network), names in listed.items():
            print(f"  {family:12} {network:{width}}  {', '.join(dict.fromkeys(names))}")

    def measure(self) -> int:
        """Sweep what is left, then report. Exit status 1 where a case did not end well, 130 for Ctrl-C."""
        self.announce()
        if self.settings.restart:
            self.put_aside()
        try:
            with self.benchmark.beside(self.settings):
                Sweep(self.run_log, self.plan, self.header, self.elsewhere).run()
        except KeyboardInterrupt:
            left = len(self.plan.steps(self.run_log.runs))
            more = f"{left} runs are left" if left else f"what is not within +- {self.settings.until} goes on"
            command = "The same command" + " without --restart" * self.settings.restart
            print(f"\nStopped; {more}. {command} goes on, --report makes tables of what is there.")
            return 130
        report(self.benchmark, self.settings.out, self.header, self.run_log.folder)
        return self.failures()

    def put_aside(self) -> None:
        """Keep the sessions of this host that there were, and what cannot be read; nothing is ever overwritten."""
        folder = self.run_log.folder
        if old := [path for path in session_files(folder) if not of_another_host(path, self.header)]:
            kept = folder.parent / "old" / f"{folder.name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
            kept.mkdir(parents=True)
            for path in old:
                path.rename(kept / path.name)
            print(f"{len(old)} earlier sessions are kept in {os.path.relpath(kept)}")

    def failures(self) -> int:
        """Say which cases did not end well; 1 where there are any."""
        by_case, bad = self.run_log.by_case(), 0
        for case in self.plan.cases:
            runs = [run for run in self.plan.counted(by_case.get(case, [])) if run.status != "skipped"]
            measured = {run.round for run in runs if run.status in MEASURED}  # on whichever host counts
            failed = [run for run in runs if run.status == "wrong" or run.round not in measured]
            bad += bool(failed)
            for run in failed[:1]:
                print(f"  {case.name}: {run.status}, {run.reason}")
        if bad:
            print(f"{bad} of {len(self.plan.cases)} cases did not end well, see above; all others are unharmed")
        return 1 if bad else 0


def report(benchmark: Benchmark, out: Path, header: Header, own: Path | None = None) -> None:
    """CSV and PNG from all run logs of the folder; on the terminal the table of one of them, `own`, or of all. Figures
    are those of this host where it has some; `header` says which it is."""
    from .analysis import diagnostics
    from .analysis.tables import Results

    run_logs = read_all(benchmark.run_logs(out), benchmark=benchmark.name)
    shown = [run_log for run_log in run_logs if own in (None, run_log.folder)]
    here = next((host for run_log in shown if (host := run_log.host_like(header))), "")
    results = Results(run_logs, first_host=here)
    if not results.run_logs:
        raise Problem(f"{benchmark.run_logs(out)} holds no run log with a run; run without --report first")
    writable(out)
    what = benchmark.report()
    own_results = Results(shown, results.computed, here, only_host=here if own else "")
    print("\n" + what.show(own_results) + "\n", flush=True)
    try:
        written = reports.write(what, results, out, benchmark.plots(out))
    except OSError as error:
        problem = f"{error.filename or out} cannot be written ({error.strerror}); the run log is unharmed"
        raise Problem(f"{problem}, --report writes tables and pictures anew") from None
    for run_log in shown:
        host_of = run_log.host_of()
        for warning in diagnostics.warnings(v for v in run_log.runs if here in ("", host_of[v.session])):
            print(textwrap.fill(f"Warning: {run_log.name}: {warning}", 100))
        if here and len(run_log.hosts()) > 1:
            others = ", ".join(host or "unknown" for host in run_log.hosts() if host != here)
            print(
                f"Figures above are this host's ({here}); speedups count rounds of {others} too, files hold all hosts."
            )
    names = ", ".join(os.path.relpath(path, out) for path in written)
    print(textwrap.fill(f"Written to {os.path.relpath(out)}: {names}; the samples lie in run_logs/", 100))
    if what.answer:
        print("\n" + "\n".join(textwrap.fill(line, 100) for line in what.answer(own_results).splitlines()))


def writable(folder: Path) -> None:
    try:
        (folder / "run_logs").mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Problem(f"{folder} cannot be written to ({error.strerror}); choose another folder with --out") from None
