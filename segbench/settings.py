"""The flags that every script has, and what is wrong with them."""

import dataclasses
import difflib
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from . import machine, modes, zoo
from .cases import SHARED, Case
from .problem import Problem

# Run in a child: which of its arguments timm knows, a line each, then all that it knows.
LOOK_UP = """
import sys, timm
for name in sys.argv[1:]:
    print(*(timm.list_models(name) or [name] * timm.is_model(name)))
print(*timm.list_models())
"""


def default_is(text: str) -> object:
    """For --help, where the default itself says nothing."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")


@dataclass
class WhatToMeasure:
    models: tuple[str, ...] = ("all",)
    """Encoders: names of timm, patterns ('resnet*'), families ('MobileOne'), 'five' (the small ones of --quick),
    'twelve' (small and large ones of most families), or 'all' that segbench/zoo.py lists. Other names and patterns are
    looked up in timm."""
    modes: tuple[str, ...] = ()
    """How networks are run: names of segbench/modes.py, or 'all' of those. Behind a name may stand +nhwc, for outputs
    with channels last, and an allocator: +retained (glibc's, which keeps freed memory), +jemalloc or +tcmalloc.
    baseline is always measured, in the same rounds. A mode in BF16 that this CPU would have to emulate is left out
    unless it is named here."""
    size: Annotated[tuple[int, ...], tyro.conf.arg(metavar="H W")] = (512, 512)
    """Height and width of the input in pixels."""
    in_chans: int = 3
    """Channels of the input: 1 for slices of a CT."""
    batch_size: int = 1
    """Images per inference."""
    pretrained: bool = False
    """Use timm's trained weights, downloaded once, instead of calibrated random ones."""
    quick: bool = False
    """Try it out: a few models and rounds, written into quick/."""


@dataclass
class HowLong:
    rounds: int = 8
    """Runs of each case, each in a fresh process. Intervals narrow with their number."""
    samples: int = 96
    """Valid samples per case, over all rounds together."""
    budget: float = 2.0
    """Seconds that the samples of one run may take at most."""
    until: Annotated[str, default_is("no further rounds")] = ""
    """'3%': go on after the rounds until the runs of every case agree to +- 3 %."""
    max_rounds: int = 20
    """Most rounds per case with --until."""
    repetitions: int = 1
    """Measure everything so many times, each time in a session of its own."""
    no_wait: bool = False
    """Measure beside other programs at once. Without it a run that they disturbed is repeated when they pause; that
    prolongs a session by ten minutes at most, by 20 s with --quick."""


@dataclass
class WhereTo:
    out: Annotated[Path | None, default_is("the script's folder")] = None
    """Folder for run logs, CSV and PNG."""
    label: Annotated[str, default_is("none")] = ""
    """Keep a run log of its own under this name, beside this machine's other one."""
    restart: bool = False
    """Archive this machine's old results in run_logs/old/ and start over."""
    report: bool = False
    """Make CSV and PNG from the run logs and measure nothing."""
    list: bool = False
    """Show what would be measured and about how long it takes, and measure nothing."""


@dataclass
class Advanced:
    threads: int = field(default_factory=machine.usable_cores)
    """Threads per inference: at most the physical cores that this process may use (of a hybrid CPU by default the
    P-cores)."""
    seed: int = 0
    """Seed of the random weights and of the order of the runs."""
    shard: Annotated[str, default_is("all rounds")] = ""
    """'2/4': run shard 2 of 4, the rounds 2, 6, 10, ... Machines of one kind that write into one folder can share the
    rounds out like this."""
    join: bool = False
    """Count rounds that other hosts with this kind of CPU measured as done. --shard does so by itself."""


@dataclass
class Settings(Advanced, WhereTo, HowLong, WhatToMeasure):
    """What is measured and how. The same for every script; the defaults are the script's."""

    def header(self) -> dict[str, object]:
        """What changes what is measured: another value is another run log."""
        return {field: getattr(self, field) for field in SHARED}

    def files(self) -> dict[str, str]:
        """Where the files lie that cases name: no path enters a run log that is meant to be published."""
        return {}

    def dimensions(self) -> tuple[int, ...]:
        """How many sides an input may have."""
        return (2,)

    def wait_s(self) -> float:
        """Seconds that a run may get longer by, for runs that other processes disturbed."""
        return 0 if self.no_wait else 20 if self.quick else 600

    def folder(self, script: Path) -> Path:
        """Of the results, where --out names none; `script` is the script's."""
        return script / "quick" if self.quick else script

    def check(self) -> None:
        """Raises Problem for what a script's own flags cannot mean."""

    def cases(self, **particular: object) -> Sequence[Case]:
        """A case per model and mode, with what a script sets of the other fields."""
        fields = {field: getattr(self, field) for field in SHARED} | particular
        return [Case(model=model, mode=mode, **fields) for model in self.models for mode in self.modes]


def parse(defaults: object, description: str, args: Sequence[str] | None = None) -> object:
    """The command line as an object of the dataclass of `defaults`; --help has a group for each of its base classes."""
    composed, config = type(defaults), (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    about = {"description": wrapped(description), "prog": Path(sys.argv[0]).name, "args": args, "config": config}
    groups = [base for base in composed.__mro__[1:] if dataclasses.is_dataclass(base) and base.__bases__ == (object,)]
    if not groups:
        return tyro.cli(composed, default=defaults, **about)
    common, options = Settings.__bases__, []
    for group in sorted(groups, key=lambda group: -common.index(group) if group in common else -len(common)):
        default = group(**{option.name: getattr(defaults, option.name) for option in dataclasses.fields(group)})
        title = re.sub("(?<!^)(?=[A-Z])", "_", group.__name__).lower()
        options.append((title, group, field(default_factory=lambda default=default: default)))
    grouped = tyro.cli(dataclasses.make_dataclass("Options", options), **about)
    return composed(**{name: value for group in vars(grouped).values() for name, value in vars(group).items()})


def wrapped(text: str) -> str:
    """Its paragraphs in lines of 80 characters, but lines that are indented as they are. Tyro keeps a line break before
    a space and joins other lines."""
    return "\n\n".join(
        paragraph if paragraph.startswith(" ") else textwrap.fill(paragraph, 80, subsequent_indent=" ")
        for paragraph in text.strip().split("\n\n")
    )


def resolve(settings: Settings, folder: Path, defaults: Settings, quick: dict[str, object]) -> Settings:
    """With names looked up and defaults filled in; `folder` is the script's. Raises Problem for what is impossible."""
    changed = settings
    if settings.quick:
        untouched = [key for key in quick if getattr(settings, key) == getattr(defaults, key)]
        changed = dataclasses.replace(changed, **{key: quick[key] for key in untouched})
    check(changed)
    wanted = find_modes(changed.modes)
    if settings.modes == defaults.modes or "all" in settings.modes:
        wanted = modes.without_emulation(wanted, machine.describe().native_bf16)
    return dataclasses.replace(
        changed,
        out=expanded(settings.out or changed.folder(folder)),
        size=tuple(changed.size),
        modes=wanted,
        models=find_models(changed.models),
    )


def expanded(path: Path) -> Path:
    """With the home folder for ~, which a shell leaves in --out=~/x as it is. Raises Problem where there is none."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise Problem(f"{path}: there is no such home folder; name another one") from None


EXCLUDING = {
    ("until", "shard"): "which rounds follow is known after the last",
    ("until", "repetitions"): "repetitions must be alike",
    ("restart", "shard"): "each machine would archive what the others measure",
    ("restart", "join"): "--restart archives what --join counts",
}


def check(settings: Settings) -> None:
    """Raises Problem for values that mean nothing."""
    for key in ("in_chans", "batch_size", "samples", "rounds", "budget", "repetitions", "max_rounds"):
        if not 0 < getattr(settings, key) < math.inf:
            raise Problem(f"--{key.replace('_', '-')} {getattr(settings, key):g} is no positive number")
    cores = sum(machine.usable_by_kind())
    if not 1 <= settings.threads <= cores:
        raise Problem(
            f"--threads {settings.threads} is not between 1 and {cores}, the physical cores that this process may use"
        )
    (part, parts), most = shard(settings.shard), settings.rounds * settings.repetitions
    if not 1 <= part <= parts <= most:
        raise Problem(f"--shard {settings.shard!r} is not K/N, shard K of N, with N at most {most}, the rounds")
    given = {flag for flag in ("until", "shard", "restart", "join") if getattr(settings, flag)}
    given |= {"repetitions"} if settings.repetitions > 1 else set()
    for pair, why in EXCLUDING.items():
        if given.issuperset(pair):
            raise Problem(f"--{pair[0]} and --{pair[1]} exclude each other: {why}")
    if settings.until and not 0 < percent(settings.until) < 1:
        raise Problem(f"--until {settings.until!r} is no percentage: say 5% or 0.05")
    if settings.until and settings.max_rounds < settings.rounds:
        raise Problem(f"--max-rounds {settings.max_rounds} is less than --rounds {settings.rounds}")
    if len(settings.size) not in settings.dimensions() or min(settings.size) <= 0:
        raise Problem(f"--size {' '.join(map(str, settings.size))}: height and width in pixels, both positive")
    if settings.label and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?", settings.label):
        raise Problem(
            f"--label {settings.label!r} becomes part of a folder's name: up to 40 lower-case letters and digits, dots "
            "and dashes between them"
        )
    settings.check()


def percent(text: str) -> float:
    """`5%` and `0.05` alike; 0 for nothing, NaN for what is no number."""
    try:
        return float(text.removesuffix("%") or 0) / (100 if text.endswith("%") else 1)
    except ValueError:
        return math.nan


def shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4), nothing as all; (0, 0) for what is none."""
    parts = re.fullmatch(r"(\d+)/(\d+)", text or "1/1")
    return (int(parts[1]), int(parts[2])) if parts else (0, 0)


def find_modes(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in modes.MODES and name != "all":
            known = ", ".join(mode.name for mode in modes.BASES)
            hint = did_you_mean(name, [*modes.MODES, "all"])
            raise Problem(f"unknown mode {name!r}{hint}; modes: {known}, all; --help names what can stand behind them")
    if not names:
        raise Problem("--modes names no mode")
    everything = [mode.name for mode in modes.BASES] if "all" in names else []
    return tuple(modes.in_order([modes.BASELINE, *everything, *(name for name in names if name != "all")]))


def find_models(names: tuple[str, ...], hint: str = "; --list shows the encoders") -> tuple[str, ...]:
    """Zoo models without importing anything; other names are looked up by a child that imports timm. `hint`: what a
    tool says of names that nobody knows."""
    if not names:
        raise Problem("--models names no model")
    for name in names:
        if "," in name:
            raise Problem(f"--models {name!r}: names are separated by spaces, --models {name.replace(',', ' ')}")
        if name.startswith(("hf-hub:", "hf_hub:")):
            raise Problem(f"--models {name!r}: only models of timm, by timm's own names: {name.split('/')[-1]}")
    if volumes := [name for name in names if name in zoo.VOLUMES]:
        raise Problem(f"{volumes[0]} is a 3D model: benchmark_official.py takes it with --volumes")
    models = {name: zoo.match(name) for name in names}
    if foreign := [name for name in names if not models[name]]:
        models |= look_up(foreign, hint)
    return tuple(dict.fromkeys(model for name in names for model in models[name]))


def look_up(names: list[str], hint: str) -> dict[str, list[str]]:
    """What timm knows by names or patterns that the zoo does not know."""
    print(f"looking up {', '.join(names)} in timm ...", file=sys.stderr)
    *answers, everything = ask("timm could not be asked:", LOOK_UP, *names).split("\n")[: len(names) + 1]
    models = {name: answer.split() for name, answer in zip(names, answers, strict=True)}
    for name in names:
        if not models[name]:
            known = [*zoo.BY_MODEL, *zoo.FAMILIES, *everything.split()]
            raise Problem(f"unknown model {name!r}{did_you_mean(name, known)}{hint}")
    return models


def ask(complaint: str, code: str, *arguments: str) -> str:
    """What a child prints that may import torch, as this process never does. Raises Problem: the complaint, and the
    last line of the child's own."""
    command = [sys.executable, "-P", "-W", "ignore", "-c", code, *arguments]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode:
        raise Problem(f"{complaint} {(child.stderr.strip().splitlines() or ['no message'])[-1]}")
    return child.stdout


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint at the names that look like it, the nearest first; "" where none does."""
    near = difflib.get_close_matches(name, dict.fromkeys(known))
    return f" (did you mean {' or '.join(near)}?)" if near else ""
