"""Data frames as text: for pages, and for the terminal."""

import math
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from . import tables

RIGHT = ("rank", "speedup", "all samples", "undisturbed", "MB/img", "of peak")  # columns aligned to the right


class Shown(NamedTuple):
    """A table of a page, with the decimals of its columns of numbers."""

    frame: pd.DataFrame
    digits: dict[str, int]
    results: tables.Results | None = None  # that it is from, where those are not the benchmark's own


def table(frame: pd.DataFrame, digits: dict[str, int] | None = None) -> str:
    """For a page: numbers right, `digits` decimals per column, empty where nothing was seen."""
    digits = digits or {}
    lines = [frame.columns, ["--:" if column in digits else "---" for column in frame]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, *written(frame, digits).itertuples(index=False)])


def aligned(frame: pd.DataFrame, digits: dict[str, int]) -> str:
    """The same for the terminal."""
    align = ["right" if column in digits else "left" for column in frame]
    return tabulate(written(frame, digits), headers="keys", showindex=False, colalign=align, disable_numparse=True)


def written(frame: pd.DataFrame, digits: dict[str, int]) -> pd.DataFrame:
    """Every cell as text."""
    columns = {}
    for column in frame:
        values = frame[column]
        plain = ["" if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)]
        columns[column] = [number(value, digits[column]) for value in values] if column in digits else plain
    return pd.DataFrame(columns)


def number(value: float, digits: int) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def spans(low: pd.Series, high: pd.Series, digits: int = 1) -> list[str]:
    """Intervals as text, empty where there is none."""
    pairs = zip(low, high, strict=True)
    return [f"{lower:.{digits}f} to {upper:.{digits}f}" if lower == lower else "" for lower, upper in pairs]


def terminal(results: tables.Results, decoder: str = "") -> str:
    """All rows of a decoder, then each model at its fastest right mode, ranked."""
    frame = results.rows[results.rows.decoder == decoder]
    everything = {
        "model": frame.model,
        "mode": frame["mode"] + frame.allocator.map(lambda name: "" if name == "pinned" else f" ({name})"),
        "img/s": frame.throughput_img_s.map("{:.2f}".format),
        "95 % interval": spans(frame.throughput_low, frame.throughput_high, 2),
        "speedup": frame.speedup.map("{:.2f}".format),
        "all samples": frame.throughput_all.map("{:.2f}".format),
        "undisturbed": frame.quiet_share.map("{:.0%}".format),
        "MB/img": frame.memory_mb_img.map("{:.1f}".format),
        "of peak": frame.peak_share.map("{:.0%}".format),
        "status": frame.status,
    }
    top = tables.ranking(frame)
    fastest = {
        "rank": top["rank"],
        "model": top.model,
        "fastest right mode": top["mode"],
        "img/s": top.throughput_img_s.map("{:.2f}".format),
        "95 % interval": spans(top.throughput_low, top.throughput_high, 2),
    }
    texts = []
    for columns, machines in ((everything, frame.machine), (fastest, top.machine)):
        shown = pd.DataFrame(columns).replace(["nan", "nan%"], "")
        if frame.machine.nunique() > 1:
            shown.insert(0, "machine", machines)
        align = ["right" if "g/s" in c or c in RIGHT else "left" for c in shown]
        texts.append(tabulate(shown, headers="keys", showindex=False, colalign=align, disable_numparse=True))
    if top["rank"].duplicated().any():
        texts.append("Rows of one rank are not told from its first by their intervals: more --rounds, or --until 5%")
    return "\n\n".join(texts)
