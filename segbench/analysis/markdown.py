"""Data frames as text: for pages, and for the terminal."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from .. import modes
from ..cases import DECODERS
from . import rankings, tables

TERMINAL_DIGITS = {"rank": 0, "img/s": 1, "speedup": 2}


class Shown(NamedTuple):
    """A table of a page, with the decimals of its columns of numbers."""

    frame: pd.DataFrame
    digits: dict[str, int]
    results: tables.Results | None = None  # its source, where that is not the benchmark's results


def table(frame: pd.DataFrame, digits: dict[str, int] | None = None) -> str:
    """For a page: columns of `digits` to the right with so many decimals, empty where nothing is known."""
    digits = digits or {}
    lines = [frame.columns, ["--:" if column in digits else "---" for column in frame]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [*lines, *as_text(frame, digits).itertuples(index=False)])


def aligned(frame: pd.DataFrame, digits: dict[str, int]) -> str:
    """The same for the terminal."""
    align = ["right" if column in digits else "left" for column in frame]
    return tabulate(as_text(frame, digits), headers="keys", showindex=False, colalign=align, disable_numparse=True)


def as_text(frame: pd.DataFrame, digits: dict[str, int]) -> pd.DataFrame:
    formats = {column: f"{{:.{digits[column]}f}}" if column in digits else "{}" for column in frame}
    return pd.DataFrame({c: frame[c].map(formats[c].format).where(frame[c].notna(), "") for c in frame}, dtype=object)


def spans(low: pd.Series, high: pd.Series, digits: int = 1) -> list[str]:
    """Intervals as text, empty where there is none; `at least` or `at most` where only one end is known."""
    return [span(*pair, digits) for pair in zip(low, high, strict=True)]


def span(low: float, high: float, digits: int) -> str:
    if math.isnan(low):
        return ""
    if math.isinf(high):
        return f"at least {low:.{digits}f}" if round(low, digits) else "unknown"
    return f"{low:.{digits}f} to {high:.{digits}f}" if low else f"at most {high:.{digits}f}"


def terminal(results: tables.Results, decoder: str = "") -> str:
    """All rows of a decoder, then each network at its fastest valid mode, ranked; at most 100 columns."""
    rows = results.rows[results.rows.decoder == decoder]
    notes = rows.quality.mask(rows.carried, "by another host's speedup")
    unpaired = (rows.quality == "") & (rows.pairs == 0) & rows.speedup.notna()
    notes = notes.mask(unpaired, "speedup from different rounds")
    everything = {
        "model": rows.model,
        "mode": rows["mode"],
        "img/s": rows.throughput_img_s,
        "95 % interval": spans(rows.throughput_low, rows.throughput_high),
        "speedup": rows.speedup.where(rankings.has_speedup(rows)),
        "note": rows.status.where(rows.status != "ok", notes),
    }
    top = rankings.ranking(rows)
    fastest = {
        "rank": top["rank"],
        "model": top.model,
        "fastest mode": top["mode"],
        "img/s": top.throughput_img_s,
        "95 % interval": spans(top.throughput_low, top.throughput_high),
        "tied modes": top.tied_modes,
    }
    texts = []
    for columns, machines in ((everything, rows.machine), (fastest, top.machine)):
        several = {"machine": machines} if rows.machine.nunique() > 1 else {}
        digits = {name: places for name, places in TERMINAL_DIGITS.items() if name in columns}
        texts.append(aligned(pd.DataFrame(several | columns), digits))
    return "\n\n".join(texts)


def answer(results: tables.Results, decoders: Iterable[str] = DECODERS) -> str:
    """The result in a sentence for every machine, decoder and ranking, and how far to trust it."""
    rows = results.rows[results.rows.decoder.isin([*decoders])]
    tops = [rankings.ranking(rows_of_decoder) for _, rows_of_decoder in rows.groupby("decoder", sort=False)]
    sentences = []
    for top in tops:
        for (machine, decoder, ranking), best in top.groupby(["machine", "decoder", "ranking"], sort=False):
            several_machines, floating_point = rows.machine.nunique() > 1, ranking == modes.ranking("fp32")
            where = [f"{best.cpu.iloc[0]} ({machine})"] if several_machines else []
            where += [DECODERS[decoder]] if len(tops) > 1 else []
            where += [] if floating_point else [ranking.upper()]
            sentences.append(": ".join([*where, finding(best)]))
    any_difference = any((top["rank"] > 1).any() for top in tops) or not rows.tied[rankings.competes(rows)].all()
    if len(rows) > 1 and not any_difference:
        best = tops[0].iloc[0]
        least = f", at least {best.throughput_low:.1f} images/s" if best.quality == "at least" else ""
        sentences = [
            "No two networks or modes are significantly different; the order shown is the best guess. First in it is "
            f"{best.model} with {best['mode']}{least}. Run it again when the machine is idle."
        ]
    return "\n".join([*sentences, trust(rows[rows.status == "ok"])])


def finding(best: pd.DataFrame) -> str:
    """A sentence on networks at their fastest modes, the fastest first."""
    first = best.iloc[0]
    figure = (
        f"{first.throughput_img_s:.1f} images/s, ± {100 * (first.throughput_high / first.throughput_img_s - 1):.0f} %"
    )
    if math.isinf(first.throughput_high):
        figure = f"at least {first.throughput_low:.1f} images/s"
    tied_modes = f"; tied with {first.tied_modes}" if first.tied_modes else ""
    text = f"{first.model} with {figure} ({first['mode']}{tied_modes})"
    if tied := int((~rankings.significantly_different(best, "throughput_img_s")[0]).sum()) - 1:
        text += f", tied with {tied} other {'network' if tied == 1 else 'networks'}"
    if len(best) == 1:
        return f"The fastest mode of {text}"
    mode = best["mode"].mode()[0]
    networks = best[best["mode"] == mode]
    column = rankings.over_what(networks)
    speedups, over = networks[column][rankings.has_speedup(networks, column)], ""
    if len(speedups) and mode != rankings.OVER[column].mode:
        over = f", {speedups.min():.1f} to {speedups.max():.1f} times {rankings.OVER[column].mode}"
        over += f" (known for {len(speedups)})" if len(speedups) < len(networks) else ""
    return f"{mode} is fastest for {len(networks)} of {len(best)} networks{over}; the fastest network is {text}"


def trust(rows: pd.DataFrame) -> str:
    """How many figures are known well."""
    counts = rows.quality.value_counts()
    noisy, least = counts.get("noisy", 0), counts.get("at least", 0)
    text = f"Of {len(rows)} figures {len(rows) - noisy - least} are known to ± 15 % or better"
    if noisy:
        text += f", {noisy} less well (noisy): more --rounds help"
    if least:
        text += f", {least} only as a lower limit (at least): all of their runs were disturbed"
    return text + "."
