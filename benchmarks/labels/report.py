"""What benchmark.py shows: the fused argmax against every other way from an image to labels."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gmean

from benchmarks import catalogue
from segbench.analysis import estimates, markdown, plots, rankings, tables
from segbench.analysis.markdown import Shown, spans
from segbench.analysis.plots import COLOURS, Picture
from segbench.analysis.rankings import NETWORK
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.cases import DECODERS, OUTPUTS

FUSED = "labels"  # the output that the fused argmax makes
WITH_FUSED = ("fpn", "unet")  # decoders that have it; others are segmentation-models-pytorch's
PRECISIONS = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}
KEYS = [*NETWORK, "precision"]

HERE = Path(__file__).resolve().parent


def comparison(results: Results) -> pd.DataFrame:
    """A row per machine, network and precision: the fastest valid mode with the fused argmax, the fastest valid way
    without it, and throughput of the first over that of the second with its interval (`ratio`). `over_smp`: throughput
    over that of segmentation-models-pytorch's decoder of that kind with argmax, at its fastest."""
    rows = results.rows
    fused = rankings.best(rows[(rows.output == FUSED) & rows.decoder.isin(WITH_FUSED)], keys=KEYS)
    others = rankings.best(rows[rows.output != FUSED], keys=KEYS)
    others = others[[*KEYS, "mode", "output", "throughput_img_s", "memory_mb_img"]]
    others = others.rename(columns={"throughput_img_s": "img_s"}).reset_index(names="place").set_index(KEYS)
    frame = fused.reset_index(names="place").merge(others.add_prefix("other_"), on=KEYS)
    ratios = []
    for place, other_place in zip(frame.place, frame.other_place, strict=True):
        (run_log, case), (_, other_case) = results.cases[place], results.cases[other_place]
        estimate_of = results.estimates(run_log)
        ratios.append(estimates.speedup(estimate_of[other_case], estimate_of[case])[:3])
    ratio = ["ratio", "ratio_low", "ratio_high"]
    frame[ratio] = pd.DataFrame(ratios, columns=ratio)
    smp = rows[(rows.status == "ok") & rows.decoder.str.startswith("smp-")]
    smp = smp.assign(decoder=smp.decoder.str.removeprefix("smp-")).groupby(NETWORK).throughput_img_s.max()
    frame["over_smp"] = frame.throughput_img_s / frame.join(smp.rename("smp_img_s"), on=NETWORK).smp_img_s
    columns = [*KEYS, "classes", "mode", "throughput_img_s", "throughput_low", "throughput_high", "other_mode"]
    columns += ["other_output", "other_img_s", *ratio, "over_smp", "argmax_agreement", "memory_mb_img"]
    return frame[[*columns, "other_memory_mb_img"]]


def means(results: Results) -> Shown:
    """Throughput with the fused argmax over that of the fastest other way from image to labels at the same precision:
    geometric mean over the encoders, lowest and highest, and for how many encoders the 95 % interval is above 1. Over
    segmentation-models-pytorch's decoder with argmax in FP32, the faster of eager mode and OpenVINO, for the encoders
    that it takes (no ViT). And the smallest share of pixels that have FP32 eager's label."""
    frame, rows = comparison(results).sort_values("decoder", kind="stable"), []
    for (decoder, precision), group in frame.groupby(["decoder", "precision"], sort=False):
        row = {"decoder": DECODERS[decoder], "precision": PRECISIONS[precision], "encoders": len(group)}
        row |= {"over the fastest other way": gmean(group.ratio)}
        row |= {"lowest": group.ratio.min(), "highest": group.ratio.max()}
        row |= {"interval above 1": (group.ratio_low > 1).sum(), "over smp in FP32": gmean(group.over_smp.dropna())}
        rows.append(row | {"same label, at least": f"{group.argmax_agreement.min():.4%}"})
    digits = {"encoders": 0, "over the fastest other way": 2, "lowest": 2, "highest": 2}
    digits |= {"interval above 1": 0, "over smp in FP32": 2}
    return Shown(pd.DataFrame(rows), digits)


def ways(results: Results) -> Shown:
    """From image to labels, in ms: the fastest valid mode of each way and precision."""
    frame = results.rows
    best = rankings.best(frame[frame.decoder.isin(WITH_FUSED)], keys=[*KEYS, "output"])
    best["way"] = best.precision.map(PRECISIONS) + ", " + best.output.map(OUTPUTS)
    best["network"] = catalogue.networks(best)
    wide = best.pivot(index="network", columns="way", values="latency_ms")
    names = [f"{precision}, {output}" for precision in PRECISIONS.values() for output in OUTPUTS.values()]
    names = [name for name in names if name in wide]
    wide = wide.reindex(index=[*dict.fromkeys(best.network)], columns=names).reset_index()
    return Shown(wide, dict.fromkeys(names, 1))


def pairs(results: Results) -> Shown:
    """The fused argmax against the fastest other way for each network, in img/s."""
    frame = comparison(results)
    return catalogue.shown(
        {
            "network": catalogue.networks(frame),
            "precision": frame.precision.map(PRECISIONS),
            "mode with the fused argmax": frame["mode"],
            "img/s": (frame.throughput_img_s, 1),
            "mode of the fastest other way": frame.other_mode,
            "other way": frame.other_output.map(OUTPUTS),
            "its img/s": (frame.other_img_s, 1),
            "ratio": (frame.ratio, 2),
            "95 % interval": spans(frame.ratio_low, frame.ratio_high, 2),
        }
    )


def terminal(results: Results) -> str:
    frame = results.rows
    digits = {"throughput_img_s": 2, "latency_ms": 1, "memory_mb_img": 1, "argmax_agreement": 5}
    names = ["model", "decoder", "mode", "output", *digits, "status"]
    texts = [markdown.aligned(frame[names], digits)]
    texts += [markdown.aligned(*table(results)[:2]) for table in (pairs, means)]
    return "\n\n".join(texts)


def picture(results: Results) -> Picture:
    """A row per run log, a column per decoder: ms from image to labels, the fused argmax (full) against the fastest
    other way (hollow), for each precision."""
    frame = comparison(results)
    return (frame, partial(draw, frame, results.rows, results.dates())) if len(frame) else None


def draw(frame: pd.DataFrame, all_rows: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines, names = plots.by_machine(frame), [*dict.fromkeys(frame.model)]
    figure, axes = plots.panels([1.4 + 0.36 * len(names)] * len(machines), len(WITH_FUSED), sharey=True)
    for panels, (machine, rows) in zip(axes, machines.items(), strict=True):
        for panel, decoder in zip(panels, WITH_FUSED, strict=True):
            draw_decoder(panel, rows[rows.decoder == decoder], names)
            panel.set_xlabel(f"ms from image to labels, {DECODERS[decoder]}")
        panels[0].set_yticks(range(len(names)), names, fontsize=8)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        title = plots.caption(all_rows[all_rows.machine == machine], dates[machine])
        panels[0].set_title(title, loc="left", fontsize=9)
    handles, _ = axes[0][0].get_legend_handles_labels()
    plots.key(figure, [*handles, plots.point("fastest other way", "0.3", "o", mfc="white")])
    return figure


def draw_decoder(panel: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    for place, (precision, label) in enumerate(PRECISIONS.items()):
        shown = rows[rows.precision == precision]
        y = np.array([names.index(name) for name in shown.model]) + 0.25 * (place - 1)
        fused, other = 1e3 / shown.throughput_img_s, 1e3 / shown.other_img_s
        panel.hlines(y, fused, other, color=COLOURS[place], lw=1.2)
        panel.scatter(other, y, s=26, facecolors="white", edgecolors=COLOURS[place], zorder=3)
        panel.scatter(fused, y, s=26, color=COLOURS[place], zorder=3, label=label)
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("{x:g}")
    panel.tick_params(axis="x", which="both", labelsize=7)
    panel.grid(axis="x", which="both", color="0.92")


def kernels(folder: Path) -> pd.DataFrame:
    """The evidence of kernels.py from all machines, with `limit_ms`, the time that this machine's memory or arithmetic
    needs at least, whichever is larger, and `share`, that over the time taken; empty where there is no evidence."""
    frame = catalogue.evidence(folder / "kernels")
    if frame.empty:
        return frame
    memory_ms = frame.bytes / frame.memory_gb_s / 1e6
    arithmetic_ms = frame.instructions / frame.instructions_g_s / 1e6
    frame["limit_ms"] = np.maximum(memory_ms, arithmetic_ms)
    frame["limited_by"] = np.where(memory_ms > arithmetic_ms, "memory", "arithmetic")
    frame["share"] = frame.limit_ms / frame.ms
    return frame


def write(root: Path, out: Path, draw_pictures: bool = True) -> list[Path]:
    """kernels.csv in `out`, from the evidence below `root`. Returns the paths."""
    frame = kernels(root)
    if frame.empty:
        return []
    tables.write_csv(out / "kernels.csv", frame)
    return [out / "kernels.csv"]


def label_ways(results_of: catalogue.AllResults) -> str:
    """From image to labels, on the machine with the most cases."""
    results = catalogue.largest(results_of, "labels")
    if not results.run_logs:
        return ""
    shown, here = means(results), results.run_logs[0].header.machine
    heading = {"decoder": f"decoder, on {here.title} ({here.name})"}
    return markdown.table(shown.frame.rename(columns=heading), shown.digits)


def label_kernels(results_of: catalogue.AllResults) -> str:
    """The kernels on all machines."""
    frame = kernels(HERE)
    if frame.empty:
        return ""
    cpus = catalogue.cpus(results_of)
    shown = catalogue.shown(
        {
            "CPU": frame.machine.replace(cpus),
            "kernel": frame.kernel,
            "ms": (frame.ms, 1),
            "torch eager, ms": (frame.eager_ms, 0),
            "torch compiled, ms": (frame.compiled_ms, 0),
            "ratio": (frame.ratio, 1),
            "95 % interval": spans(frame.ratio_low, frame.ratio_high),
            "same labels": frame.same_labels.map("{:.4%}".format).replace("nan%", ""),
            "limit, ms": (frame.limit_ms, 2),
            "limited by": frame.limited_by,
            "share of the limit": (frame.share, 2),
            "MB beyond its input": (frame.beyond_input_mb, 0),
        }
    )
    return markdown.table(shown.frame, shown.digits)


README_TABLES = {"label-ways": label_ways, "label-kernels": label_kernels}
REPORT = Report(
    csvs={"benchmark_results_all.csv": lambda results: results.rows, "benchmark_results.csv": comparison},
    pictures={"benchmark_plot.png": picture},
    show=terminal,
    pages=(means, pairs, ways),
)
