"""What benchmark.py shows: speedups of runtimes over torch's eager mode, and what preparing costs."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from benchmarks import catalogue
from segbench import modes
from segbench.analysis import markdown, stats, tables
from segbench.analysis.estimates import NOTHING
from segbench.analysis.markdown import Shown, spans
from segbench.analysis.plots import COLOURS, WIDTH, Picture, caption
from segbench.analysis.reports import Report
from segbench.analysis.tables import NETWORK, Results
from segbench.cases import DECODERS
from segbench.modes import BASELINE
from segbench.records import Run

PRECISIONS = {"fp32": ("FP32", "o"), "bf16": ("BF16", "s"), "int8": ("INT8", "^")}  # name, marker of its winner
STEPS = ("export", "convert", "compile")
KINDS = {name: DECODERS[name] for name in ("", "fpn", "unet")} | {"own": "own network"}  # of 2D networks
LOADED = "-background-load"  # ends the name of a run log that was measured beside a busy process
TORCH = ("baseline", "channels_last", "compile", "compile+freezing", "autocast+compile+freezing")  # one on the other


def everything(results: Results) -> pd.DataFrame:
    """All rows with the seconds of each step of preparing, the size of the converted model, and `pays_after`: how many
    inferences it takes until preparing from nothing has paid against eager mode."""
    frame = results.rows.copy()
    if frame.empty:
        return frame
    runs = [results.estimates(run_log)[case].raw for run_log, case in results.cases]
    for step in STEPS:
        frame[f"{step}_s"] = [of_step(raw, step) for raw in runs]
    frame["model_mb"] = [next((v.model_mb for v in raw if v.model_mb is not None), float("nan")) for raw in runs]
    eager = frame[(frame["mode"] == BASELINE) & (frame.allocator == "retained")].set_index(NETWORK).latency_ms
    saved_s = (frame.join(eager.rename("eager_ms"), on=NETWORK).eager_ms - frame.latency_ms) / 1e3
    frame["break_even"] = np.ceil(frame.prepare_s / saved_s.where(saved_s > 0))
    own = frame.model.str.contains(":")
    frame["kind"] = frame.decoder.where(~own, "own")
    return frame


def without_background_load(results: Results) -> Results:
    """Without the run logs that were measured beside a busy process: those are for `kept`."""
    return results.of(*(run_log for run_log in results.run_logs if not run_log.name.endswith(LOADED)))


def of_step(runs: Iterable[Run], step: str) -> float:
    """Mean seconds of a step from nothing; of torch's compile in runs that found nothing on disk, or else in all."""
    took = [run for run in runs if run.phases_s.get(step)]
    cold = [run for run in took if run.cache == "cold"]
    return tables.mean(run.phases_s[step] for run in cold or took)


def fastest(results: Results) -> pd.DataFrame:
    """A row per machine, network and precision: its fastest valid mode."""
    frame = everything(results)
    if frame.empty:
        return frame
    columns = ["machine", "model", "decoder", "precision", "mode", "throughput_img_s", "throughput_low"]
    columns += ["throughput_high", "speedup", "speedup_low", "speedup_high", "rel_error", "argmax_agreement"]
    columns += ["memory_mb_img", "model_mb", "prepare_s", "prepare_warm_s", "break_even"]
    return tables.best(frame, keys=[*NETWORK, "precision"])[columns]


def is_volume(frame: pd.DataFrame) -> pd.Series:
    return frame["size"].str.count("x") == 2


def kept(results: Results) -> pd.DataFrame:
    """Beside a process that keeps one core busy, run logs labelled `background_load`: a row per machine, network and mode.
    `kept` is images over seconds of all its samples, over its valid throughput in the machine's own run log; its
    interval is over the runs. `p95_ms`: what 95 % of the samples stay below."""
    run_logs, rows = {run_log.name: run_log for run_log in results.run_logs}, []
    for run_log, case in results.cases:
        alone = run_logs.get(run_log.name.removesuffix(LOADED))
        if not run_log.name.endswith(LOADED) or alone is None or case.allocator != "retained":
            continue
        own = results.estimates(alone).get(case, NOTHING)
        runs = [run for run in results.estimates(run_log)[case].raw if run.samples_ms]
        if not own or not runs:
            continue
        shares = [own.latency_ms / np.mean(run.samples_ms) for run in runs]
        low, high = stats.interval(shares)
        row = {"machine": alone.name, "model": case.model, "decoder": case.decoder, "mode": case.mode}
        row |= {"latency_ms": own.latency_ms, "kept": float(np.mean(shares)), "kept_low": low, "kept_high": high}
        samples = np.concatenate([run.samples_ms for run in runs])
        rows.append(row | {"p95_ms": float(np.quantile(samples, 0.95)), "runs": len(runs)})
    return pd.DataFrame(rows)


def reference_times(results: Results) -> Shown:
    """Does a runtime that is loaded and idle disturb torch's reference workload? Their reference times in the runs of each mode over
    those in the runs of eager mode: the tenth of the reference times that is fastest, and the median."""
    of_mode: dict[str, list] = {}
    for run in (run for run_log in without_background_load(results).run_logs for run in run_log.runs):
        if run.status == "ok" and len(run.case.size) == 2:
            of_mode.setdefault(run.case.mode, []).extend(run.reference_ms)
    if BASELINE not in of_mode:
        return Shown(pd.DataFrame(), {})
    quantiles = {mode: np.quantile(of_mode[mode], (0.1, 0.5), axis=0) for mode in modes.in_order([*of_mode])}
    rows = []
    for mode, values in quantiles.items():
        (fast_convolution, fast_gemm), (convolution, gemm) = values / quantiles[BASELINE]
        row = {"mode": mode, "reference_times": len(of_mode[mode])}
        row |= {"convolution, fastest tenth": fast_convolution, "convolution, median": convolution}
        rows.append(row | {"GEMM, fastest tenth": fast_gemm, "GEMM, median": gemm})
    return Shown(
        pd.DataFrame(rows), {name: 3 * (name not in ("mode", "reference_times")) for name in rows[0] if name != "mode"}
    )


def networks(frame: pd.DataFrame) -> pd.Series:
    """`resnet18 + UNet`, `resnet18`, `stunet_s`"""
    behind = frame.decoder.map(lambda name: f" + {DECODERS[name]}" if name else "")
    return frame.model + behind


def terminal(results: Results) -> str:
    frame = everything(results)
    digits = {"throughput_img_s": 2, "speedup": 2, "memory_mb_img": 1, "prepare_s": 1, "prepare_warm_s": 1}
    names = ["model", "decoder", "mode", "allocator", *digits, "break_even", "rel_error", "status"]
    shown = frame[names].assign(rel_error=frame.rel_error.map("{:.1e}".format).replace("nan", ""))
    best = fastest(results)
    own = {"throughput_img_s": 2, "speedup": 2}
    texts = [markdown.aligned(shown, digits | {"break_even": 0})]
    texts.append(markdown.aligned(best[["model", "decoder", "precision", "mode", *own]], own))
    return "\n\n".join(texts)


def gains(results: Results) -> Shown:
    """Speedup over torch's eager mode with the allocator retained: geometric mean over the encoders (alone, with FPN,
    with UNet) that were measured under the mode, the largest relative error, and seconds to prepare from nothing and
    from disk (medians)."""
    frame, rows = everything(without_background_load(results)), []
    if frame.empty:
        return Shown(frame, {})
    frame = frame[(frame.allocator == "retained") & (frame.status == "ok") & ~is_volume(frame)]
    kinds = [kind for kind in KINDS if kind in set(frame.kind)]
    for mode in modes.in_order(frame["mode"]):
        of_mode = frame[frame["mode"] == mode]
        means = {KINDS[kind]: geometric_mean(of_mode[of_mode.kind == kind].speedup) for kind in kinds}
        row = {"mode": mode, "precision": PRECISIONS.get(modes.find(mode).precision, ("",))[0], **means}
        row |= {"networks": len(of_mode), "relative error, at most": f"{of_mode.rel_error.max():.0e}"}
        row |= {"prepare, s": of_mode.prepare_s.median(), "from disk, s": of_mode.prepare_warm_s.median()}
        rows.append(row)
    digits = {KINDS[kind]: 2 for kind in kinds} | {"networks": 0, "prepare, s": 1, "from disk, s": 1}
    return Shown(pd.DataFrame(rows), digits)


def shares(results: Results) -> Shown:
    """How much is left to win: rate of the multiply-adds over the best that this machine reached with a large matrix
    product or convolution in the mode's precision (medians over the networks). Winograd's may exceed it. Modes that
    fewer than half of the networks were tried under are left out."""
    frame = everything(without_background_load(results))
    if frame.empty:
        return Shown(frame, {})
    frame = frame[(frame.allocator == "retained") & (frame.status == "ok") & ~is_volume(frame)]
    tried = frame.groupby("mode").model.transform("nunique")
    frame = frame[2 * tried >= frame.model.nunique()]
    wide = frame.pivot_table(index="mode", columns="kind", values="peak_share", aggfunc="median", sort=False)
    kinds = [kind for kind in KINDS if kind in wide]
    wide = wide.reindex(index=modes.in_order([*wide.index]), columns=kinds).rename(columns=KINDS)
    return Shown(wide.reset_index(), dict.fromkeys(wide, 2))


def winners(results: Results) -> Shown:
    """The fastest valid mode of every network at each precision, in img/s (3D: patches/s), with its 95 % interval and
    its speedup over eager FP32; and after how many inferences preparing it from nothing has paid."""
    best = fastest(without_background_load(results))
    if best.empty:
        return Shown(best, {})
    columns = {
        "network": networks(best),
        "precision": best.precision.map(lambda name: PRECISIONS[name][0]),
        "mode": best["mode"],
        "img/s": best.throughput_img_s,
        "95 % interval": spans(best.throughput_low, best.throughput_high),
        "speedup": best.speedup,
        "relative error": best.rel_error.map("{:.0e}".format),
        "break-even": best.break_even,
    }
    return Shown(pd.DataFrame(columns), {"img/s": 1, "speedup": 2, "break-even": 0})


def geometric_mean(values: pd.Series) -> float:
    return float(np.exp(np.log(values.dropna()).mean())) if values.notna().any() else float("nan")


def picture(results: Results) -> Picture:
    """A row per run log, without those of --background-load. Left: speedup of every mode over baseline, network by network;
    right: torch's steps one on top of the other, geometric mean over the networks of a kind."""
    frame = everything(without_background_load(results))
    if frame.empty:
        return None
    return frame, partial(draw, frame, results.dates())


def draw(frame: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = [*dict.fromkeys(frame.machine)]
    heights = [1.6 + 0.24 * networks(frame[frame.machine == machine]).nunique() for machine in machines]
    figure, axes = plt.subplots(
        len(machines),
        2,
        figsize=(WIDTH, sum(heights)),
        height_ratios=heights,
        width_ratios=(5, 2),
        squeeze=False,
        layout="constrained",
    )
    for (left, right), machine in zip(axes, machines, strict=True):
        rows = frame[frame.machine == machine]
        heat(left, rows[rows.allocator == "retained"])
        left.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
        left.set_title(caption(rows[rows["size"] == rows["size"].mode()[0]], dates[machine]), loc="left", fontsize=9)
        waterfall(right, rows)
    return figure


def heat(axes: Axes, rows: pd.DataFrame) -> None:
    """Networks by modes: speedups as numbers and colours, the fastest valid mode of each precision marked."""
    rows = rows.assign(network=networks(rows))
    names, shown = [*dict.fromkeys(rows.network)], [m for m in modes.in_order(rows["mode"]) if m != BASELINE]
    right = rows[rows.status == "ok"]
    wide = right.pivot(index="network", columns="mode", values="speedup").reindex(index=names, columns=shown)
    axes.pcolormesh(wide.to_numpy(dtype=float), cmap="PuOr_r", norm=LogNorm(1 / 5, 5), alpha=0.7)
    for y, name in enumerate(names):
        for x, mode in enumerate(shown):
            if (value := wide.loc[name, mode]) == value:
                axes.annotate(f"{value:.2f}", (x + 0.45, y + 0.5), ha="center", va="center", fontsize=7)
    best = tables.best(right, keys=[*NETWORK, "precision"])
    for precision, (label, marker) in PRECISIONS.items():
        won = best[(best.precision == precision) & (best["mode"] != BASELINE)]
        spots = [(shown.index(row.mode) + 0.87, names.index(row.network) + 0.5) for row in won.itertuples()]
        if spots:
            axes.scatter(*zip(*spots, strict=True), s=14, color="black", marker=marker, label=f"fastest, {label}")
    axes.set_xticks(np.arange(len(shown)) + 0.5, [mode.replace("+", "\n+") for mode in shown], fontsize=7, rotation=45)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(length=0)


def waterfall(axes: Axes, rows: pd.DataFrame) -> None:
    """Speedup over eager mode with glibc's allocator stock, after each of torch's steps that half of the networks
    were measured with; of the networks that were measured with all of those."""
    rows = rows[(rows.status == "ok") & ~is_volume(rows)]
    eager = (
        rows[(rows["mode"] == BASELINE) & (rows.allocator == "default")].set_index(NETWORK).latency_ms.rename("default")
    )
    after = rows[(rows.allocator == "retained") & rows["mode"].isin(TORCH)].join(eager, on=NETWORK)
    after["gain"] = after.default / after.latency_ms
    wide = after.pivot(index=[*NETWORK, "kind"], columns="mode", values="gain")
    wide = wide.loc[:, 2 * wide.notna().sum() >= len(wide)].dropna()
    if wide.empty or BASELINE not in wide:
        return axes.set_axis_off()
    steps = [mode for mode in TORCH if mode in wide]
    for place, (kind, of_kind) in enumerate(wide.groupby(wide.index.get_level_values("kind"), sort=False)):
        means = [geometric_mean(of_kind[mode]) for mode in steps]
        label = f"{KINDS[kind]} ({len(of_kind)})"
        axes.plot(range(len(steps) + 1), [1, *means], marker="os^D"[place], color=COLOURS[place], label=label)
    names = ["eager", "allocator retained", *steps[1:]]
    axes.set_xticks(range(len(names)), [name.replace("+", "\n+") for name in names], rotation=45, fontsize=7)
    axes.set_title("speedup over eager mode,\nallocator stock (geometric mean)", fontsize=8, loc="left")
    axes.set_ylim(bottom=0.9)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.grid(color="0.92")
    axes.set_box_aspect(1.2)
    axes.set_anchor("N")


TABLES = (gains, shares, winners, reference_times)


def runtimes(results_of: catalogue.AllResults) -> str:
    """By mode but the one they are over, on the machine with the most cases; of modes that ran on four fifths of the
    networks or more."""
    results = catalogue.largest(results_of, "runtimes")
    if not results.run_logs:
        return ""
    shown = gains(results)
    frame = shown.frame[shown.frame.networks >= 0.8 * shown.frame.networks.max()]
    frame = frame[frame["mode"] != modes.BASELINE]
    head = {"mode": f"mode, on {results.run_logs[0].name}"}
    frame = frame.drop(columns=["networks", "prepare, s", "from disk, s"]).rename(columns=head)
    return markdown.table(frame, shown.digits)


def background_load(results_of: catalogue.AllResults) -> str:
    """What modes keep beside a busy process: means over the networks, a column per machine."""
    shares_of_mode = kept(results_of.get("runtimes", catalogue.NOTHING))
    if shares_of_mode.empty:
        return ""
    rows = []
    for mode in modes.in_order(shares_of_mode["mode"]):
        of_mode = shares_of_mode[shares_of_mode["mode"] == mode]
        row = {"mode": mode}
        for machine, shares in of_mode.groupby("machine", sort=False).kept:
            row[f"share kept, {machine}"] = f"{shares.mean():.2f} ({shares.min():.2f} to {shares.max():.2f})"
        rows.append(row)
    return markdown.table(pd.DataFrame(rows))


README_TABLES = {"runtimes": runtimes, "background-load": background_load}


REPORT = Report(
    csvs={
        "benchmark_results_all.csv": everything,
        "benchmark_results.csv": fastest,
        "benchmark_background_load.csv": kept,
    },
    pictures={"benchmark_plot.png": picture},
    show=terminal,
    pages=TABLES,
)
