"""What benchmark_official.py shows of 2D networks against the official 3D models: tables and picture."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import catalogue
from benchmarks.official import costs
from segbench import modes, zoo
from segbench.analysis import markdown, plots, rankings
from segbench.analysis.markdown import Shown
from segbench.analysis.plots import COLOURS, Picture
from segbench.analysis.rankings import NETWORK
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.cases import sides
from segbench.modes import BASELINES

REPEATED = 3  # sessions that a spread needs
# Of the ways to segment a whole CT: the reference project's 2D network, and all 3D ones.
WAYS = ("mobileone_s0 + UNet", *(run.name for run in zoo.RELEASED))
KINDS = {"2D": (COLOURS[0], "o"), "3D": (COLOURS[1], "s")}


def terminal(results: Results) -> str:
    digits = {"latency_ms": 0, "eq_s": 2, "gmacs": 1, "peak_gb": 1, "gflop_s": 0}
    rows = costs.equivalents(results)
    measured = markdown.aligned(rows[["model", "decoder", "classes", "size", "mode", "status", *digits]], digits)
    digits = {"inferences": 0, "inferences_half": 0, "latency_s": 2, "ct_s": 0, "ct_half_s": 0, "ct_tmac": 1}
    return measured + "\n\n" + markdown.aligned(costs.costs(results)[["way", "mode", *digits]], digits)


def equivalents(results: Results) -> Shown:
    """Slices per second (eq/s: 128x128x64 voxels count as four slices of 512x512), each network at its fastest valid
    mode. GB are the weights of one network in FP32 and what one inference adds to them at its peak."""
    frame = costs.equivalents(results)
    slow = rankings.eager(frame[frame.eq_s.notna()])[["eq_s", "peak_gb"]]
    top = costs.ranked_equivalents(frame).join(slow.add_suffix("_baseline"), on=NETWORK)
    return catalogue.shown(
        {
            "network": costs.networks(top),
            "input": top["size"],
            "fastest valid mode": top["mode"],
            "eq/s": (top.eq_s, 2),
            "95 % interval": markdown.spans(top.eq_s_low, top.eq_s_high, 2),
            "eq/s, baseline": (top.eq_s_baseline, 2),
            "latency, ms": (top.latency_ms, 0),
            "quality": top.quality,
            "GMACs": (top.gmacs, 1),
            "GMACs/slice": (top.gmacs_slice, 1),
            "params, M": (top.params_m, 2),
            "GB": (top.peak_gb, 2),
            "GB, baseline": (top.peak_gb_baseline, 2),
        }
    )


def whole_cts(results: Results) -> Shown:
    """A whole CT of 512x512x300 voxels, each way at its fastest valid mode: the networks alone, without resampling,
    stitching and reading files. From all samples is what a shared machine gives on average."""
    frame = costs.costs(results)
    slow = rankings.eager(frame, ["machine", "way"])[["ct_s", "peak_gb"]]
    top = costs.ranked_costs(frame).join(slow.add_suffix("_baseline"), on=["machine", "way"])
    return catalogue.shown(
        {
            "network": top.way,
            "fastest valid mode": top["mode"],
            "inferences": (top.inferences, 0),
            "s each": (top.latency_s, 2),
            "s per CT": (top.ct_s, 0),
            "95 % interval": markdown.spans(top.ct_low_s, top.ct_high_s, 0),
            "all samples, s": (top.ct_all_s, 0),
            "baseline, s": (top.ct_s_baseline, 0),
            "TMAC": (top.ct_tmac, 1),
            "s per CT, step 0.5": (top.ct_half_s, 0),
            "TMAC, step 0.5": (top.ct_half_tmac, 1),
            "GB": (top.peak_gb, 2),
            "GB, baseline": (top.peak_gb_baseline, 2),
        }
    )


def by_mode(results: Results) -> Shown:
    """Latency in ms of each 3D case under every mode."""
    frame = results.rows[(results.rows.decoder == "") & (results.rows.status == "ok")]
    keys = ["model", "size", "classes"]
    wide = frame.pivot_table(index=keys, columns="mode", values="latency_ms", sort=False)
    names = modes.in_order(wide.columns)
    wide = wide[names].reset_index().rename(columns={"model": "network", "classes": "outputs"})
    return Shown(wide.replace({"network": costs.NAMES}), dict.fromkeys(("outputs", *names), 0))


def over_2d(results: Results) -> Shown:
    """How much a 3D network costs over the reference project's 2D one, mobileone_s0 + UNet, by each measure."""
    frame, whole = costs.equivalents(results), costs.costs(results)
    good = frame[(frame.status == "ok") & frame.eq_s.notna()]
    flat = good[(good.model == "mobileone_s0") & (good.decoder == "unet")]
    flat_way, ratios = whole[whole.way == "mobileone_s0 + UNet"], []
    for run in zoo.RELEASED:
        deep, way = good[(good.model == run.model) & (good.decoder == "")], whole[whole.way == run.name]
        slow, slow_flat = (rows[rows["mode"].isin(BASELINES)].eq_s.max() for rows in (deep, flat))
        row = {"network": run.name, "eq/s, baseline": slow_flat / slow}
        row |= {"eq/s, fastest modes": flat.eq_s.max() / deep.eq_s.max()}
        row |= {"GMACs per slice": deep.gmacs_slice.max() / flat.gmacs_slice.max()}
        row |= {"s per CT": way.ct_s.min() / flat_way.ct_s.min()}
        row |= {"s per CT, all samples": way.ct_all_s.min() / flat_way.ct_all_s.min()}
        ratios.append(row | {"TMAC per CT": way.ct_tmac.max() / flat_way.ct_tmac.max()})
    table = pd.DataFrame(ratios).dropna(how="all", subset=["eq/s, baseline", "s per CT"])
    return Shown(table, dict.fromkeys([*table][1:], 1))


def sessions_apart(results: Results) -> pd.DataFrame:
    """A row per case that has several sessions: max/min of the latencies that each would publish alone."""
    rows = []
    for run_log, case in results.cases:
        whole = results.estimates(run_log)[case]
        sessions = {run.session for run in whole.raw if run.status == "ok"}
        parts = [whole.only(lambda name, _, session=session: name == session) for session in sessions]
        ms, all_ms = ([getattr(part, f) for part in parts if part] for f in ("latency_ms", "all_samples_ms"))
        if len(ms) > 1:
            row = {"network": case.model, "decoder": case.decoder, "classes": case.classes, "size": sides(case.size)}
            row |= {"mode": case.mode, "repetitions": len(ms), "latency_ms": np.median(ms)}
            rows.append(row | {"spread": max(ms) / min(ms), "all_samples_spread": max(all_ms) / min(all_ms)})
    return pd.DataFrame(rows)


def spreads(results: Results) -> Shown:
    """Max/min over repetitions of what the 3D networks' latencies would be published as, where there are three or more;
    a repetition is a session's runs of a case."""
    frame = sessions_apart(results)
    if len(frame):
        frame = frame[(frame.decoder == "") & (frame.repetitions >= REPEATED)].drop(columns="decoder")
    return Shown(frame, {"repetitions": 0, "latency_ms": 0, "spread": 3, "all_samples_spread": 3})


def picture(results: Results) -> Picture:
    """Each network at its fastest valid mode: slices per second by the reference project's rule, and seconds per whole
    CT, a line from TotalSegmentator's step between tiles to nnU-Net's."""
    rows = costs.ranked_equivalents(costs.equivalents(results))
    whole = costs.ranked_costs(costs.costs(results))
    return (pd.concat([rows, whole]), partial(draw, rows, whole, results.dates())) if len(rows) else None


def draw(rows: pd.DataFrame, whole: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = plots.by_machine(rows)
    height = 1.6 + 0.28 * max(*map(len, machines.values()), 4)
    figure, axes = plots.panels([height] * len(machines), 2)
    for (left, right), (machine, top) in zip(axes, machines.items(), strict=True):
        kinds = top.decoder.map(lambda decoder: "2D" if decoder else "3D")
        dots(left, costs.networks(top), top.eq_s, kinds, top.eq_s_low, top.eq_s_high)
        left.set_xlabel("slices of 512x512 per second, with 95 % interval\n128x128x64 voxels are four")
        plots.title(left, top, dates[machine])
        top = whole[whole.machine == machine]
        dots(right, top.way, top.ct_s, top.kind, top.ct_s, top.ct_half_s)
        right.set_xlabel("seconds per CT of 512x512x300, the networks alone\nline: to tiles at half a tile's distance")
    plots.key(figure, [plots.point(kind, *shade) for kind, shade in KINDS.items()])
    return figure


def dots(axes: Axes, names: pd.Series, values: pd.Series, kinds: pd.Series, low: pd.Series, high: pd.Series) -> None:
    """Points with their names and a line from `low` to `high` on a logarithmic axis, 2D apart from 3D."""
    spots = np.arange(len(names))
    for kind, shade in KINDS.items():
        chosen = (kinds == kind).to_numpy()
        plots.dots(axes, values[chosen], low[chosen], high[chosen], spots[chosen], shade)
    axes.set_yticks(spots, names, fontsize=8)
    axes.set_xscale("log")
    if len(values):  # after one or two rounds an interval may span decades
        axes.set_xlim(values.min() / 2, values.max() * 2)
    plots.plain_log(axes.xaxis, ticks=(1, 2, 5))
    axes.invert_yaxis()
    axes.grid(color="0.92", axis="x")


def whole_cts_short(results_of: catalogue.AllResults) -> str:
    """A whole CT, on the machine with the most cases."""
    results = catalogue.largest(results_of, "official")
    frame = costs.costs(results)
    slow = rankings.eager(frame, ["way"]).ct_s
    top = costs.ranked_costs(frame)
    top = top[top.way.isin([*WAYS, *top[top.kind == "2D"].way.head(1)])]
    cpus = ", ".join(catalogue.cpus({"official": results}).values())
    shown = catalogue.shown(
        {
            "network": top.way,
            "fastest valid mode": top["mode"],
            "s per CT": (top.ct_s, 0),
            "eager FP32": (top.way.map(slow), 0),
            "TMAC": (top.ct_tmac, 1),
        }
    )
    return f"On {cpus}:\n\n{markdown.table(shown.frame, shown.digits)}"


README_TABLES = {"whole-cts": whole_cts_short}
REPORT = Report(
    csvs={
        "benchmark_official_results.csv": costs.equivalents,
        "benchmark_official_costs.csv": costs.costs,
    },
    pictures={"benchmark_official_plot.png": picture},
    show=terminal,
    pages=(equivalents, whole_cts, by_mode, over_2d, spreads),
)
