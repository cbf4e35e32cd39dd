"""Data frames in, pictures out. A picture carries the digest of the data that it shows."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
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
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import ArrayLike

from .. import modes, zoo
from ..run_log import replacing
from . import rankings, tables

WIDTH = 11  # inches at 100 dpi: a README shows about 900 pixels
# Okabe and Ito's palette, for colour-blind readers too; markers distinguish families of one colour, also in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
plt.rcdefaults()  # the user's settings are for the user's pictures
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True})

# Its data, and what draws it; None where there is nothing to show.
Picture = tuple[pd.DataFrame, Callable[[], Figure]] | None


def panels(heights: Sequence[float], columns: int = 1, **layout) -> tuple[Figure, np.ndarray]:
    """A figure, and its axes (rows, columns); a height in inches for every row."""
    size = (WIDTH, sum(heights) + 0.5)
    layout = {"figsize": size, "height_ratios": heights, "squeeze": False, "layout": "constrained"} | layout
    return plt.subplots(len(heights), columns, **layout)


def by_machine(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Machine, with its label -> its rows, in their order."""
    return dict(iter(frame.groupby("machine", sort=False)))


def title(axes: Axes, rows: pd.DataFrame, text: str) -> None:
    """The CPU and the machine's name, and a second line."""
    axes.set_title(f"{rows.cpu.iloc[0]} ({rows.machine.iloc[0]})\n{text}", loc="left", fontsize=9)


def caption(frame: pd.DataFrame, date: str) -> str:
    """A title that names the CPU, the input and the days."""
    first = frame.iloc[0]
    channels = f"in_chans {first.in_chans}, " if first.in_chans != 3 else ""
    batch = f"batch {first.batch_size}, " if frame.batch_size.nunique() == 1 else ""
    return f"{first.cpu} ({first.machine}), {first.threads} threads\n{first['size']}, {channels}{batch}{date}"


def dots(axes: Axes, x: pd.Series, low: pd.Series, high: pd.Series, y: ArrayLike, shade: tuple[str, str]) -> None:
    """Points with horizontal 95 % intervals; none where only one end is known. `shade` is colour and marker."""
    colour, marker = shade
    axes.hlines(y, low.replace(0, np.nan), high.replace(np.inf, np.nan), color=colour, alpha=0.5, lw=1.5)
    axes.scatter(x, y, s=26, color=colour, marker=marker, edgecolors="white", linewidths=0.4, zorder=3)


def line_at_1(axes: Axes) -> None:
    """Where a ratio says that both are alike."""
    axes.axvline(1, color="0.6", lw=1, ls="--", zorder=1)


def point(label: str, colour: str, marker: str, **details) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], linestyle="", label=label, color=colour, marker=marker, **details)


def key(figure: Figure, handles: Sequence, columns: int = 8) -> None:
    """A legend below the panels."""
    figure.legend(handles=handles, ncols=columns, loc="outside lower center", frameon=False, fontsize=8)


def style(family: str) -> dict[str, str]:
    """Colour and marker of a family, the same in every picture."""
    index = zoo.FAMILIES.index(family) if family in zoo.FAMILIES else len(zoo.FAMILIES)
    return {"color": COLOURS[index % len(COLOURS)], "marker": "os^D"[index // len(COLOURS) % 4]}


def legend(figure: Figure, families: Iterable[str]) -> None:
    """Colours and markers of families, below the panels."""
    key(figure, [point(family, *style(family).values()) for family in dict.fromkeys(families)])


def encoders(frame: pd.DataFrame, dates: dict[str, str]) -> Picture:
    """A row per run log of a machine: throughput of the fastest valid mode against parameters, and speedups by mode."""
    return None if frame.empty else (frame, partial(draw_encoders, frame, dates))


def draw_encoders(frame: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = by_machine(frame)
    figure, axes = panels([6.2] * len(machines), 2, width_ratios=(5, 2))
    legend(figure, frame.family)
    for (left, right), (machine, rows) in zip(axes, machines.items(), strict=True):
        gains(right, rows)
        left.set_title(caption(rows, dates[machine]), loc="left", fontsize=9)
        throughput(left, rankings.best(rows))
    return figure


def throughput(axes: Axes, best: pd.DataFrame) -> None:
    """Points with their 95 % intervals, and names."""
    if best.empty:
        axes.annotate("no estimate", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
        return
    for family, rows in best.groupby("family", sort=False):
        shade = style(family)
        line = rows.sort_values("params_m")
        axes.plot(line.params_m, line.throughput_img_s, color=shade["color"], alpha=0.4, lw=1, zorder=2)
        bars = np.abs(rows[["throughput_low", "throughput_high"]].sub(rows.throughput_img_s, axis=0)).T
        bars = bars.replace(np.inf, 0).fillna(0)  # of a lower limit only the lower end is known
        axes.errorbar(
            rows.params_m, rows.throughput_img_s, yerr=bars, fmt="none", ecolor=shade["color"], alpha=0.35, lw=1
        )
        axes.scatter(rows.params_m, rows.throughput_img_s, s=30, edgecolors="white", linewidths=0.5, zorder=3, **shade)
    front = pareto(best)
    axes.plot(front.params_m, front.throughput_img_s, color="0.6", lw=1, ls="--", zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(best.params_m.min() / 1.8, best.params_m.max() * 1.5)  # names stand to the left, too
    axes.set_ylim(best.throughput_img_s.min() / 1.25, best.throughput_img_s.max() * 1.35)
    plain_log(axes.xaxis, axes.yaxis)
    head = "decoder" if best.decoder.any() else "classifier"
    axes.set_xlabel(f"parameters with {head} (M); dashed: nothing smaller is faster")
    axes.set_ylabel("throughput of the fastest valid mode (img/s)")
    axes.grid(color="0.92")
    places = ["params_m", "throughput_img_s"]
    label(axes, labelled(best)[[*places, "model"]], best[places])


def labelled(best: pd.DataFrame) -> pd.DataFrame:
    """The Pareto front and the fastest of every family; all rows where there are few."""
    if len(best) <= 12:
        return best
    fastest = best.groupby("family", sort=False).throughput_img_s.idxmax()
    return best.loc[[*dict.fromkeys([*pareto(best).index, *fastest])]]


def label(axes: Axes, rows: pd.DataFrame, points: pd.DataFrame) -> None:
    """Names beside the points of `rows` (x, y, name), clear of each other and of all `points` (x, y)."""
    axes.figure.canvas.draw()  # the layout decides how much room a name takes
    halo = [withStroke(linewidth=2, foreground="white")]
    texts = [axes.text(x, y, name, fontsize=7.5, path_effects=halo, zorder=5) for x, y, name in rows.to_numpy()]
    adjust_text(
        texts,
        points.iloc[:, 0].to_numpy(),
        points.iloc[:, 1].to_numpy(),
        ax=axes,
        expand=(1.5, 2.5),
        force_text=(0.6, 1.2),
        force_static=(0.3, 0.6),
        iter_lim=1000,
        arrowprops={"arrowstyle": "-", "color": "0.5", "lw": 0.6},
    )


def pareto(best: pd.DataFrame) -> pd.DataFrame:
    """Rows that no other row with at most as many parameters outruns, in the order of their parameters."""
    ordered = best.sort_values(["params_m", "throughput_img_s"], ascending=[True, False])
    return ordered[ordered.throughput_img_s > ordered.throughput_img_s.cummax().shift(fill_value=0)]


def gains(axes: Axes, frame: pd.DataFrame) -> None:
    """Speedup of each mode: a dot per model, the median as a line, over the same models in all modes."""
    over = rankings.over_what(frame)
    frame = rankings.comparable(frame, over)
    shown = [mode for mode in modes.in_order(frame["mode"]) if mode != rankings.OVER[over].mode]
    random = np.random.default_rng(0)
    for place, mode in enumerate(shown):
        rows = frame[frame["mode"] == mode]
        for family, members in rows.groupby("family", sort=False):
            spots = place + random.uniform(-0.25, 0.25, len(members))
            axes.scatter(members[over], spots, s=18, edgecolors="white", linewidths=0.4, **style(family))
        median = rows[over].median()
        axes.plot([median] * 2, [place - 0.38, place + 0.38], color="black", lw=1.5)
        axes.annotate(f"{median:.2f}", (median, place - 0.4), ha="center", va="bottom", fontsize=8)
    if not shown:
        axes.annotate("no speedup", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
    line_at_1(axes)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [mode.replace("+", "\n+") for mode in shown])
    axes.set_ylim(len(shown) - 0.4, -0.7)
    plain_log(axes.xaxis)
    axes.set_xlabel(f"speedup over {rankings.OVER[over].mode}\n(median as a line)")
    axes.grid(color="0.92", axis="x")


def plain_log(*axis: Axis, ticks: tuple[float, ...] = (1, 1.5, 2, 3, 4, 5, 6, 8)) -> None:
    """Plain numbers instead of powers of ten, enough of them where the data span less than a decade."""
    for scale in axis:
        scale.set_major_locator(LogLocator(subs=ticks))
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_locator(NullLocator())


def save(picture: Picture, path: Path, draw: bool = True) -> None:
    """Draw it into a PNG that carries the digest of its data; without `draw` write the digest alone, for a check."""
    data, draw_it = picture
    text = f"data {hashlib.sha256(tables.csv(data).encode()).hexdigest()[:16]}"
    if not draw:
        path.write_text(text)
        return
    figure = draw_it()
    with replacing(path) as draft:
        figure.savefig(draft, dpi=100, metadata={"Description": text, "Software": None})
    plt.close(figure)
