"""The flags that every script has, and what is wrong with them."""

import dataclasses
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from . import machine, modes, zoo
from .cases import SHARED, Case

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
    """timm names, patterns ('resnet*'), families ('MobileOne'), 'five', 'twelve' or 'all'. A pattern that no model
    of the zoo matches is looked up in all of timm."""
    modes: tuple[str, ...] | None = None
    """Modes by name, or 'all'; by default the script's own. baseline, autocast, compile, autocast+compile,
    channels_last, compile+freezing, autocast+compile+freezing; onnxruntime, openvino, openvino-bf16, ncnn, mnn,
    onnxruntime-int8, openvino-int8."""
    size: Annotated[tuple[int, int], tyro.conf.arg(metavar="H W")] = (512, 512)
    """Height and width of the input in pixels."""
    in_chans: int = 3
    """Channels of the input: 1 for slices of a CT (the photograph in grey)."""
    batch_size: int = 1
    """Images per inference."""
    samples: int = 96
    """Valid samples per case in all, spread over the rounds."""
    rounds: int = 8
    """Runs per case, each in a fresh process; intervals are over them."""
    shard: str = ""
    """'2/4': of the rounds only the 2nd, the 6th, ...: four machines of a kind that share a folder take all of them."""
    join: bool = False
    """Count the rounds that other hosts of this kind of CPU measured as done; --shard does so too."""
    until: str = ""
    """'3%': after the rounds go on with the cases that runs leave unsure by more than +- 3 %; what differs between
    sessions, which no rounds narrow, comes on top."""
    max_rounds: int = 20
    """Rounds per case at most under --until."""
    repetitions: int = 1
    """Sweeps one after the other, each a session of its own that shares nothing with the others."""
    threads: int | None = None
    """Threads per inference; by default all physical cores that this process may really use, of a hybrid CPU the
    P-cores."""
    budget: float = 2.0
    """Seconds of measuring that one run may take at most, preparing not counted."""
    no_wait: bool = False
    """Measure beside whatever else runs. By default a run that other processes disturbed is repeated when they pause,
    which makes a run up to ten minutes longer (--quick: 20 seconds)."""
    quick: bool = False
    """A few models and rounds, into a folder of its own: to try it out."""
    restart: bool = False
    """Begin this machine's run log anew; the old one is kept in run_logs/old/."""
    label: str = ""
    """A name for a run log of its own, where this machine has one of other settings or versions."""
    report: bool = False
    """Rebuild CSV and PNG from the run logs, measure nothing."""
    list: bool = False
    """Say what would run and how long it will take about, run nothing."""
    out: Path | None = None
    """Folder for run logs, CSV and PNG; by default the script's own."""
    pretrained: bool = False
    """timm's weights instead of calibrated random ones (needs the network, once)."""
    allocator: tuple[Literal["retained", "default"], ...] = ("retained",)
    """Keep freed memory in the process (pinned), or glibc's defaults (plain); both are compared in the same rounds."""
    seed: int = 0
    """Of the random weights and of the order of the runs."""

    def shared(self) -> dict[str, object]:
        """What all cases of a run have in common."""
        return {field: getattr(self, field) for field in SHARED}

    def header(self) -> dict[str, object]:
        """What changes what is measured: another value is another run log."""
        return self.shared()

    def files(self) -> dict[str, str]:
        """Where the files lie that cases name: no path enters a run log that is meant to be published."""
        return {}

    def wait_s(self) -> float:
        """Seconds that a run may get longer by, for runs that other processes disturbed."""
        return 0 if self.no_wait else 20 if self.quick else 600

    def folder(self, script: Path) -> Path:
        """Of the results, where --out names none; `script` is the script's."""
        return script / "quick" if self.quick else script

    def check(self) -> None:
        """Raises Problem for what a script's own flags cannot mean."""

    def cases(self, **particular: object) -> Sequence[Case]:
        """A case per model, mode and allocator, with what a script sets of the other fields."""
        return [
            Case(**{"model": model, "mode": mode, "allocator": allocator, **self.shared(), **particular})
            for model in self.models
            for mode in self.modes
            for allocator in self.allocator
        ]


def resolve(
    settings: Settings, folder: Path, defaults: Settings, quick: dict[str, object], default_modes: tuple[str, ...]
) -> Settings:
    """With names looked up and defaults filled in; `folder` is the script's. Raises Problem for what cannot be
    measured."""
    given_out = settings.out.expanduser() if settings.out else None  # a shell leaves the ~ of --out=~/x as it is
    settings = dataclasses.replace(settings, out=given_out)
    changed = settings
    if settings.quick:
        untouched = [key for key in quick if getattr(settings, key) == getattr(defaults, key)]
        changed = dataclasses.replace(changed, **{key: quick[key] for key in untouched})
    check(changed)
    cores = sum(machine.usable_by_kind())
    threads = changed.threads if changed.threads is not None else machine.usable_cores()
    if not 1 <= threads <= cores:
        raise Problem(f"--threads {threads} is not between 1 and {cores}, the physical cores that this process may use")
    return dataclasses.replace(
        changed,
        out=settings.out or changed.folder(folder),
        threads=threads,
        size=tuple(changed.size),
        modes=find_modes(default_modes if changed.modes is None else changed.modes),
        models=find_models(changed.models),
        allocator=tuple(dict.fromkeys(changed.allocator)),
    )


def check(settings: Settings) -> None:
    """Raises Problem for values that mean nothing."""
    for key in ("in_chans", "batch_size", "samples", "rounds", "budget", "repetitions", "max_rounds"):
        if not 0 < getattr(settings, key) < math.inf:
            raise Problem(f"--{key.replace('_', '-')} {getattr(settings, key):g} is no positive number")
    part, parts = shard(settings.shard)
    if not 1 <= part <= parts <= settings.rounds * settings.repetitions:
        most = settings.rounds * settings.repetitions
        raise Problem(f"--shard {settings.shard!r} is not K/N, the Kth of N shares, with N at most {most}, the rounds")
    if settings.shard and settings.until:
        raise Problem("--until and --shard exclude each other: which rounds follow is known after the last")
    if settings.shard and settings.restart:
        raise Problem("--restart and --shard exclude each other: each would put aside what the others measure")
    if settings.join and settings.restart:
        raise Problem("--restart and --join exclude each other: --restart puts aside the runs that --join counts")
    if settings.until and not 0 < percent(settings.until) < 1:
        raise Problem(f"--until {settings.until!r} is not a share: say 5% or 0.05")
    if settings.until and settings.repetitions > 1:
        raise Problem("--until and --repetitions exclude each other: repetitions that stop by themselves are not alike")
    if settings.until and settings.max_rounds < settings.rounds:
        raise Problem(f"--max-rounds {settings.max_rounds} is less than --rounds {settings.rounds}")
    if not settings.allocator:
        raise Problem("--allocator names none: pinned, plain")
    settings.check()
    if min(settings.size) <= 0:
        raise Problem(
            f"--size {settings.size[0]} {settings.size[1]} is not a size: height and width in pixels, both positive"
        )
    if settings.label and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?", settings.label):
        raise Problem(
            f"--label {settings.label!r} becomes part of a folder's name: up to 40 lower-case letters and digits, dots "
            "and dashes between them"
        )


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
            known = ", ".join(modes.MODES)
            raise Problem(f"unknown mode {name!r}{did_you_mean(name, [*modes.MODES])}; modes: {known}, all")
    if not names:
        raise Problem("--modes names no mode")
    return tuple(modes.in_order(modes.MODES if "all" in names else names))


def find_models(names: tuple[str, ...]) -> tuple[str, ...]:
    """Zoo models without importing anything; other names are looked up by a child that imports timm."""
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
        models |= look_up(foreign)
    return tuple(dict.fromkeys(model for name in names for model in models[name]))


def look_up(names: list[str]) -> dict[str, list[str]]:
    """What timm knows by names or patterns that the zoo does not know."""
    print(f"looking up {', '.join(names)} in timm ...", file=sys.stderr)
    *answers, everything = ask("timm could not be asked:", LOOK_UP, *names).split("\n")[: len(names) + 1]
    models = {name: answer.split() for name, answer in zip(names, answers, strict=True)}
    for name in names:
        if not models[name]:
            known = [*dict.fromkeys([*zoo.BY_MODEL, *zoo.FAMILIES, *everything.split()])]
            raise Problem(f"unknown model {name!r}{did_you_mean(name, known)}; --list shows the zoo")
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
    near = zoo.near(name, known)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
