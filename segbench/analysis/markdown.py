"""Data frames as text: for pages, and for the terminal."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from .. import modes
from ..cases import DECODERS
from . import tables

RIGHT = ("rank", "img/s", "speedup", "± %")  # columns of the terminal aligned to the right


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
    frame = results.rows[results.rows.decoder == decoder]
    everything = {
        "model": frame.model,
        "mode": frame["mode"] + frame.allocator.map(lambda name: "" if name == "retained" else f" ({name})"),
        "img/s": frame.throughput_img_s.map("{:.1f}".format),
        "95 % interval": spans(frame.throughput_low, frame.throughput_high),
        "speedup": frame.speedup.where(tables.has_speedup(frame)).map("{:.2f}".format),
        "note": frame.status.where(
            frame.status != "ok", frame.quality.mask(frame.carried, "by another host's speedup")
        ),
    }
    top = tables.ranking(frame)
    fastest = {
        "rank": top["rank"],
        "model": top.model,
        "fastest mode": top["mode"],
        "img/s": top.throughput_img_s.map("{:.1f}".format),
        "95 % interval": spans(top.throughput_low, top.throughput_high),
        "tied modes": top.tied_modes,
    }
    texts = []
    for columns, machines in ((everything, frame.machine), (fastest, top.machine)):
        shown = pd.DataFrame(columns).replace("nan", "")
        if frame.machine.nunique() > 1:
            shown.insert(0, "machine", machines)
        align = ["right" if column in RIGHT else "left" for column in shown]
        texts.append(tabulate(shown, headers="keys", showindex=False, colalign=align, disable_numparse=True))
    return "\n\n".join(texts)


def answer(results: tables.Results, decoders: Iterable[str] = DECODERS) -> str:
    """What was found, in a sentence for every machine, decoder and ranking, and how far to trust it."""
    rows = results.rows[results.rows.decoder.isin([*decoders])]
    tops = [tables.ranking(of_decoder) for _, of_decoder in rows.groupby("decoder", sort=False)]
    rankings = [ranked for top in tops for ranked in top.groupby(["machine", "decoder", "ranking"], sort=False)]
    sentences = []
    for (machine, decoder, ranking), best in rankings:
        where = [machine] * (rows.machine.nunique() > 1) + [DECODERS[decoder]] * (len(tops) > 1)
        where += [ranking.upper()] * (ranking != modes.ranking("fp32"))
        sentences.append(": ".join([*where, finding(best)]))
    apart = any((top["rank"] > 1).any() for top in tops) or not rows.tied[tables.competes(rows)].all()
    if len(rows) > 1 and not apart:
        best = tops[0].iloc[0]
        least = f", at least {best.throughput_low:.1f} images/s" * (best.quality == "at least")
        sentences = [
            "Nothing is certain enough to tell networks or modes apart; the order shown is the best guess. First in"
        ]
        sentences[0] += f" it is {best.model} with {best['mode']}{least}. Run it again when the machine is idle."
    return "\n".join([*sentences, trust(rows[rows.status == "ok"])])


def finding(best: pd.DataFrame) -> str:
    """Of networks at their fastest modes, the fastest first."""
    first, tied = best.iloc[0], int((~tables.significantly_different(best, "throughput_img_s")[0]).sum()) - 1
    mode = best["mode"].mode()[0]
    under = best[best["mode"] == mode]
    figure = f"{first.throughput_img_s:.1f} images/s, ± {first.throughput_high / first.throughput_img_s - 1:.0%}"
    figure = f"at least {first.throughput_low:.1f} images/s" if math.isinf(first.throughput_high) else figure
    text = f"{first.model} with {figure.replace('%', ' %')} ({first['mode']}"
    text += f"; tied with {first.tied_modes}" * bool(first.tied_modes) + ")"
    text += f", tied with {tied} other network{'s' * (tied > 1)}" * bool(tied)
    if len(best) == 1:
        return f"The fastest mode of {text}"
    gains = under.speedup[tables.has_speedup(under)]
    over = f", {gains.min():.1f} to {gains.max():.1f} times eager" if len(gains) and mode != modes.BASELINE else ""
    over += f" (known for {len(gains)})" * bool(over and len(gains) < len(under))
    return f"{mode} is fastest for {len(under)} of {len(best)} networks{over}; the fastest network is {text}"


def trust(right: pd.DataFrame) -> str:
    """How sure the figures of rows that went well are."""
    counts = right.quality.value_counts()
    noisy, least = counts.get("noisy", 0), counts.get("at least", 0)
    text = f"Of {len(right)} figures {len(right) - noisy - least} are known to ± 15 % or better"
    text += f", {noisy} less well (noisy): more --rounds help" * bool(noisy)
    if least:
        text += f", {least} only as a lower limit (at least): none of their runs was valid"
    return text + "."
