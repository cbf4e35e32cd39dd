"""Encoder alone, FPN and UNet side by side: tables and picture."""

from functools import partial

import msgspec
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks import catalogue
from segbench.analysis import markdown, plots, rankings
from segbench.analysis.markdown import Shown, spans
from segbench.analysis.plots import COLOURS, Picture
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.cases import DECODERS, FEATURES

COLUMNS = {"throughput_img_s": "img_s", "throughput_low": "low", "throughput_high": "high", "params_m": "params_m"}
COLUMNS |= {"gmacs": "gmacs", "memory_mb_img": "memory_mb_img", "gflop_s": "gflop_s", "status": "status"}
SHADES = {FEATURES: ("0.5", "D"), "fpn": (COLOURS[0], "o"), "unet": (COLOURS[1], "s")}


def side_by_side(results: Results) -> pd.DataFrame:
    """A row per machine, model and mode: the encoder's feature maps, FPN and UNet, and FPN's throughput over UNet's."""
    ratios = results.ratios("over_unet", lambda case: msgspec.structs.replace(case, decoder="unet"))
    frame = results.rows.join(ratios).rename(columns=COLUMNS)
    keys = ["machine", "cpu", "family", "model", "mode"]
    table = frame[keys].drop_duplicates()
    for decoder in SHADES:
        columns = [*COLUMNS.values(), *(ratios if decoder == "fpn" else ())]
        rows = frame[frame.decoder == decoder].set_index(keys)[columns]
        table = table.join(rows.add_prefix(f"{decoder}_"), on=keys)
    return table


def terminal(results: Results) -> str:
    digits = {"features_img_s": 2, "fpn_img_s": 2, "unet_img_s": 2, "fpn_over_unet": 2}
    return markdown.aligned(side_by_side(results)[["model", "mode", *digits]], digits)


def over_all(results: Results) -> Shown:
    """FPN's throughput over UNet's, and FPN's parameters, GMACs and memory per image over UNet's in the median, over
    the same encoders in all modes; the fewest rounds in which both were measured."""
    frame, summary = side_by_side(results).dropna(subset="fpn_over_unet").assign(decoder="fpn"), []
    frame = frame[frame.fpn_over_unet_pairs >= min(rankings.PAIRS, frame.fpn_over_unet_pairs.max())]
    for mode, rows in rankings.same_networks(frame).groupby("mode", sort=False):
        ratio = rows.fpn_over_unet
        row = {"mode": mode, "encoders": len(rows), "pairs": rows.fpn_over_unet_pairs.min()}
        row["significantly faster"] = (rows.fpn_over_unet_low > 1).sum()
        row |= {"FPN over UNet, lowest": ratio.min(), "median": ratio.median(), "highest": ratio.max()}
        for name, column in (("parameters", "params_m"), ("GMACs", "gmacs"), ("memory", "memory_mb_img")):
            row[name] = (rows[f"fpn_{column}"] / rows[f"unet_{column}"].replace(0, np.nan)).median()
        summary.append(row)
    ratios = {"FPN over UNet, lowest": 2, "median": 2, "highest": 2, "parameters": 2, "GMACs": 2, "memory": 2}
    return Shown(pd.DataFrame(summary), {"encoders": 0, "pairs": 0, "significantly faster": 0} | ratios)


def by_encoder(results: Results) -> Shown:
    """Encoder alone, with FPN and with UNet, measured next to each other in the same rounds."""
    rows = side_by_side(results).sort_values(["mode", "fpn_img_s"], ascending=[True, False])
    columns = {"encoder": rows.model, "mode": rows["mode"]}
    columns |= {f"{DECODERS[decoder]}, img/s": (rows[f"{decoder}_img_s"], 1) for decoder in SHADES}
    columns["FPN over UNet"] = (rows.fpn_over_unet, 2)
    columns["95 % interval"] = spans(rows.fpn_over_unet_low, rows.fpn_over_unet_high, 2)
    for name, column, digits in (("M", "params_m", 2), ("MB/img", "memory_mb_img", 0)):
        for decoder in ("fpn", "unet"):
            columns[f"{DECODERS[decoder]}, {name}"] = (rows[f"{decoder}_{column}"], digits)
    return catalogue.shown(columns)


def picture(results: Results) -> Picture:
    """Each encoder under the mode in which its UNet is fastest: throughput alone, with FPN and with UNet; and how many
    times as fast FPN is."""
    frame = side_by_side(results)
    frame = frame[(frame.fpn_status == "ok") & (frame.unet_status == "ok")].dropna(subset=["fpn_img_s", "unet_img_s"])
    frame = frame.loc[frame.groupby(["machine", "model"], sort=False).unet_img_s.idxmax()]
    return (frame, partial(draw, frame, results.dates())) if len(frame) else None


def draw(frame: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = plots.by_machine(frame)
    heights = [1.2 + 0.36 * len(rows) for rows in machines.values()]
    figure, axes = plots.panels(heights, 2, width_ratios=(2, 1), sharey="row")
    for (left, right), (machine, rows) in zip(axes, machines.items(), strict=True):
        rows = rows.sort_values("unet_img_s", ascending=False)
        spots = np.arange(len(rows))
        left.hlines(spots, rows.unet_img_s, rows.features_img_s.fillna(rows.fpn_img_s), color="0.85", lw=3, zorder=1)
        for decoder, shade in SHADES.items():
            x, low, high = (rows[f"{decoder}_{column}"] for column in ("img_s", "low", "high"))
            plots.dots(left, x, low, high, spots, shade)
        names = [f"{model}\n{mode}" for model, mode in zip(rows.model, rows["mode"], strict=True)]
        left.set_yticks(spots, names, fontsize=8)
        left.invert_yaxis()
        left.set_xscale("log")
        plots.plain_log(left.xaxis)
        left.set_xlabel("throughput (img/s)")
        plots.title(left, rows, dates[machine])
        plots.dots(right, rows.fpn_over_unet, rows.fpn_over_unet_low, rows.fpn_over_unet_high, spots, SHADES["fpn"])
        plots.line_at_1(right)
        right.set_xlabel("FPN over UNet, throughput")
        for panel in (left, right):
            panel.grid(color="0.92", axis="x")
    plots.key(figure, [plots.point(DECODERS[decoder], *shade) for decoder, shade in SHADES.items()])
    return figure


def fpn_against_unet(results_of: catalogue.AllResults) -> str:
    """By mode: of this benchmark and of that of runtimes, each on the machine with the most runs."""
    frames = []
    for folder in ("combined", "runtimes"):
        results = catalogue.largest(results_of, folder)
        if results.run_logs:
            frame = over_all(results).frame
            frame.insert(0, "CPU", catalogue.cpu(results.run_logs[0].header.machine))
            frames.append(frame.assign(**{"measured by": folder}))
    if not frames:
        return ""
    frame = pd.concat(frames).rename(columns={"FPN over UNet, lowest": "lowest", "median": "FPN over UNet, median"})
    columns = ["CPU", "measured by", "mode", "encoders", "pairs", "FPN over UNet, median", "lowest", "highest"]
    frame = frame[[*columns, "significantly faster", "parameters", "GMACs", "memory"]]
    digits = dict.fromkeys(frame.columns[3:], 2) | {"encoders": 0, "pairs": 0, "significantly faster": 0}
    return markdown.table(frame, digits)


README_TABLES = {"fpn-against-unet": fpn_against_unet}
REPORT = Report(
    csvs={"combined_benchmark_results.csv": side_by_side},
    pictures={"combined_benchmark_plot.png": picture},
    show=terminal,
    pages=(over_all, by_encoder),
)
