"""Which network, mode and runtime? The best of what was measured on this machine that meets what you ask for: rows that
no other row beats in everything named with --by.

    uv run tools/recommend.py --decoder fpn --latency 50ms --min-top1 72
    uv run tools/recommend.py --machine amd-25.17-2c --precision fp32 --memory 200MB --format json

Without a run log of the machine it says which script makes one. Top-1 is that of the encoder's published weights on
ImageNet: a hint of what it can learn, not of how well it segments.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import tyro

from benchmarks import catalogue
from segbench import machine, modes
from segbench.analysis import markdown
from segbench.cases import DECODERS, FEATURES, OUTPUTS
from segbench.problem import Problem

UNITS = {"ms": 1, "s": 1e3, "MB": 1, "GB": 1e3, "M": 1}  # in those of the columns
SMALLER = {"latency": "latency_ms", "memory": "memory_mb", "params": "params_m"}  # better
COLUMNS = {
    "model": "network",
    "decoder": "decoder",
    "output": "output",
    "mode": "mode",
    "precision": "precision",
    "size": "size",
    "latency_ms": "ms",
    "interval": "95 % interval",
    "memory_mb": "MB",
    "params_m": "params, M",
    "top1": "top-1",
    "prepare_s": "prepare, s",
    "benchmark": "measured by",
}
DIGITS = {"ms": 1, "MB": 0, "params, M": 2, "top-1": 1, "prepare, s": 1}
# Which script measures what, where nothing was.
MAKERS = {"": "encoder_only", FEATURES: "fpn_decoder", "fpn": "fpn_decoder", "unet": "unet_decoder"}


@dataclass
class Settings:
    decoder: Literal["none", "fpn", "unet", "any"] = "any"
    """Behind the encoder; none: with its classifier."""
    latency: str = ""
    """At most, as 50ms or 0.05s."""
    memory: str = ""
    """Of the loaded network and its inference, at most, as 200MB or 1GB."""
    params: str = ""
    """At most, as 5M."""
    min_top1: float | None = None
    """Of the encoder on ImageNet, %."""
    precision: Literal["fp32", "bf16", "int8", "floating", "any"] = "floating"
    """floating: FP32 and BF16. INT8's accuracy depends on your weights: see benchmarks/precision."""
    size: tuple[int, ...] = (512, 512)
    """Of the input; 128 128 64 for the 3D networks."""
    output: Literal["logits", "labels"] = "logits"
    """What is timed: up to the logits, or up to a map of labels, whichever way."""
    by: tuple[Literal["latency", "memory", "params", "top1"], ...] = ("latency", "top1")
    """What no other row may beat in all of."""
    machine: str = ""
    """Of a run log; by default this one's name."""
    format: Literal["table", "json"] = "table"


def quantity(flag: str, text: str, units: tuple[str, ...]) -> float:
    """`50ms` -> 50, in the first of the units. Raises Problem."""
    parts = re.fullmatch(r"([0-9.]+)\s*([A-Za-z]*)", text)
    try:
        value = float(parts[1]) * UNITS[parts[2] or units[0]]
    except (TypeError, ValueError, KeyError):
        value = 0
    if not value or (parts[2] or units[0]) not in units:
        raise Problem(f"--{flag} {text!r} is no quantity: say {' or '.join(f'50{unit}' for unit in units)}")
    return value


def constraints(settings: Settings) -> dict[str, Callable[[pd.DataFrame], pd.Series]]:
    """In words -> the rows that meet it."""
    tests = {"right": lambda rows: (rows.status == "ok") & (rows.allocator == "retained")}
    tests[f"--output {settings.output}"] = lambda rows: (rows.output == "logits") == (settings.output == "logits")
    tests["one image at a time"] = lambda rows: rows.batch_size == 1
    size = "x".join(map(str, settings.size))
    tests[f"--size {size.replace('x', ' ')}"] = lambda rows: rows["size"] == size
    if settings.decoder != "any":
        wanted = settings.decoder.replace("none", "")
        tests[f"--decoder {settings.decoder}"] = lambda rows: rows.decoder == wanted
    else:
        tests["a network that answers"] = lambda rows: rows.decoder != FEATURES
    precisions = {"floating": ("fp32", "bf16"), "any": tuple(modes.PRECISIONS)}
    allowed = precisions.get(settings.precision, (settings.precision,))
    tests[f"--precision {settings.precision}"] = lambda rows: rows.precision.isin(allowed)
    limits = {"latency": ("ms", "s"), "memory": ("MB", "GB"), "params": ("M",)}
    for flag, units in limits.items():
        if text := getattr(settings, flag):
            most = quantity(flag, text, units)
            tests[f"--{flag} {text}"] = lambda rows, flag=flag, most=most: rows[SMALLER[flag]] <= most
    if settings.min_top1 is not None:
        tests[f"--min-top1 {settings.min_top1:g}"] = lambda rows: rows.top1 >= settings.min_top1
    return tests


def meeting(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Those that meet everything. Raises Problem that names the first constraint which leaves none."""
    for text, test in constraints(settings).items():
        left = rows[test(rows)]
        if left.empty:
            raise Problem(f"of {len(rows)} rows that were measured none meets {text}{nearest(rows, text)}")
        rows = left
    return rows


def nearest(rows: pd.DataFrame, text: str) -> str:
    """How near the rows come, or what would measure such rows."""
    flag, _, value = text.removeprefix("--").partition(" ")
    if flag in SMALLER:
        return f"; the least is {rows[SMALLER[flag]].min():.3g}"
    if flag == "min-top1":
        return f"; the most is {rows.top1.max():.3g}"
    if flag == "output":
        return ": run `uv run benchmarks/labels/benchmark.py`"
    if flag == "decoder":
        return f": run `uv run benchmarks/{MAKERS[value.replace('none', '')]}/benchmark.py`"
    return f"; there are {', '.join(sorted(rows['size'].unique()))}" if flag == "size" else ""


def front(rows: pd.DataFrame, by: tuple[str, ...]) -> pd.DataFrame:
    """The Pareto front: rows that none is as good as in everything and better than in something. The fastest first."""
    losses = pd.DataFrame({name: rows[SMALLER[name]] if name in SMALLER else -rows.top1 for name in by}).fillna(1e9)
    values = losses.to_numpy()
    beaten = [((values <= own).all(axis=1) & (values < own).any(axis=1)).any() for own in values]
    return rows[[not lost for lost in beaten]].sort_values("latency_ms")


def once(rows: pd.DataFrame) -> pd.DataFrame:
    """Of a case that several benchmarks measured, the row with the narrowest interval."""
    width = (rows.throughput_high / rows.throughput_low).fillna(1e9)
    keys = ["model", "decoder", "classes", "output", "mode", "size", "in_chans", "threads"]
    return rows.assign(width=width).sort_values("width").drop_duplicates(keys).drop(columns="width")


def recommend(settings: Settings) -> pd.DataFrame:
    """The rows to show. Raises Problem."""
    name = settings.machine or machine.describe().name
    rows = catalogue.rows(machine=name)
    if rows.empty:
        known = ", ".join(sorted(catalogue.machines(catalogue.all_results())))
        script = "encoder_only" if settings.decoder == "any" else MAKERS[settings.decoder.replace("none", "")]
        raise Problem(
            f"{name} has no run log yet: run `uv run benchmarks/{script}/benchmark.py`, or name a machine with "
            f"--machine ({known})"
        )
    return front(once(meeting(rows.assign(memory_mb=memory_mb), settings)), settings.by)


def memory_mb(rows: pd.DataFrame) -> pd.Series:
    """Of torch what an inference adds to the loaded network, and its weights; of what is converted, which sets its
    buffers aside when it is loaded, what loading and an inference add together."""
    converted = rows.runtime != "torch"
    return rows.memory_mb_img + (4 * rows.params_m).where(~converted, rows.loaded_mb)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    interval = markdown.spans(1e3 / rows.throughput_high, 1e3 / rows.throughput_low)
    table = rows.assign(interval=interval, decoder=rows.decoder.map(DECODERS | {"": ""}))
    table["output"] = rows.output.map(OUTPUTS)
    return table[[*COLUMNS]].rename(columns=COLUMNS)


def records(rows: pd.DataFrame) -> list[dict]:
    """For a program: numbers with their units in the names, null where there is none."""
    wanted = ["machine", "model", "decoder", "classes", "output", "mode", "runtime", "precision", "size", "in_chans"]
    wanted += ["threads", "latency_ms", "throughput_img_s", "throughput_low", "throughput_high", "memory_mb"]
    wanted += ["params_m", "gmacs", "top1", "prepare_s", "prepare_warm_s", "rel_error", "rounds", "benchmark"]
    return json.loads(rows[wanted].to_json(orient="records"))


def main() -> int:
    settings = tyro.cli(Settings, description=__doc__)
    if not settings.by:
        raise Problem("--by names nothing")
    rows = recommend(settings)
    if settings.format == "json":
        print(json.dumps(records(rows), indent=1))
    else:
        print(f"{rows.machine.iloc[0]}, {rows.cpu.iloc[0]}, {rows.threads.iloc[0]} threads\n")
        print(markdown.aligned(shown(rows), DIGITS))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"recommend.py: {problem}", file=sys.stderr)
        sys.exit(2)
