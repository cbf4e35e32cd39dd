"""What a script says of itself, and the way from its flags to run log, CSV and PNG."""

import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout

from . import machine, modes, runtimes
from .analysis.reports import Report
from .cases import Case
from .problem import Problem, exit_with
from .records import SCHEMA, Header
from .session import Session, report
from .settings import Settings, parse, resolve

QUICK = {"models": ("five",), "modes": ("baseline", "compile", "openvino")}
QUICK |= {"samples": 24, "rounds": 2, "budget": 1.0}
PACKAGES = ("timm", "dynamic_network_architectures", "numpy")  # beside the runtimes': other builds, other networks


@dataclass(frozen=True)
class Benchmark:
    """What a script says of itself."""

    script: Path
    name: str  # in run logs
    description: str
    cases: Callable[[Settings], Sequence[Case]]
    report: str  # a module with a REPORT, imported when everything is measured: it may import what draws
    modes: tuple[str, ...] = modes.DEFAULT
    defaults: Settings = field(default_factory=Settings)
    quick: dict[str, object] = field(default_factory=lambda: QUICK)  # what --quick sets
    beside: Callable[[Settings], AbstractContextManager] = lambda settings: nullcontext()  # while it is measured

    def load_report(self) -> Report:
        return import_module(self.report).REPORT


def main(benchmark: Benchmark) -> NoReturn:
    """Run a script: exit status 0, 1 where a case failed, or what `exit_with` says."""
    tame_terminal()
    benchmark = replace(benchmark, defaults=replace(benchmark.defaults, modes=benchmark.modes))
    exit_with(lambda: run(benchmark, parse(benchmark.defaults, benchmark.description)), "what was measured is kept")


def tame_terminal() -> None:
    """No terminal, locale or notebook's picture window costs a measurement."""
    os.environ.pop("MPLBACKEND", None)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that cannot be written to
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")


def run(benchmark: Benchmark, settings: Settings) -> int:
    """From flags to run log and report. Returns the exit status."""
    settings = resolve(settings, benchmark.script.parent, benchmark.defaults, benchmark.quick)
    header = Header(
        schema=SCHEMA,
        benchmark=benchmark.name,
        machine=machine.describe(),
        settings=settings.header(),
        versions=versions(settings.modes),
        label=settings.label,
        boot_id=machine.boot_id(),
        host=machine.host_id(),
    )
    if settings.list and not settings.report:
        Session(benchmark.name, benchmark.cases(settings), settings, header).announce()
        return 0
    check_writable(settings.out)
    if settings.report:
        report(benchmark.load_report(), benchmark.name, settings.out, header)
        return 0
    try:
        with FileLock(settings.out / f".lock-{platform.node()}", timeout=0):
            session = Session(benchmark.name, benchmark.cases(settings), settings, header)
            if not session.measure(benchmark.beside(settings)):
                return 130
            report(benchmark.load_report(), benchmark.name, settings.out, header, session.run_log.folder)
            return session.failures()
    except Timeout:
        problem = f"another session is measuring into {settings.out}; wait for it, or use --out FOLDER"
        raise Problem(problem) from None


def versions(names: Sequence[str]) -> dict[str, str]:
    """The builds that the numbers of these modes depend on."""
    builds = machine.installed(PACKAGES)
    for name in names:
        builds |= runtimes.of_mode(modes.MODES[name]).versions()
    return builds


def check_writable(folder: Path) -> None:
    """Raises Problem where results cannot be written."""
    try:
        (folder / "run_logs").mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Problem(f"{folder} cannot be written to ({error.strerror}); choose another folder with --out") from None
