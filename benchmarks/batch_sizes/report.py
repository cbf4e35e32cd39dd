"""What batch_size_comparison.py shows: throughput by batch size."""

from functools import partial

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from segbench.analysis import markdown
from segbench.analysis.markdown import Shown
from segbench.analysis.plots import COLOURS, WIDTH, Picture, caption
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results, one_allocator
from segbench.cases import DECODERS

KEYS = ["model", "decoder", "mode"]
LINES = ("-", "--", ":", "-.")


def batches(results: Results) -> pd.DataFrame:
    """All rows with `over_batch_1`, throughput over that of a single image (of figures that are no lower limits), and
    `enough`: the smallest batch whose throughput is within 5 % of the best."""
    keys = ["machine", *KEYS]
    frame = one_allocator(results.rows).copy()
    sure = frame.quality != "at least"
    single = frame[(frame.batch_size == 1) & sure].set_index(keys).throughput_img_s.rename("single")
    frame["over_batch_1"] = (frame.throughput_img_s / frame.join(single, on=keys).single).where(sure)
    good = frame.throughput_img_s >= 0.95 * frame.groupby(keys).throughput_img_s.transform("max")
    smallest = frame.batch_size.where(good).groupby([frame[key] for key in keys])
    frame["enough"] = frame.batch_size == smallest.transform("min")
    return frame


def terminal(results: Results) -> str:
    digits = {"throughput_img_s": 2, "latency_ms": 1, "over_batch_1": 2, "memory_mb_img": 1, "gflop_s": 0}
    return markdown.aligned(batches(results)[[*KEYS, "batch_size", *digits, "enough", "status"]], digits)


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
    machines, names = [*dict.fromkeys(frame.machine)], [*dict.fromkeys(frame.decoder)]
    figure, axes = plt.subplots(
        len(machines),
        len(names),
        figsize=(WIDTH, 3.8 * len(machines)),
        squeeze=False,
        layout="constrained",
        sharey=True,
    )
    models, sizes = [*dict.fromkeys(frame.model)], sorted(frame.batch_size.unique())
    kinds = {mode: LINES[place % 4] for place, mode in enumerate(dict.fromkeys(frame["mode"]))}
    for panels, machine in zip(axes, machines, strict=True):
        for panel, decoder in zip(panels, names, strict=True):
            rows = frame[(frame.machine == machine) & (frame.decoder == decoder) & frame.over_batch_1.notna()]
            for (model, mode), line in rows.groupby(["model", "mode"], sort=False):
                colour = COLOURS[models.index(model) % len(COLOURS)]
                panel.plot(line.batch_size, line.over_batch_1, kinds[mode], color=colour, marker="o", ms=3.5, lw=1.2)
                best = line[line.enough]
                panel.scatter(best.batch_size, best.over_batch_1, s=70, facecolors="none", edgecolors=colour, zorder=3)
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, sizes)
            panel.axhline(1, color="0.6", lw=1, zorder=1)
            panel.set_xlabel(f"batch size, {DECODERS[decoder]}")
            panel.grid(color="0.92")
        panels[0].set_ylabel("throughput over batch 1")
        panels[0].set_title(caption(frame[frame.machine == machine], dates[machine]), loc="left", fontsize=9)
    handles = [plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], label=model) for i, model in enumerate(models)]
    handles += [plt.Line2D([], [], color="0.3", ls=line, label=mode) for mode, line in kinds.items()]
    handles.append(
        plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", color="0.3", label="smallest within 5 % of the best")
    )
    figure.legend(handles=handles, ncols=6, loc="outside lower center", frameon=False, fontsize=8)
    return figure


REPORT = Report(
    csvs={"batch_size_comparison.csv": batches},
    pictures={"batch_size_comparison.png": picture},
    show=terminal,
    pages=(by_batch,),
)
