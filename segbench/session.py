"""A session: one command that goes on with a run log, measures what is left of a plan, and reports."""

import os
import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from . import machine, zoo
from .cases import MEASURED, Case
from .measure.schedule import Plan, about
from .measure.sweep import Sweep
from .problem import Problem
from .records import Header
from .run_log import RunLog, of_another_host, read_all, session_files
from .settings import Settings

if TYPE_CHECKING:
    from .analysis.reports import Report


class Session:
    """The run log to go on with, and what is left of the plan."""

    def __init__(self, benchmark: str, cases: Sequence[Case], settings: Settings, header: Header):
        """Raises Problem where this machine's run log is of other settings, or another one cannot be read."""
        self.settings, self.header = settings, header
        root = settings.out / "run_logs"
        archived = root / header.folder if settings.restart else None  # whatever it holds
        run_logs = read_all(root, benchmark, archived)  # the report will need all of them
        of_folder = {run_log.folder: run_log for run_log in run_logs}
        self.run_log = of_folder.get(root / header.folder, RunLog(root / header.folder))
        if difference := self.run_log.difference(header):
            raise Problem(
                f"{self.run_log.folder} was measured with {difference}: --label NAME begins a run log of its own, "
                "--restart archives that one"
            )
        self.others = self.run_log.others(header)  # host -> its sessions
        self.joins = settings.join or bool(settings.shard)  # hosts that share out rounds count each other's
        others = frozenset() if self.joins else frozenset(chain.from_iterable(self.others.values()))
        self.plan = Plan([*cases], settings, others)

    def announce(self) -> None:
        """Say what will be done and how long it will take."""
        settings, header, plan = self.settings, self.header, self.plan
        torch = machine.installed(["torch"])["torch"]
        print(f"{header.machine.title}, {settings.threads} threads, torch {torch}, {header.folder}")
        if settings.list:
            self.list_cases()
        steps, counted = plan.steps(self.run_log.runs), plan.counted(self.run_log.runs)
        rounds = f"{settings.rounds} rounds" + f" and {settings.repetitions} repetitions" * (settings.repetitions > 1)
        print(f"{len(plan.cases)} cases in {rounds}: {len(steps)} runs to go, about {about(len(steps), counted)}")
        self.announce_earlier_runs()
        if settings.until:
            print(f"then more rounds of what is not within +- {settings.until}, up to {settings.max_rounds} per case")
        if not steps and not settings.until:
            print("Nothing to measure: all cases are measured already; --restart measures them again")

    def announce_earlier_runs(self) -> None:
        """Say which runs are there already, and whether their rounds count."""
        folder, counted = os.path.relpath(self.run_log.folder), self.plan.counted(self.run_log.runs)
        names = ", ".join(host or "unknown" for host in self.others)
        hosts = "another host" if len(self.others) == 1 else f"{len(self.others)} other hosts"
        started = [header.started for name, header in self.run_log.headers.items() if name not in self.plan.others]
        if started:
            there = f"{len(counted):,} runs since {started[0][:10]}"
            if self.joins and self.others:
                there += f", with those of {hosts} with this kind of CPU ({names})"
            print(f"Goes on with {folder}, {there}; --label NAME begins another")
        if self.plan.others:
            runs = len(self.run_log.runs) - len(counted)
            print(
                f"{folder} holds {runs:,} runs of {hosts} with this kind of CPU ({names}); --join counts their rounds"
            )

    def list_cases(self) -> None:
        listed: dict[tuple[str, str], list[str]] = {}
        for case in self.plan.cases:
            listed.setdefault((zoo.family(case.model), case.network), []).append(case.mode)
        width = max(len(network) for _, network in listed)
        for (family, network), names in listed.items():
            print(f"  {family:12} {network:{width}}  {', '.join(dict.fromkeys(names))}")

    def measure(self, beside: AbstractContextManager) -> bool:
        """Measure what is left while `beside` runs. False where Ctrl-C stopped it."""
        self.announce()
        if self.settings.restart:
            self.archive()
        try:
            with beside:
                Sweep(self.run_log, self.plan, self.header).run()
        except KeyboardInterrupt:
            left = len(self.plan.steps(self.run_log.runs))
            more = f"{left} runs are left" if left else f"what is not within +- {self.settings.until} is left"
            command = "The same command" + " without --restart" * self.settings.restart
            print(f"\nStopped; {more}. {command} goes on, --report makes tables of what is there.")
            return False
        return True

    def archive(self) -> None:
        """Move the sessions of this host that there were, and what cannot be read; nothing is ever overwritten."""
        folder = self.run_log.folder
        if old := [path for path in session_files(folder) if not of_another_host(path, self.header)]:
            archive = folder.parent / "old" / f"{folder.name}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"
            archive.mkdir(parents=True)
            for path in old:
                path.rename(archive / path.name)
            print(f"{len(old)} earlier sessions are kept in {os.path.relpath(archive)}")

    def failures(self) -> int:
        """Say which cases failed; 1 where there are any."""
        by_case, failed_cases = self.run_log.by_case(), 0
        for case in self.plan.cases:
            runs = [run for run in self.plan.counted(by_case.get(case, [])) if run.status != "skipped"]
            measured = {run.round for run in runs if run.status in MEASURED}  # on whichever host counts
            failed = [run for run in runs if run.status == "wrong" or run.round not in measured]
            failed_cases += bool(failed)
            for run in failed[:1]:
                print(f"  {case.name}: {run.status}, {run.reason}")
        if failed_cases:
            print(f"{failed_cases} of {len(self.plan.cases)} cases failed, see above; other results are unaffected")
        return 1 if failed_cases else 0


def report(shown: "Report", benchmark: str, out: Path, header: Header, folder: Path | None = None) -> None:
    """CSV and PNG from all run logs in `out`; on the terminal the table of the one in `folder`, or of all. Figures are
    those of this host where it has some; `header` says which it is."""
    from .analysis import diagnostics, reports
    from .analysis.tables import Results

    run_logs = read_all(out / "run_logs", benchmark=benchmark)
    in_terminal = [run_log for run_log in run_logs if folder in (None, run_log.folder)]
    here = next((host for run_log in in_terminal if (host := run_log.host_like(header))), "")
    results = Results(run_logs, first_host=here)
    if not results.run_logs:
        raise Problem(f"{out / 'run_logs'} holds no run log with a run; run without --report first")
    results_here = Results(in_terminal, results.computed, here, only_host=here if folder else "")
    print("\n" + shown.show(results_here) + "\n", flush=True)
    try:
        written = reports.write(shown, results, out)
    except OSError as error:
        problem = f"{error.filename or out} cannot be written ({error.strerror}); the run log is unaffected"
        raise Problem(f"{problem}, --report writes tables and pictures again") from None
    for run_log in in_terminal:
        host_of = run_log.host_of()
        for warning in diagnostics.warnings(run for run in run_log.runs if here in ("", host_of[run.session])):
            print(textwrap.fill(f"Warning: {run_log.name}: {warning}", 100))
        if here and len(run_log.hosts()) > 1:
            others = ", ".join(host or "unknown" for host in run_log.hosts() if host != here)
            print(
                f"Figures above are this host's ({here}); speedups count rounds of {others} too, files hold all hosts."
            )
    names = ", ".join(os.path.relpath(path, out) for path in written)
    print(textwrap.fill(f"Written to {os.path.relpath(out)}: {names}; the samples lie in run_logs/", 100))
    if shown.answer:
        print("\n" + "\n".join(textwrap.fill(line, 100) for line in shown.answer(results_here).splitlines()))
