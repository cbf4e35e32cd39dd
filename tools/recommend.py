"""Which network, mode and runtime? The best rows measured on this machine.

They meet what you ask for, and no other row is better in everything named with --by.

    uv run tools/recommend.py --decoder fpn --latency 50ms --min-top1 72
    uv run tools/recommend.py --machine amd-25.17-2c --memory 200MB

Without a run log of the machine it names the script that makes one. Top-1 is that of the encoder's published weights on
ImageNet: a hint of what it can learn, not of how well it segments.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from segbench import machine, modes, settings
from segbench.cases import DECODERS, FEATURES, OUTPUTS, sides
from segbench.problem import Problem, exit_with

if TYPE_CHECKING:  # imported when it is needed, for --help
    import pandas as pd

    Constraint = dict[str, Callable[[pd.DataFrame], pd.Series]]  # in words -> which rows meet it

UNITS = {
    "latency": {"ms": 1, "s": 1e3},
    "memory": {"MB": 1, "GB": 1e3},
    "params": {"M": 1, "k": 1e-3},
}  # in those of the columns
COLUMN_OF = {"latency": "latency_ms", "memory": "memory_mb", "params": "params_m"}  # where smaller is better
HEADINGS = {
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
PRECISIONS = {"floating": ("fp32", "bf16"), "any": tuple(modes.PRECISIONS)}  # of --precision; others name themselves
SAME_CASE = ["model", "decoder", "classes", "output", "mode", "size", "in_chans", "threads"]
IN_JSON = ["machine", "model", "decoder", "classes", "output", "mode", "runtime", "precision", "size", "in_chans"]
IN_JSON += ["threads", "latency_ms", "throughput_img_s", "throughput_low", "throughput_high", "memory_mb"]
IN_JSON += ["params_m", "gmacs", "top1", "prepare_s", "prepare_warm_s", "rel_error", "rounds", "benchmark"]
# Which script measures a decoder.
BENCHMARKS = {"any": "encoder_only", "none": "encoder_only", "fpn": "fpn_decoder", "unet": "unet_decoder"}


@dataclass
class Constraints:
    decoder: Literal["none", "fpn", "unet", "any"] = "any"
    """Behind the encoder; none: with its classifier."""
    latency: Annotated[str, settings.default_is("no limit")] = ""
    """At most, as 50ms or 0.05s."""
    memory: Annotated[str, settings.default_is("no limit")] = ""
    """Of the loaded network and its inference, at most, as 200MB or 1GB."""
    params: Annotated[str, settings.default_is("no limit")] = ""
    """Parameters, at most, as 5M."""
    min_top1: Annotated[float | None, settings.default_is("no limit")] = None
    """Top-1 of the encoder on ImageNet in %, at least."""
    precision: Literal["fp32", "bf16", "int8", "floating", "any"] = "floating"
    """floating: FP32 and BF16. The accuracy of INT8 depends on your weights: see benchmarks/precision."""
    size: Annotated[tuple[int, ...], tyro.conf.arg(metavar="H W | D H W")] = (512, 512)
    """Sides of the input; 128 128 64 for the 3D networks."""
    output: Literal["logits", "labels"] = "logits"
    """What is timed: up to the logits, or up to a map of labels in any way."""


@dataclass
class Choice:
    by: tuple[Literal["latency", "memory", "params", "top1"], ...] = ("latency", "top1")
    """No other row is better in all of these."""
    machine: Annotated[str, settings.default_is("this machine")] = ""
    """Name of the machine of a run log."""
    format: Literal["table", "json"] = "table"
    """For readers or for programs."""


@dataclass
class Settings(Constraints, Choice):
    pass


def quantity(flag: str, text: str) -> float:
    """`50ms` -> 50, in the first unit of the flag. Raises Problem, also for a number without its unit: 0.05 may be
    meant in seconds, and 5000000 is a count."""
    units = UNITS[flag]
    parts = re.fullmatch(rf"(\d+\.?\d*|\.\d+)\s*({'|'.join(units)})?", text)
    number = float(parts[1]) if parts else 0
    if not number:
        raise Problem(f"--{flag} {text!r} is no quantity: say {' or '.join(f'50{unit}' for unit in units)}")
    if not parts[2]:
        raise Problem(f"--{flag} {text} has no unit: say {' or '.join(units)}, as in 50{next(iter(units))}")
    return number * units[parts[2]]


def case_constraints(settings: Settings) -> "Constraint":
    """Those on what was measured. Raises Problem."""
    size, decoder = sides(settings.size), settings.decoder.replace("none", "")
    precisions = PRECISIONS.get(settings.precision, (settings.precision,))
    tests = {
        "being valid": lambda rows: rows.status == "ok",
        f"--output {settings.output}": lambda rows: (rows.output == "logits") == (settings.output == "logits"),
        "one image at a time": lambda rows: rows.batch_size == 1,
        f"--size {size.replace('x', ' ')}": lambda rows: rows["size"] == size,
        f"--decoder {settings.decoder}": lambda rows: rows.decoder == decoder,
        f"--precision {settings.precision}": lambda rows: rows.precision.isin(precisions),
    }
    if settings.decoder == "any":
        tests["--decoder any"] = lambda rows: rows.decoder != FEATURES  # feature maps alone answer nothing
    return tests


def limits(settings: Settings) -> "Constraint":
    """Those on what came out. Raises Problem."""
    tests = {}
    for flag, column in COLUMN_OF.items():
        if text := getattr(settings, flag):
            most = quantity(flag, text)
            tests[f"--{flag} {text}"] = lambda rows, column=column, most=most: rows[column] <= most
    if settings.min_top1 is not None:
        tests[f"--min-top1 {settings.min_top1:g}"] = lambda rows: rows.top1 >= settings.min_top1
    return tests


def meeting(rows: "pd.DataFrame", settings: Settings) -> "pd.DataFrame":
    """The rows that meet all constraints, one of each case. Which measurement of a case counts does not depend on the
    limits: else a looser one could let a slower measurement in. Raises Problem that names the first constraint which
    leaves none."""
    before, after = case_constraints(settings), limits(settings)
    fitting = without_repeats(filtered(rows, before, len(rows), settings))
    return filtered(fitting, after, len(rows), settings)


def filtered(rows: "pd.DataFrame", tests: "Constraint", count: int, settings: Settings) -> "pd.DataFrame":
    for text, test in tests.items():
        fitting = rows[test(rows)]
        if fitting.empty:
            raise Problem(f"none of {count} measured rows meets {text}{advice(rows, text, settings)}")
        rows = fitting
    return rows


def advice(rows: "pd.DataFrame", text: str, settings: Settings) -> str:
    """How near the rows come to a constraint, or what would measure such rows."""
    flag = text.removeprefix("--").split()[0]
    if flag in COLUMN_OF:
        return f"; the least is {rows[COLUMN_OF[flag]].min():.3g} {next(iter(UNITS[flag]))}"
    if flag in ("output", "decoder"):
        return (
            f": run `uv run benchmarks/{'labels' if flag == 'output' else BENCHMARKS[settings.decoder]}/benchmark.py`"
        )
    hints = {
        "min-top1": f"the most is {rows.top1.max():.3g}",
        "size": f"there are {', '.join(sorted(set(rows['size'])))}",
    }
    return f"; {hints[flag]}" if flag in hints else ""


def front(rows: "pd.DataFrame", by: tuple[str, ...]) -> "pd.DataFrame":
    """The Pareto front, the fastest first: no other row is as good in everything and better in something."""
    import pandas as pd

    losses = {name: rows[COLUMN_OF[name]] if name in COLUMN_OF else -rows.top1 for name in by}
    values = pd.DataFrame(losses).fillna(1e9).to_numpy()
    beaten = [((values <= row).all(axis=1) & (values < row).any(axis=1)).any() for row in values]
    return rows[[not is_beaten for is_beaten in beaten]].sort_values("latency_ms")


def without_repeats(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Of a case that several benchmarks measured, the row with the narrowest interval."""
    width = (rows.throughput_high / rows.throughput_low).fillna(1e9)
    return rows.assign(width=width).sort_values("width").drop_duplicates(SAME_CASE).drop(columns="width")


def memory_mb(rows: "pd.DataFrame") -> "pd.Series":
    """Of the loaded network and an inference. Under torch that is the weights and what an inference adds. A converted
    network sets its buffers aside when it is loaded: there it is what loading and an inference add together."""
    return rows.memory_mb_img + rows.loaded_mb.where(rows.runtime != "torch", 4 * rows.params_m)


def recommend(settings: Settings) -> "pd.DataFrame":
    """The rows to show. Raises Problem."""
    from benchmarks import catalogue

    if not settings.by:
        raise Problem("--by names nothing")
    name = settings.machine or machine.describe().name
    rows = catalogue.rows(machine=name)
    if rows.empty:
        known = ", ".join(sorted(catalogue.machines(catalogue.all_results())))
        raise Problem(
            f"{name} has no run log yet: run `uv run benchmarks/{BENCHMARKS[settings.decoder]}/benchmark.py`, or name "
            f"a machine with --machine ({known})"
        )
    return front(meeting(rows.assign(memory_mb=memory_mb), settings), settings.by)


def table(rows: "pd.DataFrame") -> str:
    """For readers: the CPU, then the rows."""
    from segbench.analysis import markdown

    first = rows.iloc[0]
    columns = {
        "interval": markdown.spans(1e3 / rows.throughput_high, 1e3 / rows.throughput_low),
        "decoder": rows.decoder.map(DECODERS | {"": ""}),
        "output": rows.output.map(OUTPUTS),
    }
    shown = rows.assign(**columns)[[*HEADINGS]].rename(columns=HEADINGS)
    return f"{first.cpu} ({first.machine}), {first.threads} threads\n\n{markdown.aligned(shown, DIGITS)}"


def main() -> None:
    chosen = settings.parse(Settings(), __doc__)
    rows = recommend(chosen)
    if chosen.format == "json":  # numbers with their units in the names, null where there is none
        print(json.dumps(json.loads(rows[IN_JSON].to_json(orient="records")), indent=1))
    else:
        print(table(rows))


if __name__ == "__main__":
    exit_with(main)
