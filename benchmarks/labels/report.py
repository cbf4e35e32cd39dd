"""What benchmark.py shows: the fused argmax against every other way from an image to labels."""

import statistics
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks import catalogue
from segbench.analysis import estimates, markdown, tables
from segbench.analysis.markdown import Shown, spans
from segbench.analysis.plots import COLOURS, WIDTH, Picture, caption
from segbench.analysis.reports import Report
from segbench.analysis.tables import NETWORK, Results
from segbench.cases import DECODERS, OUTPUTS

FUSED = "labels"
OWN = ("fpn", "unet")
PRECISIONS = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
KEYS = [*NETWORK, "precision"]

HERE = Path(__file__).resolve().parent


def won(results: Results) -> pd.DataFrame:
    """A row per machine, network and precision: the fastest valid way with the fused argmax, the fastest valid one without
    it, and throughput of the first over that of the second with its interval; and over segmentation-models-pytorch's
    decoder of that kind with argmax, at its fastest."""
    frame = results.rows
    if frame.empty:
        return frame
    fused, other = (tables.best(frame[(frame.output == FUSED) == is_fused], keys=KEYS) for is_fused in (True, False))
    other, rows = other.reset_index().set_index(KEYS), []
    for row in fused[fused.decoder.isin(OWN)].itertuples():
        names = {key: getattr(row, key) for key in KEYS}
        if tuple(names.values()) not in other.index:
            continue
        second = other.loc[tuple(names.values())]
        (run_log, case), (_, before) = results.cases[row.Index], results.cases[second["index"]]
        of_run_log = results.estimates(run_log)
        ratio = estimates.speedup(of_run_log[before], of_run_log[case])
        peers = frame[(frame.machine == row.machine) & (frame.model == row.model) & (frame.status == "ok")]
        peer = peers[(peers.decoder == f"smp-{row.decoder}")].throughput_img_s.max()
        rows.append(
            {**names, "classes": row.classes}
            | {"mode": row.mode, "throughput_img_s": row.throughput_img_s}
            | {"throughput_low": row.throughput_low, "throughput_high": row.throughput_high}
            | {"other_mode": second["mode"], "other_output": second.output, "other_img_s": second.throughput_img_s}
            | dict(zip(("ratio", "ratio_low", "ratio_high"), ratio[:3], strict=True))
            | {"over_smp": row.throughput_img_s / peer, "argmax_agreement": row.argmax_agreement}
            | {"memory_mb_img": row.memory_mb_img, "other_memory_mb_img": second.memory_mb_img}
        )
    return pd.DataFrame(rows)


def means(results: Results) -> Shown:
    """What the fused argmax brings: throughput over the fastest other way from image to labels at the same precision,
    geometric mean over the encoders (lowest to highest); in how many the 95 % interval is above 1; over
    segmentation-models-pytorch's decoder with argmax in FP32, the faster of eager mode and OpenVINO, where it takes the
    encoder (no ViT); and the smallest share of pixels with FP32 eager's label."""
    frame, rows = won(results), []
    if frame.empty:
        return Shown(frame, {})
    for (decoder, precision), group in frame.groupby(["decoder", "precision"], sort=False):
        rows.append(
            {
                "decoder": DECODERS[decoder],
                "precision": PRECISIONS[precision],
                "encoders": len(group),
                "over the fastest other way": statistics.geometric_mean(group.ratio),
                "lowest to highest": f"{group.ratio.min():.2f} to {group.ratio.max():.2f}",
                "interval above 1": int((group.ratio_low > 1).sum()),
                "over smp in FP32": statistics.geometric_mean(group.over_smp.dropna()),
                "same label, at least": f"{group.argmax_agreement.min():.4%}",
            }
        )
    order = pd.DataFrame(rows).sort_values("decoder", kind="stable")
    digits = {"encoders": 0, "over the fastest other way": 2, "interval above 1": 0, "over smp in FP32": 2}
    return Shown(order, digits)


def ways(results: Results) -> Shown:
    """From image to labels, in ms: the fastest valid mode of each way and precision."""
    frame = results.rows
    right = frame[frame.decoder.isin(OWN)]
    best = tables.best(right, keys=[*KEYS, "output"])
    if best.empty:
        return Shown(best, {})
    best["way"] = best.precision.map(PRECISIONS) + ", " + best.output.map(OUTPUTS)
    best["network"] = best.model + " + " + best.decoder.map(DECODERS)
    wide = best.pivot(index="network", columns="way", values="latency_ms")
    names = [f"{p}, {OUTPUTS[o]}" for p in PRECISIONS.values() for o in OUTPUTS if f"{p}, {OUTPUTS[o]}" in wide]
    wide = wide.reindex(index=[*dict.fromkeys(best.network)], columns=names).reset_index()
    return Shown(wide, dict.fromkeys(names, 1))


def pairs(results: Results) -> Shown:
    """The fused argmax against the fastest other way, network by network, in img/s."""
    frame = won(results)
    if frame.empty:
        return Shown(frame, {})
    columns = {
        "network": frame.model + " + " + frame.decoder.map(DECODERS),
        "precision": frame.precision.map(PRECISIONS),
        "fused argmax behind": frame["mode"],
        "img/s": frame.throughput_img_s,
        "fastest other way": frame.other_mode + ", " + frame.other_output.map(OUTPUTS),
        "its img/s": frame.other_img_s,
        "ratio": frame.ratio,
        "95 % interval": spans(frame.ratio_low, frame.ratio_high, 2),
    }
    return Shown(pd.DataFrame(columns), {"img/s": 1, "its img/s": 1, "ratio": 2})


def terminal(results: Results) -> str:
    frame = results.rows
    digits = {"throughput_img_s": 2, "latency_ms": 1, "memory_mb_img": 1, "argmax_agreement": 5}
    names = ["model", "decoder", "mode", "output", *digits, "status"]
    texts = [markdown.aligned(frame[names], digits)]
    texts += [markdown.aligned(*shown[:2]) for shown in (pairs(results), means(results)) if len(shown.frame)]
    return "\n\n".join(texts)


def picture(results: Results) -> Picture:
    """A row per run log, a column per decoder: ms from image to labels, the fused argmax (full) against the fastest other
    way (hollow), precision by precision."""
    frame = won(results)
    if frame.empty:
        return None
    return frame, partial(draw, frame, results.rows, results.dates())


def draw(frame: pd.DataFrame, all_rows: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = [*dict.fromkeys(frame.machine)]
    names = [*dict.fromkeys(frame.model)]
    figure, axes = plt.subplots(
        len(machines),
        len(OWN),
        figsize=(WIDTH, len(machines) * (1.4 + 0.36 * len(names))),
        squeeze=False,
        layout="constrained",
        sharey=True,
    )
    for panels, machine in zip(axes, machines, strict=True):
        for panel, decoder in zip(panels, OWN, strict=True):
            rows = frame[(frame.machine == machine) & (frame.decoder == decoder)]
            for place, (precision, label) in enumerate(PRECISIONS.items()):
                own = rows[rows.precision == precision]
                y = np.array([names.index(name) for name in own.model]) + 0.25 * (place - 1)
                fused, other = 1e3 / own.throughput_img_s, 1e3 / own.other_img_s
                panel.hlines(y, fused, other, color=COLOURS[place], lw=1.2)
                panel.scatter(other, y, s=26, facecolors="white", edgecolors=COLOURS[place], zorder=3)
                panel.scatter(fused, y, s=26, color=COLOURS[place], zorder=3, label=label)
            panel.set_xscale("log")
            panel.set_xlabel(f"ms from image to labels, {DECODERS[decoder]}")
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter("{x:g}")
            panel.tick_params(axis="x", which="both", labelsize=7)
            panel.grid(axis="x", which="both", color="0.92")
        panels[0].set_yticks(range(len(names)), names, fontsize=8)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        shown = all_rows[all_rows.machine == machine]
        panels[0].set_title(caption(shown, dates[machine]), loc="left", fontsize=9)
    handles, labels = axes[0][0].get_legend_handles_labels()
    handles.append(plt.Line2D([], [], ls="", marker="o", mfc="white", color="0.3", label="fastest other way"))
    figure.legend(handles, [*labels, "fastest other way"], ncols=4, loc="outside lower center", frameon=False)
    return figure


def kernels(folder: Path) -> pd.DataFrame:
    """What kernels.py saw on all machines, with `limit_ms`, the larger of what this machine's memory and arithmetic
    need for it, and `share`, that over the time that it took; empty where there is nothing."""
    frames = [pd.read_csv(path) for path in sorted((folder / "kernels").glob("*.csv"))]
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    memory_ms = frame.bytes / frame.memory_gb_s / 1e6
    arithmetic_ms = frame.instructions / frame.instructions_g_s / 1e6
    frame["limit_ms"] = np.maximum(memory_ms, arithmetic_ms)
    frame["limited_by"] = np.where(memory_ms > arithmetic_ms, "memory", "arithmetic")
    frame["share"] = frame.limit_ms / frame.ms
    return frame


def shown_kernels(folder: Path) -> Shown:
    """For a page."""
    frame = kernels(folder)
    if frame.empty:
        return Shown(frame, {})
    columns = {
        "kernel, machine": frame.kernel + ", " + frame.machine,
        "ms": frame.ms,
        "torch, eager": frame.eager_ms,
        "compiled": frame.compiled_ms,
        "ratio": frame.ratio,
        "95 % interval": spans(frame.ratio_low, frame.ratio_high),
        "same labels": frame.same_labels.map("{:.4%}".format).replace("nan%", ""),
        "limit, ms": frame.limit_ms,
        "by": frame.limited_by,
        "share of it": frame.share,
        "MB beyond its input": frame.beyond_input_mb if "beyond_input_mb" in frame else float("nan"),
    }
    digits = {"ms": 1, "torch, eager": 0, "compiled": 0, "ratio": 1, "limit, ms": 2, "share of it": 2}
    return Shown(pd.DataFrame(columns), digits | {"MB beyond its input": 0})


def write(root: Path, out: Path, draw_pictures: bool = True) -> list[Path]:
    """kernels.csv in `out`, from what lies below `root`."""
    frame = kernels(root)
    if frame.empty:
        return []
    tables.write_csv(out / "kernels.csv", frame)
    return [out / "kernels.csv"]


TABLES = (means, pairs, ways)


def label_ways(results_of: catalogue.AllResults) -> str:
    """From image to labels, on the machine with the most cases."""
    results = catalogue.largest(results_of, "labels")
    return markdown.table(*means(results)[:2]) if results.run_logs else ""


def label_kernels(results_of: catalogue.AllResults) -> str:
    """The kernels on all machines."""
    shown = shown_kernels(HERE)
    return markdown.table(*shown[:2]) if len(shown.frame) else ""


README_TABLES = {"label-ways": label_ways, "label-kernels": label_kernels}


REPORT = Report(
    csvs={
        "benchmark_results_all.csv": lambda results: results.rows,
        "benchmark_results.csv": won,
    },
    pictures={"benchmark_plot.png": picture},
    show=terminal,
    pages=TABLES,
)
