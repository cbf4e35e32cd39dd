"""Data frames in, pictures out. A picture carries the digest of the data that it shows."""

import hashlib
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from . import modes, tables, whole_ct, zoo
from .journal import replacing
from .modes import BASELINE

WIDTH = 11  # inches at 100 dpi: a README shows about 900 pixels
# Okabe and Ito's palette: apart for colour-blind readers; the marker tells families of one colour apart, also in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
KINDS = {"2D": (COLOURS[0], "o"), "3D": (COLOURS[1], "s")}
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True})

Picture = tuple[Figure, pd.DataFrame] | None  # with the data that it shows; None where there is nothing to show


def style(family: str) -> dict:
    """Colour and marker of a family, the same in every picture."""
    index = zoo.FAMILIES.index(family) if family in zoo.FAMILIES else len(zoo.FAMILIES)
    return {"color": COLOURS[index % len(COLOURS)], "marker": "os^D"[index // len(COLOURS) % 4]}


def encoders(frame: pd.DataFrame, dates: dict[str, str]) -> Picture:
    """A row per journal of a machine: throughput of the fastest right mode against parameters, and what modes bring."""
    machines = [*dict.fromkeys(frame.machine)]
    if not machines:
        return None
    figure, axes = plt.subplots(
        len(machines), 2, figsize=(WIDTH, 6.4 * len(machines)), width_ratios=(5, 2), squeeze=False, layout="constrained"
    )
    families = [*dict.fromkeys(frame.family)]
    handles = [plt.Line2D([], [], linestyle="", label=family, **style(family)) for family in families]
    figure.legend(handles=handles, ncols=8, loc="outside lower center", frameon=False, fontsize=8)
    for (left, right), machine in zip(axes, machines, strict=True):
        rows = frame[frame.machine == machine]
        gains(right, rows)
        left.set_title(caption(rows, dates[machine]), loc="left", fontsize=9)
        throughput(left, tables.best(rows))
    return figure, frame


def throughput(axes: Axes, best: pd.DataFrame) -> None:
    """Scatter with the 95 % intervals. Labelled are the Pareto front (nothing smaller is faster) and the fastest of
    every family."""
    if best.empty:
        axes.annotate("no estimate", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
        return
    for family, rows in best.groupby("family", sort=False):
        shade = style(family)
        line = rows.sort_values("params_m")
        axes.plot(line.params_m, line.throughput_img_s, color=shade["color"], alpha=0.4, lw=1, zorder=2)
        bars = np.abs(rows[["throughput_low", "throughput_high"]].sub(rows.throughput_img_s, axis=0)).T.fillna(0)
        axes.errorbar(
            rows.params_m, rows.throughput_img_s, yerr=bars, fmt="none", ecolor=shade["color"], alpha=0.35, lw=1
        )
        axes.scatter(rows.params_m, rows.throughput_img_s, s=30, edgecolors="white", linewidths=0.5, zorder=3, **shade)
    front = pareto(best)
    axes.plot(front.params_m, front.throughput_img_s, color="0.6", lw=1, ls="--", zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(best.params_m.min() / 1.3, best.params_m.max() * 1.5)
    axes.set_ylim(best.throughput_img_s.min() / 1.25, best.throughput_img_s.max() * 1.35)
    plain_log(axes.xaxis, axes.yaxis)
    head = "decoder" if best.decoder.any() else "classifier"
    axes.set_xlabel(f"parameters with {head}, reparameterised (M); dashed: nothing smaller is faster")
    axes.set_ylabel("throughput of the fastest right mode (img/s)")
    axes.grid(color="0.92")
    label(axes, labelled(best), best)


def labelled(best: pd.DataFrame) -> pd.DataFrame:
    """The Pareto front and the fastest of every family; of a dozen rows or fewer all."""
    if len(best) <= 12:
        return best
    fastest = best.groupby("family", sort=False).throughput_img_s.idxmax()
    return best.loc[[*dict.fromkeys([*pareto(best).index, *fastest])]]


def label(axes: Axes, rows: pd.DataFrame, points: pd.DataFrame) -> None:
    """Names beside the points of `rows`, clear of each other and of all `points`, in their family's colour."""
    axes.figure.canvas.draw()  # the layout decides how much room a name takes
    texts = [
        axes.text(row.params_m, row.throughput_img_s, row.model, fontsize=7.5, color=style(row.family)["color"])
        for row in rows.itertuples()
    ]
    adjust_text(
        texts,
        points.params_m.to_numpy(),
        points.throughput_img_s.to_numpy(),
        ax=axes,
        expand=(1.1, 1.5),
        force_text=(0.3, 0.6),
        force_static=(0.2, 0.4),
        iter_lim=400,
        arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.6},
    )


def pareto(best: pd.DataFrame) -> pd.DataFrame:
    """Rows that no other row of at most as many parameters outruns, in the order of their parameters."""
    ordered = best.sort_values(["params_m", "throughput_img_s"], ascending=[True, False])
    return ordered[ordered.throughput_img_s > ordered.throughput_img_s.cummax().shift(fill_value=0)]


def gains(axes: Axes, frame: pd.DataFrame) -> None:
    """Speedup of each mode over baseline: a dot per model, the median as a line."""
    shown = [mode for mode in modes.in_order(frame["mode"]) if mode != BASELINE]
    random = np.random.default_rng(0)
    for place, mode in enumerate(shown):
        rows = frame[(frame["mode"] == mode) & (frame.status == "ok") & frame.speedup.notna()]
        for family, members in rows.groupby("family", sort=False):
            spots = place + random.uniform(-0.25, 0.25, len(members))
            axes.scatter(members.speedup, spots, s=18, edgecolors="white", linewidths=0.4, **style(family))
        if len(rows):
            median = rows.speedup.median()
            axes.plot([median] * 2, [place - 0.38, place + 0.38], color="black", lw=1.5)
            axes.annotate(f"{median:.2f}", (median, place - 0.4), ha="center", va="bottom", fontsize=8)
        else:
            axes.annotate("no estimate", (1, place), fontsize=8, color="0.4")
    axes.axvline(1, color="0.6", lw=1, ls="--", zorder=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [mode.replace("+", "\n+") for mode in shown])
    axes.set_ylim(len(shown) - 0.4, -0.7)
    plain_log(axes.xaxis)
    axes.set_xlabel("speedup over baseline (median as a line)")
    axes.grid(color="0.92", axis="x")


def official(results: tables.Results) -> Picture:
    """Each network at its fastest right mode: slices per second by the reference project's rule, and seconds per whole
    CT, a line from TotalSegmentator's step between tiles to nnU-Net's."""
    rows = whole_ct.ranked_equivalents(whole_ct.equivalents(results))
    whole = whole_ct.ranked_costs(whole_ct.costs(results))
    if rows.empty:
        return None
    machines = [*dict.fromkeys(rows.machine)]
    height = 1.6 + 0.28 * max(rows.groupby("machine").size().max(), 4)
    figure, axes = plt.subplots(
        len(machines), 2, figsize=(WIDTH, height * len(machines)), squeeze=False, layout="constrained"
    )
    for (left, right), machine in zip(axes, machines, strict=True):
        top = rows[rows.machine == machine]
        kinds = top.decoder.map(lambda decoder: "2D" if decoder else "3D")
        dots(left, whole_ct.networks(top), top.eq_s, kinds, top.eq_s_low, top.eq_s_high)
        left.set_xlabel("slices of 512x512 per second, with 95 % interval\n128x128x64 voxels are four")
        left.set_title(f"{machine}: {top.cpu.iloc[0]}\n{results.dates()[machine]}", loc="left", fontsize=9)
        top = whole[whole.machine == machine]
        dots(right, top.way, top.ct_s, top.kind, top.ct_s, top.ct_half_s)
        right.set_xlabel("seconds per CT of 512x512x300, the networks alone\nline: to tiles at half a tile's distance")
        for panel in (left, right):
            panel.invert_yaxis()
    handles = [
        plt.Line2D([], [], ls="", color=colour, marker=marker, label=name) for name, (colour, marker) in KINDS.items()
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center", frameon=False)
    return figure, pd.concat([rows, whole])


def dots(axes: Axes, names: pd.Series, values: pd.Series, kinds: pd.Series, low: pd.Series, high: pd.Series) -> None:
    """Points with their names and a line from `low` to `high` on a logarithmic axis, 2D apart from 3D."""
    spots = np.arange(len(names))
    for kind, (colour, marker) in KINDS.items():
        chosen = (kinds == kind).to_numpy()
        axes.hlines(spots[chosen], low[chosen], high[chosen], color=colour, alpha=0.4, lw=3)
        axes.scatter(values[chosen], spots[chosen], s=28, color=colour, marker=marker, zorder=3)
    axes.set_yticks(spots, names, fontsize=8)
    axes.set_xscale("log")
    if len(values):  # after one or two rounds an interval may span decades
        axes.set_xlim(values.min() / 2, values.max() * 2)
    plain_log(axes.xaxis, ticks=(1, 2, 5))
    axes.grid(color="0.92", axis="x")


def caption(frame: pd.DataFrame, date: str) -> str:
    first = frame.iloc[0]
    batch = f"batch {first.batch_size}, " if frame.batch_size.nunique() == 1 else ""
    return f"{first.machine}: {first.cpu}, {first.threads} threads\n{first['size']}, {batch}{date}"


def plain_log(*axis: Axis, ticks: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5, 6, 8)) -> None:
    """Plain numbers instead of powers of ten, enough of them where the data span less than a decade."""
    for one in axis:
        one.set_major_locator(LogLocator(subs=ticks))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_locator(NullLocator())


def save(figure: Figure, data: pd.DataFrame, path: Path) -> None:
    digest = hashlib.sha256(tables.csv(data).encode()).hexdigest()[:16]
    with replacing(path) as draft:
        figure.savefig(draft, dpi=100, metadata={"Description": f"data {digest}", "Software": None})
    plt.close(figure)
