"""The flags that every script has, and the way from them to journal, CSV and PNG."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import tyro
from filelock import FileLock, Timeout

from . import figures, machine, modes, sweep, zoo
from .cases import Case
from .journal import SCHEMA, Header, Journal, JournalError, read_all

QUICK = {"models": ("headline",), "modes": ("baseline", "compile"), "iterations": 20, "rounds": 2}


# Run in a child: which of its arguments timm knows, a line each, then all that it knows.
LOOK_UP = """
import sys, timm
for name in sys.argv[1:]:
    print(*(timm.list_models(name) or [name] * timm.is_model(name)))
print(*timm.list_models())
"""


class Problem(Exception):
    """Bad input. Its text is one line: what is wrong and what to do."""


@dataclass
class Settings:
    """What a run measures and how. The same for every script; the defaults are the script's."""

    models: tuple[str, ...] = ("all",)
    """timm names, patterns ('resnet*'), families ('MobileOne'), 'headline', 'dozen' or 'all'. A pattern that no model
    of the zoo matches is looked up in all of timm."""
    modes: tuple[str, ...] | None = None
    """Modes by name, or 'all'; by default the script's own. baseline, autocast, compile, autocast+compile,
    channels_last, compile+freezing, autocast+compile+freezing."""
    size: Annotated[tuple[int, int], tyro.conf.arg(metavar="H W")] = (512, 512)
    """Height and width of the input in pixels."""
    batch_size: int = 1
    """Images per inference."""
    iterations: int = 50
    """Quiet samples per case in all, spread over the rounds."""
    rounds: int = 5
    """Visits per case, each in a fresh process; intervals are over them."""
    until: str = ""
    """'2%': after the rounds go on with the cases whose 95 % interval is wider than +- 2 % of the figure."""
    max_rounds: int = 20
    """Rounds per case at most under --until."""
    repetitions: int = 1
    """Sweeps one after the other, each a session of its own that shares nothing with the others."""
    threads: int | None = None
    """Threads per inference; by default all physical cores that this process may really use."""
    budget: float = 15.0
    """Seconds of measuring that one visit may take at most, preparing not counted."""
    quick: bool = False
    """A few models and rounds, into a folder of its own: to try it out."""
    fresh: bool = False
    """Begin this machine's journal anew; the old one is kept beside it with the ending .old."""
    label: str = ""
    """A name for a journal of its own, where this machine has one of other settings or versions."""
    report: bool = False
    """Rebuild CSV and PNG from the journals, measure nothing."""
    list: bool = False
    """Say what would run and how long it will take about, run nothing."""
    out: Path | None = None
    """Folder for journals, CSV and PNG; by default the script's own."""
    pretrained: bool = False
    """timm's weights instead of calibrated random ones (needs the network, once)."""
    allocator: tuple[Literal["pinned", "plain"], ...] = ("pinned",)
    """Keep freed memory in the process (pinned), or glibc's defaults (plain); both are compared in the same rounds."""
    seed: int = 0
    """Of the random weights and of the order of the visits."""

    def header(self) -> dict[str, object]:
        """What changes what is measured: another value is another journal."""
        return {key: getattr(self, key) for key in ("size", "batch_size", "threads", "pretrained", "seed")}

    def check(self) -> None:
        """Raises Problem for what a script's own flags cannot mean."""

    def cases(self, **particular: object) -> Sequence[Case]:
        """A case per model, mode and allocator, with what a script sets of the other fields."""
        same = {key: getattr(self, key) for key in ("size", "batch_size", "threads", "pretrained", "seed")}
        return [
            Case(**{"model": model, "mode": mode, "allocator": allocator, **same, **particular})
            for model in self.models
            for mode in self.modes
            for allocator in self.allocator
        ]


@dataclass(frozen=True)
class Benchmark:
    """What a script says of itself."""

    script: Path
    name: str
    description: str
    cases: Callable[[Settings], Sequence[Case]]
    report: Callable[[list[Journal], Path], list[Path]]  # writes CSV and PNG, returns their paths
    show: Callable[[list[Journal]], str]  # the table for the terminal
    modes: tuple[str, ...] = modes.DEFAULT
    modes_without_bf16: tuple[str, ...] = ()  # by default; those that would emulate BF16 are then skipped, with a row
    defaults: Settings = dataclasses.field(default_factory=Settings)
    quick: dict[str, object] = dataclasses.field(default_factory=lambda: QUICK)  # what --quick sets
    subfolder: str = ""  # of journals/, for scripts that share a folder
    beside: Callable[[Settings], AbstractContextManager] = lambda settings: nullcontext()  # while it is measured

    def journals(self, out: Path) -> Path:
        """The folder of the journals."""
        return out / "journals" / self.subfolder


def main(benchmark: Benchmark) -> NoReturn:
    """Run a script: exit status 0, 1 where a case failed, 2 for bad input, 130 for Ctrl-C."""
    settings = tyro.cli(
        type(benchmark.defaults),
        prog=benchmark.script.name,
        description=benchmark.description,
        default=benchmark.defaults,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    try:
        status = run(benchmark, settings)
    except (Problem, JournalError) as problem:
        print(f"{benchmark.script.name}: {problem}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(f"\n{benchmark.script.name}: stopped; the same command goes on where it was", file=sys.stderr)
        status = 130
    sys.exit(status)


def run(benchmark: Benchmark, settings: Settings) -> int:
    """From checked settings to journal and report. Returns the exit status."""
    here = machine.describe()
    if settings.modes is not None or here.native_bf16:
        benchmark = dataclasses.replace(benchmark, modes_without_bf16=())
    settings = resolve(settings, benchmark, here)
    if settings.report:
        report(benchmark, settings.out)
        return 0
    header = Header(
        schema=SCHEMA,
        benchmark=benchmark.name,
        machine=here,
        versions=machine.versions(),
        settings=settings.header(),
        label=settings.label,
    )
    if settings.list:
        announce(benchmark, settings, header)
        return 0
    writable(settings.out)
    try:
        with FileLock(settings.out / ".lock", timeout=0):
            return measure(benchmark, settings, header)
    except Timeout:
        raise Problem(f"another run is measuring into {settings.out}; wait for it, or use --out FOLDER") from None


def announce(benchmark: Benchmark, settings: Settings, header: Header) -> sweep.Plan:
    """Say what will be done and how long it will take. Raises Problem where the journal is of other settings."""
    path, cases = benchmark.journals(settings.out) / f"{header.name}.jsonl", benchmark.cases(settings)
    old = Journal.read(path) if path.exists() and not settings.fresh else None
    if old and (difference := old.difference(header)):
        raise Problem(f"{path} was measured with {difference}: --fresh replaces it, --label NAME keeps both")
    known = [visit for journal in read_all(path.parent) for visit in journal.visits]
    native = header.machine.native_bf16
    visits = old.visits if old else []
    plan = sweep.Plan(cases, settings.rounds, native, visits, settings.budget, known, settings.repetitions)
    plan.skip_emulated = bool(benchmark.modes_without_bf16)
    steps = plan.left(settings.seed)
    print(f"{header.machine.label}, {settings.threads} threads, torch {header.versions['torch']}, {header.name}")
    if settings.list:
        listed: dict[tuple[str, str], list[str]] = {}
        for case in cases:
            listed.setdefault((zoo.family(case.model), case.network), []).append(case.mode)
        width = max(len(network) for _, network in listed)
        for (family, network), found in listed.items():
            print(f"  {family:12} {network:{width}}  {', '.join(dict.fromkeys(found))}")
    about = sweep.duration(plan.remaining_s(steps))
    rounds = f"{settings.rounds} rounds" + f" and {settings.repetitions} repetitions" * (settings.repetitions > 1)
    print(f"{len(cases)} cases in {rounds}: {len(steps)} visits to go, about {about}")
    if settings.until:
        print(f"then more rounds of what is not within +- {settings.until}, up to {settings.max_rounds} per case")
    emulated = [mode for mode in settings.modes if modes.MODES[mode].autocast and not native]
    if emulated and not plan.skip_emulated:
        print(
            f"Warning: this CPU has no native BF16: {', '.join(emulated)} will be 40 to 90 times slower than FP32, "
            "so they are visited once; leave them out with --modes baseline compile"
        )
    if not steps and not settings.until:
        print(f"Nothing to measure: {path} holds all of it; --fresh measures anew")
    return plan


def measure(benchmark: Benchmark, settings: Settings, header: Header) -> int:
    """Sweep what is left, then report. Exit status 1 where a case did not end well, 130 for Ctrl-C."""
    path, plan = benchmark.journals(settings.out) / f"{header.name}.jsonl", announce(benchmark, settings, header)
    if settings.fresh and path.exists():
        path.replace(path.with_suffix(".jsonl.old"))
    journal = Journal.read(path) if path.exists() else Journal.create(path, header)
    journal.mend()
    try:
        wanted = -(-settings.iterations // settings.rounds)
        with benchmark.beside(settings):
            sweep.run(journal, plan, wanted, settings.seed, percent(settings.until), settings.max_rounds)
    except KeyboardInterrupt:
        left = len(plan.left(settings.seed))
        more = f"{left} visits are left" if left else f"what is not within +- {settings.until} goes on"
        print(f"\nStopped; {more}. The same command goes on, --report makes tables of what is there.")
        return 130
    report(benchmark, settings.out, journal)
    found, bad = journal.by_case(), 0
    for case in plan.cases:
        last = [visit for visit in found.get(case, {}).values() if visit.status not in ("ok", "skipped")]
        bad += bool(last)
        for visit in last[:1]:
            print(f"  {case.name}: {visit.status}, {visit.reason}")
    if bad:
        print(f"{bad} of {len(plan.cases)} cases did not end well, see above; all others are unharmed")
    return 1 if bad else 0


def report(benchmark: Benchmark, out: Path, journal: Journal | None = None) -> None:
    """CSV and PNG from all journals of the folder, the table of this machine's (or of all) on the terminal."""
    journals = read_all(benchmark.journals(out))
    if not any(journal.visits for journal in journals):
        raise Problem(f"{benchmark.journals(out)} holds no journal with a visit; run without --report first")
    writable(out)
    written = benchmark.report(journals, out)
    print("\n" + benchmark.show([journal] if journal else journals) + "\n")
    for shown in [journal] if journal else journals:
        for warning in figures.summary(shown):
            print(f"Warning: {shown.header.name}, {warning}")
    for path in [*([journal.path] if journal else []), *written]:
        print(f"wrote {os.path.relpath(path)}")


def resolve(settings: Settings, benchmark: Benchmark, here: machine.Machine) -> Settings:
    """The settings with names looked up and defaults filled in. Raises Problem for what cannot be measured."""
    changed = dataclasses.replace(settings, out=settings.out or benchmark.script.parent)
    if settings.quick:
        untouched = [key for key in benchmark.quick if getattr(settings, key) == getattr(benchmark.defaults, key)]
        given = {key: benchmark.quick[key] for key in untouched}
        changed = dataclasses.replace(changed, **given, out=settings.out or benchmark.script.parent / "quick")
    for key in ("batch_size", "iterations", "rounds", "budget", "repetitions", "max_rounds"):
        if getattr(changed, key) <= 0:
            raise Problem(f"--{key.replace('_', '-')} {getattr(changed, key):g} is not positive")
    if changed.until and not 0 < percent(changed.until) < 1:
        raise Problem(f"--until {changed.until!r} is not a share: say 2% or 0.02")
    if changed.until and changed.repetitions > 1:
        raise Problem("--until and --repetitions exclude each other: repetitions that stop by themselves are not alike")
    changed.check()
    if min(changed.size) <= 0:
        raise Problem(
            f"--size {changed.size[0]} {changed.size[1]} is not a size: height and width in pixels, both positive"
        )
    threads = changed.threads if changed.threads is not None else here.cores
    if not 1 <= threads <= here.cores:
        raise Problem(
            f"--threads {threads} is not between 1 and {here.cores}, the physical cores that this process may use"
        )
    if not re.fullmatch(r"[a-z0-9.-]*", changed.label):
        raise Problem(
            f"--label {changed.label!r} becomes part of a file's name: lower-case letters, digits, dots and dashes"
        )
    return dataclasses.replace(
        changed,
        threads=threads,
        size=tuple(changed.size),
        modes=find_modes(changed.modes or benchmark.modes_without_bf16 or benchmark.modes),
        models=find_models(changed.models),
        allocator=tuple(dict.fromkeys(changed.allocator)),
    )


def percent(text: str) -> float:
    """`2%` and `0.02` alike; 0 for nothing, NaN for what is no number."""
    try:
        return float(text.removesuffix("%") or 0) / (100 if text.endswith("%") else 1)
    except ValueError:
        return float("nan")


def find_modes(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in modes.MODES and name != "all":
            raise Problem(
                f"unknown mode {name!r}{did_you_mean(name, [*modes.MODES])}; modes: {', '.join(modes.MODES)}, all"
            )
    wanted = [*modes.MODES] if "all" in names else names
    if not wanted:
        raise Problem("--modes names no mode")
    return tuple(mode for mode in modes.MODES if mode in wanted)


def find_models(names: tuple[str, ...]) -> tuple[str, ...]:
    """Zoo models without importing anything; other names are looked up by a child that imports timm."""
    if not names:
        raise Problem("--models names no model")
    if deep := [name for name in names if name in zoo.VOLUMES]:
        raise Problem(f"{deep[0]} is a 3D model: benchmark_official.py takes it with --volumes")
    found = {name: zoo.match(name) for name in names}
    foreign = [name for name, models in found.items() if not models]
    if foreign:
        print(f"looking up {', '.join(foreign)} in timm ...", file=sys.stderr)
        command = [sys.executable, "-W", "ignore", "-c", LOOK_UP, *foreign]
        child = subprocess.run(command, capture_output=True, text=True)
        if child.returncode:
            raise Problem(f"timm could not be asked: {(child.stderr.strip().splitlines() or ['no message'])[-1]}")
        *answers, everything = child.stdout.split("\n")[: len(foreign) + 1]
        for name, answer in zip(foreign, answers, strict=True):
            found[name] = answer.split()
            if not found[name]:
                known = [*dict.fromkeys([*zoo.BY_MODEL, *zoo.FAMILIES, *everything.split()])]
                raise Problem(f"unknown model {name!r}{did_you_mean(name, known)}; --list shows the zoo")
    return tuple(dict.fromkeys(model for models in found.values() for model in models))


def did_you_mean(name: str, known: list[str]) -> str:
    near = zoo.near(name, known)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


def writable(folder: Path) -> None:
    try:
        (folder / "journals").mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Problem(f"{folder} cannot be written to ({error.strerror}); choose another folder with --out") from None
