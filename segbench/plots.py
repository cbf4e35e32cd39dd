"""Data frames in, PNG out. A picture carries the digest of the data that it shows."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from . import modes, stats, tables, zoo

WIDTH = 11  # inches at 100 dpi: a README shows about 900 pixels
# Okabe and Ito's palette: apart for colour-blind readers; the marker tells families of one colour apart, also in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00")
KINDS = ((COLOURS[0], "o"), (COLOURS[1], "s"))  # 2D and 3D networks
plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True})


def style(family: str) -> dict:
    """Colour and marker of a family, the same in every picture."""
    index = zoo.FAMILIES.index(family) if family in zoo.FAMILIES else len(zoo.FAMILIES)
    return {"color": COLOURS[index % len(COLOURS)], "marker": "os^D"[index // len(COLOURS) % 4]}


def encoders(frame: pd.DataFrame, dates: dict[str, str], path: Path) -> None:
    """Per machine: throughput of the fastest right mode against parameters, and what each mode brings."""
    machines = [*dict.fromkeys(frame.machine)]
    figure, axes = plt.subplots(
        len(machines), 2, figsize=(WIDTH, 5.6 * len(machines)), width_ratios=(2, 1), squeeze=False, layout="constrained"
    )
    for (left, right), machine in zip(axes, machines, strict=True):
        of_machine = frame[frame.machine == machine]
        throughput(left, tables.best(of_machine))
        gains(right, of_machine)
        left.set_title(caption(of_machine, dates[machine]), loc="left", fontsize=9)
    families = [*dict.fromkeys(frame.family)]
    handles = [plt.Line2D([], [], linestyle="", label=family, **style(family)) for family in families]
    figure.legend(handles=handles, ncols=8, loc="outside lower center", frameon=False, fontsize=8)
    save(figure, path, frame)


def throughput(axes: Axes, best: pd.DataFrame) -> None:
    """Scatter with the 95 % intervals; the Pareto front (nothing smaller is faster) labelled."""
    if best.empty:
        axes.annotate("no figure", (0.5, 0.5), xycoords="axes fraction", ha="center", color="0.4")
        return
    for family, rows in best.groupby("family", sort=False):
        shade = style(family)
        line = rows.sort_values("params_m")
        axes.plot(line.params_m, line.throughput_img_s, color=shade["color"], alpha=0.4, lw=1, zorder=2)
        bars = np.abs(rows[["throughput_low", "throughput_high"]].sub(rows.throughput_img_s, axis=0)).T.fillna(0)
        axes.errorbar(
            rows.params_m, rows.throughput_img_s, yerr=bars, fmt="none", ecolor=shade["color"], alpha=0.5, lw=1
        )
        axes.scatter(rows.params_m, rows.throughput_img_s, s=30, edgecolors="white", linewidths=0.5, zorder=3, **shade)
    front = pareto(best)
    axes.plot(front.params_m, front.throughput_img_s, color="0.6", lw=1, ls="--", zorder=1, label="Pareto front")
    labelled = front if len(best) > 12 else best
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(best.params_m.min() / 1.25, best.params_m.max() * 1.25)
    texts = [axes.text(row.params_m, row.throughput_img_s, row.model, fontsize=8) for row in labelled.itertuples()]
    points = best.params_m.to_numpy(), best.throughput_img_s.to_numpy()
    line = {"arrowstyle": "-", "color": "0.5", "lw": 0.7}
    adjust_text(texts, *points, ax=axes, expand=(1.3, 2.2), force_static=(0.3, 0.6), iter_lim=500, arrowprops=line)
    plain_log(axes.xaxis, axes.yaxis)
    head = "decoder" if best.decoder.any() else "classifier"
    axes.set_xlabel(f"parameters with {head}, reparameterised (M)")
    axes.set_ylabel("throughput of the fastest right mode (img/s)")
    axes.grid(color="0.92")


def pareto(best: pd.DataFrame) -> pd.DataFrame:
    """Rows that no other row of at most as many parameters outruns, in the order of their parameters."""
    ordered = best.sort_values(["params_m", "throughput_img_s"], ascending=[True, False])
    return ordered[ordered.throughput_img_s > ordered.throughput_img_s.cummax().shift(fill_value=0)]


def gains(axes: Axes, frame: pd.DataFrame) -> None:
    """Speedup of each mode over baseline: a dot per model, the median as a line."""
    shown = [mode for mode in modes.MODES if mode != tables.BASELINE and (frame["mode"] == mode).any()]
    random = np.random.default_rng(0)
    for place, mode in enumerate(shown):
        rows = frame[(frame["mode"] == mode) & (frame.status == "ok") & frame.speedup.notna()]
        for family, of_family in rows.groupby("family", sort=False):
            spots = place + random.uniform(-0.25, 0.25, len(of_family))
            axes.scatter(of_family.speedup, spots, s=18, edgecolors="white", linewidths=0.4, **style(family))
        if len(rows):
            axes.plot([rows.speedup.median()] * 2, [place - 0.38, place + 0.38], color="black", lw=1.5)
            axes.annotate(
                f"{rows.speedup.median():.2f}",
                (rows.speedup.median(), place - 0.4),
                ha="center",
                va="bottom",
                fontsize=8,
            )
        else:
            axes.annotate("no figure", (1, place), fontsize=8, color="0.4")
    axes.axvline(1, color="0.6", lw=1, ls="--", zorder=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [mode.replace("+", "\n+") for mode in shown])
    axes.set_ylim(len(shown) - 0.4, -0.7)
    plain_log(axes.xaxis)
    axes.set_xlabel("speedup over baseline (median as a line)")
    axes.grid(color="0.92", axis="x")


def repetitions(frame: pd.DataFrame, single: pd.DataFrame, dates: dict[str, str], path: Path) -> None:
    """Per machine and case: the throughput that each repetition of both protocols found, over the quiet one's median,
    with the repetition's own 95 % interval."""
    machines = [*dict.fromkeys(frame.machine)]
    counts = [len(single[single.machine == machine].groupby(["model", "mode"])) for machine in machines]
    heights = [0.9 + 0.5 * count for count in counts]
    figure, axes = plt.subplots(
        len(machines),
        1,
        figsize=(WIDTH, sum(heights) + 0.5),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
        sharex=True,
    )
    shades = {"quiet": (COLOURS[0], "o", -0.2), "usual": (COLOURS[1], "s", 0.2)}
    for panel, machine in zip(axes[:, 0], machines, strict=True):
        of_machine = single[single.machine == machine]
        cases = [*of_machine.groupby(["model", "mode"], sort=False).groups]
        for place, (model, mode) in enumerate(cases):
            of_case = of_machine[(of_machine.model == model) & (of_machine["mode"] == mode)]
            middle = of_case[of_case.protocol == "quiet"].latency_ms.median()
            for protocol, (colour, marker, shift) in shades.items():
                of = of_case[of_case.protocol == protocol]
                spots = place + shift + np.linspace(-0.14, 0.14, len(of))
                over = middle / of.latency_ms
                panel.hlines(spots, middle / of.high_ms, middle / of.low_ms, color=colour, alpha=0.35, lw=1.5)
                panel.scatter(over, spots, s=20, color=colour, marker=marker, edgecolors="white", lw=0.4, zorder=3)
        panel.set_yticks(range(len(cases)), [f"{model} {mode}" for model, mode in cases], fontsize=8)
        panel.set_ylim(len(cases) - 0.5, -0.5)
        panel.axvline(1, color="0.6", lw=1, ls="--", zorder=1)
        panel.set_xlim(0.3, 1.3)
        panel.grid(color="0.92", axis="x")
        panel.set_title(f"{machine}: {of_machine.cpu.iloc[0]}, {dates[machine]}", loc="left", fontsize=9)
    axes[-1, 0].set_xlabel("throughput that a repetition found, over the quiet protocol's median")
    names = {"quiet": "this project's protocol", "usual": "the usual protocol"}
    handles = [
        plt.Line2D([], [], linestyle="", color=colour, marker=marker, label=names[name])
        for name, (colour, marker, _) in shades.items()
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center", frameon=False)
    save(figure, path, single)


def states(frame: pd.DataFrame, path: Path) -> None:
    """Latency of every sample against the convolution yardstick beside it: a panel per machine and eager model."""
    frame = frame[frame["mode"] == tables.BASELINE]
    machines = {machine: [*dict.fromkeys(of.model)] for machine, of in frame.groupby("machine", sort=False)}
    columns = max(map(len, machines.values()))
    figure, axes = plt.subplots(
        len(machines), columns, figsize=(WIDTH, 3.1 * len(machines)), squeeze=False, layout="constrained"
    )
    for row, (machine, models) in zip(axes, machines.items(), strict=True):
        for panel in row[len(models) :]:
            panel.set_axis_off()
        for panel, model in zip(row, models, strict=False):
            of = frame[(frame.machine == machine) & (frame.model == model)]
            for quiet, colour in ((False, "0.6"), (True, COLOURS[0])):
                some = of[of.quiet == quiet]
                panel.scatter(some.convolution, some.latency_ms, s=5, color=colour, alpha=0.4, linewidths=0)
            panel.axvline(stats.QUIET, color=COLOURS[1], lw=1, ls="--")
            panel.set_xlim(0.95, 2)
            panel.set_ylim(of.latency_ms.min() * 0.9, of.latency_ms.min() * 2.4)
            panel.set_title(f"{model}\n{machine}", loc="left", fontsize=8)
            panel.set_xlabel("yardstick over its floor")
        row[0].set_ylabel("latency (ms)")
    handles = [
        plt.Line2D([], [], linestyle="", marker="o", color=colour, label=label)
        for colour, label in (("0.6", "disturbed"), (COLOURS[0], "quiet: both yardsticks, before and after, in bounds"))
    ]
    handles.append(plt.Line2D([], [], color=COLOURS[1], ls="--", label=f"{stats.QUIET:g} times the floor"))
    figure.legend(handles=handles, ncols=3, loc="outside lower center", frameon=False)
    save(figure, path, frame)


def decoders(frame: pd.DataFrame, dates: dict[str, str], path: Path) -> None:
    """Per machine, each encoder under the mode in which its UNet is fastest: throughput alone, with FPN and with UNet;
    and how many times as fast FPN is."""
    frame = frame[(frame.fpn_status == "ok") & (frame.unet_status == "ok")].dropna(subset=["fpn_img_s", "unet_img_s"])
    frame = frame.loc[frame.groupby(["machine", "model"], sort=False).unet_img_s.idxmax()]
    machines = [*dict.fromkeys(frame.machine)]
    height = 1.6 + 0.36 * frame.groupby("machine").size().max() if len(frame) else 3
    figure, axes = plt.subplots(
        max(1, len(machines)),
        2,
        figsize=(WIDTH, height * max(1, len(machines))),
        width_ratios=(2, 1),
        squeeze=False,
        layout="constrained",
        sharey="row",
    )
    shades = {"features": ("0.5", "D"), "fpn": (COLOURS[0], "o"), "unet": (COLOURS[1], "s")}
    for (left, right), machine in zip(axes, machines, strict=False):
        rows = frame[frame.machine == machine].sort_values("unet_img_s", ascending=False)
        spots = np.arange(len(rows))
        left.hlines(spots, rows.unet_img_s, rows.features_img_s.fillna(rows.fpn_img_s), color="0.85", lw=3, zorder=1)
        for decoder, (colour, marker) in shades.items():
            low, high = rows[f"{decoder}_low"], rows[f"{decoder}_high"]
            left.hlines(spots, low, high, color=colour, alpha=0.5, lw=1.5)
            left.scatter(rows[f"{decoder}_img_s"], spots, color=colour, marker=marker, s=30, zorder=3)
        left.set_yticks(
            spots, [f"{model}\n{mode}" for model, mode in zip(rows.model, rows["mode"], strict=True)], fontsize=8
        )
        left.invert_yaxis()
        left.set_xscale("log")
        plain_log(left.xaxis)
        left.set_xlabel("throughput (img/s)")
        right.hlines(spots, rows.fpn_over_unet_low, rows.fpn_over_unet_high, color=COLOURS[0], alpha=0.5, lw=1.5)
        right.scatter(rows.fpn_over_unet, spots, color=COLOURS[0], s=30, zorder=3)
        right.axvline(1, color="0.6", lw=1, ls="--", zorder=1)
        right.set_xlabel("FPN over UNet, throughput")
        for panel in (left, right):
            panel.grid(color="0.92", axis="x")
        left.set_title(f"{machine}: {rows.cpu.iloc[0]}\n{dates[machine]}", loc="left", fontsize=9)
    labels = {"features": "encoder alone", "fpn": "with Semantic FPN", "unet": "with UNet"}
    handles = [
        plt.Line2D([], [], linestyle="", color=colour, marker=marker, label=labels[name])
        for name, (colour, marker) in shades.items()
    ]
    figure.legend(handles=handles, ncols=3, loc="outside lower center", frameon=False)
    save(figure, path, frame)


def peers(frame: pd.DataFrame, dates: dict[str, str], path: Path) -> None:
    """Per machine: this project's decoder over the library's of the same name, with the interval."""
    machines, modes_shown = [*dict.fromkeys(frame.machine)], [*dict.fromkeys(frame["mode"])]
    figure, axes = plt.subplots(
        1, len(machines), figsize=(WIDTH, 4.5), squeeze=False, layout="constrained", sharex=True
    )
    for panel, machine in zip(axes[0], machines, strict=True):
        rows = frame[frame.machine == machine]
        names = [*dict.fromkeys(zip(rows.model, rows.decoder, strict=True))]
        for place, mode in enumerate(modes_shown):
            of = rows[rows["mode"] == mode]
            shift = (place - (len(modes_shown) - 1) / 2) * 0.2
            spots = [names.index(pair) + shift for pair in zip(of.model, of.decoder, strict=True)]
            panel.hlines(spots, of.over_peer_low, of.over_peer_high, color=COLOURS[place], alpha=0.5, lw=2)
            panel.scatter(
                of.over_peer, spots, s=24, color=COLOURS[place], marker="os^D"[place % 4], label=mode, zorder=3
            )
        panel.set_yticks(range(len(names)), [f"{model} + {decoder}" for model, decoder in names], fontsize=8)
        panel.invert_yaxis()
        panel.axvline(1, color="0.6", lw=1, ls="--", zorder=1)
        panel.set_xlabel("throughput over segmentation-models-pytorch's decoder of that name")
        panel.grid(color="0.92", axis="x")
        panel.legend(frameon=False)
        panel.set_title(f"{machine}: {rows.cpu.iloc[0]}\n{dates[machine]}", loc="left", fontsize=9)
    save(figure, path, frame)


def batches(frame: pd.DataFrame, dates: dict[str, str], path: Path) -> None:
    """Per machine and decoder: throughput over that of a single image against the batch size."""
    machines, names = [*dict.fromkeys(frame.machine)], [*dict.fromkeys(frame.decoder)]
    figure, axes = plt.subplots(
        len(machines),
        len(names),
        figsize=(WIDTH, 3.8 * len(machines)),
        squeeze=False,
        layout="constrained",
        sharey=True,
    )
    models, lines = [*dict.fromkeys(frame.model)], ("-", "--", ":", "-.")
    kinds = {mode: lines[place % 4] for place, mode in enumerate(dict.fromkeys(frame["mode"]))}
    for row, machine in zip(axes, machines, strict=True):
        for panel, decoder in zip(row, names, strict=True):
            of = frame[(frame.machine == machine) & (frame.decoder == decoder) & frame.over_batch_1.notna()]
            for (model, mode), rows in of.groupby(["model", "mode"], sort=False):
                colour = COLOURS[models.index(model) % len(COLOURS)]
                panel.plot(rows.batch_size, rows.over_batch_1, kinds[mode], color=colour, marker="o", ms=3.5, lw=1.2)
                best = rows[rows.enough]
                panel.scatter(best.batch_size, best.over_batch_1, s=70, facecolors="none", edgecolors=colour, zorder=3)
            panel.set_xscale("log", base=2)
            panel.set_xticks(sorted(frame.batch_size.unique()), sorted(frame.batch_size.unique()))
            panel.axhline(1, color="0.6", lw=1, zorder=1)
            panel.set_xlabel(f"batch size, {'encoder alone' if decoder == 'features' else decoder}")
            panel.grid(color="0.92")
        row[0].set_ylabel("throughput over batch 1")
        row[0].set_title(caption(frame[frame.machine == machine], dates[machine]), loc="left", fontsize=9)
    handles = [plt.Line2D([], [], color=COLOURS[i % len(COLOURS)], label=model) for i, model in enumerate(models)]
    handles += [plt.Line2D([], [], color="0.3", ls=line, label=mode) for mode, line in kinds.items()]
    handles.append(
        plt.Line2D([], [], ls="", marker="o", ms=8, mfc="none", color="0.3", label="smallest within 5 % of the best")
    )
    figure.legend(handles=handles, ncols=6, loc="outside lower center", frameon=False, fontsize=8)
    save(figure, path, frame)


def official(rows: pd.DataFrame, whole: pd.DataFrame, dates: dict[str, str], path: Path) -> None:
    """Per machine, each network at its fastest right mode: slices per second by the reference project's rule, and
    seconds per whole CT, a bar from TotalSegmentator's step between tiles to nnU-Net's."""
    machines = [*dict.fromkeys(rows.machine)]
    good = rows[(rows.status == "ok") & rows.eq_s.notna()]
    good = good.loc[good.groupby(["machine", "model", "decoder"], sort=False).eq_s.idxmax()]
    whole = whole.loc[whole.groupby(["machine", "way"], sort=False).ct_s.idxmin()]
    height = 1.6 + 0.28 * max(len(machines) and good.groupby("machine").size().max(), 4)
    figure, axes = plt.subplots(
        len(machines), 2, figsize=(WIDTH, height * len(machines)), squeeze=False, layout="constrained"
    )
    for (left, right), machine in zip(axes, machines, strict=True):
        of = good[good.machine == machine].sort_values("eq_s", ascending=False)
        flat = of.decoder != ""
        dots(left, of.model + np.where(flat, " + " + of.decoder, ""), of.eq_s, flat, of.eq_s_low, of.eq_s_high)
        left.set_xlabel("slices of 512x512 per second, with 95 % interval\n128x128x64 voxels are four")
        cpu = rows.cpu[rows.machine == machine].iloc[0]
        left.set_title(f"{machine}: {cpu}\n{dates[machine]}", loc="left", fontsize=9)
        of = whole[whole.machine == machine].sort_values("ct_s")
        dots(right, of.way, of.ct_s, of.kind == "2D", of.ct_s, of.ct_half_s)
        right.set_xlabel("seconds per CT of 512x512x300, the networks alone\nline: to tiles at half a tile's distance")
        for panel in (left, right):
            panel.invert_yaxis()
    handles = [
        plt.Line2D([], [], ls="", color=colour, marker=marker, label=name)
        for name, (colour, marker) in zip(("2D", "3D"), KINDS, strict=True)
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center", frameon=False)
    save(figure, path, pd.concat([good, whole]))


def dots(axes: Axes, names: pd.Series, values: pd.Series, flat: pd.Series, low: pd.Series, high: pd.Series) -> None:
    """Points with their names and a line from `low` to `high` on a logarithmic axis, 2D apart from 3D."""
    spots = np.arange(len(names))
    for kind, (colour, marker) in zip((flat, ~flat), KINDS, strict=True):
        axes.hlines(spots[kind], low[kind], high[kind], color=colour, alpha=0.4, lw=3)
        axes.scatter(values[kind], spots[kind], s=28, color=colour, marker=marker, zorder=3)
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


def save(figure: plt.Figure, path: Path, frame: pd.DataFrame) -> None:
    with tables.replacing(path) as draft:
        figure.savefig(draft, dpi=100, metadata={"Description": f"data {tables.digest(frame)}", "Software": None})
    plt.close(figure)
