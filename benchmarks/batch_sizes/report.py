"""Throughput by batch size: tables and picture."""

from functools import partial
from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from segbench.analysis import markdown, plots
from segbench.analysis.markdown import Shown
from segbench.analysis.plots import COLOURS, Picture
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.cases import DECODERS

KEYS = ["model", "decoder", "mode"]
LINES = ("-", "--", ":", "-.")


def batches(results: Results) -> pd.DataFrame:
    """All rows with `over_batch_1`, throughput over that of a single image (lower limits left out), and `enough`: the
    smallest batch whose throughput is within 5 % of the best."""
    keys = ["machine", *KEYS]
    frame = results.rows.copy()
    known = frame.quality != "at least"
    single = frame[(frame.batch_size == 1) & known].set_index(keys).throughput_img_s.rename("single")
    frame["over_batch_1"] = (frame.throughput_img_s / frame.join(single, on=keys).single).where(known)
    near_best = frame.throughput_img_s >= 0.95 * frame.groupby(keys).throughput_img_s.transform("max")
    smallest = frame.batch_size.where(near_best).groupby([frame[key] for key in keys])
    frame["enough"] = frame.batch_size == smallest.transform("min")
    return frame


def by_batch(results: Results) -> Shown:
    """Throughput in img/s by batch size, the smallest batch whose throughput is within 5 % of the best, and the memory
    of a single image."""
    frame = batches(results)
    sizes = sorted(frame.batch_size.unique())
    columns = {size: f"batch {size}" for size in sizes}
    wide = frame.pivot_table(index=KEYS, columns="batch_size", values="throughput_img_s", sort=False)
    wide = wide.reindex(columns=sizes).rename(columns=columns)
    wide["within 5 % from batch"] = frame[frame.enough].set_index(KEYS).batch_size
    wide["MB/img"] = frame[frame.batch_size == sizes[0]].set_index(KEYS).memory_mb_img
    wide = wide.reset_index().rename(columns={"model": "encoder"})
    wide["decoder"] = wide.decoder.map(DECODERS)
    return Shown(wide, dict.fromkeys(columns.values(), 1) | {"within 5 % from batch": 0, "MB/img": 0})


def picture(results: Results) -> Picture:
    """A row per run log, a column per decoder: throughput over that of a single image against the batch size."""
    frame = batches(results)
    return frame, partial(draw, frame, results.dates())


def draw(frame: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines, decoders = plots.by_machine(frame), [*dict.fromkeys(frame.decoder)]
    colours = dict(zip(dict.fromkeys(frame.model), cycle(COLOURS), strict=False))
    dashes = dict(zip(dict.fromkeys(frame["mode"]), cycle(LINES), strict=False))
    figure, axes = plots.panels([3.4] * len(machines), len(decoders), sharey=True)
    for row, (machine, of_machine) in zip(axes, machines.items(), strict=True):
        for panel, decoder in zip(row, decoders, strict=True):
            lines(panel, of_machine[of_machine.decoder == decoder], colours, dashes)
            panel.set_xlabel(f"batch size, {DECODERS[decoder]}")
        row[0].set_ylabel("throughput over batch 1")
        row[0].set_title(plots.caption(of_machine, dates[machine]), loc="left", fontsize=9)
    handles = [Line2D([], [], color=colour, label=model) for model, colour in colours.items()]
    handles += [Line2D([], [], color="0.3", ls=dash, label=mode) for mode, dash in dashes.items()]
    handles.append(plots.point("smallest within 5 % of the best", "0.3", "o", ms=8, mfc="none"))
    plots.key(figure, handles, 6)
    return figure


def lines(panel: Axes, rows: pd.DataFrame, colours: dict[str, str], dashes: dict[str, str]) -> None:
    """A line per model and mode, a circle around the smallest batch that is large enough."""
    sizes = sorted(rows.batch_size.unique())
    for (model, mode), line in rows[rows.over_batch_1.notna()].groupby(["model", "mode"], sort=False):
        colour, enough = colours[model], line[line.enough]
        panel.plot(line.batch_size, line.over_batch_1, dashes[mode], color=colour, marker="o", ms=3.5, lw=1.2)
        panel.scatter(enough.batch_size, enough.over_batch_1, s=70, facecolors="none", edgecolors=colour, zorder=3)
    panel.set_xscale("log", base=2)
    panel.set_xticks(sizes, sizes)
    panel.axhline(1, color="0.6", lw=1, zorder=1)
    panel.grid(color="0.92")


REPORT = Report(
    csvs={"batch_size_comparison.csv": batches},
    pictures={"batch_size_comparison.png": picture},
    show=lambda results: markdown.aligned(*by_batch(results)[:2]),
    pages=(by_batch,),
)
