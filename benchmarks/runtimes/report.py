"""What benchmark.py shows: speedups of runtimes over eager FP32, what preparing costs, and throughput beside a busy
process."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.stats import gmean

from benchmarks import catalogue
from segbench import modes
from segbench.analysis import markdown, plots, rankings, stats, tables
from segbench.analysis.markdown import Shown, spans
from segbench.analysis.plots import COLOURS, Picture
from segbench.analysis.rankings import NETWORK
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.cases import DECODERS
from segbench.modes import BASELINE
from segbench.records import Run

PRECISIONS = {"fp32": ("FP32", "o"), "bf16": ("BF16", "s"), "int8": ("INT8", "^")}  # name, marker of the fastest mode
STEPS = ("export", "convert", "compile")
KINDS = {name: DECODERS[name] for name in ("", "fpn", "unet")} | {"custom": "own network"}  # of 2D networks
BACKGROUND_LOAD = "-background-load"  # ends the name of a run log that was measured beside a busy process
# torch's modes, each with one step more than the one before.
TORCH = ("baseline", "channels_last", "compile", "compile+freezing", "autocast+compile+freezing")


def everything(results: Results) -> pd.DataFrame:
    """All rows with the seconds of each step of preparing, the size of the converted model, and `break_even`: after how
    many inferences preparing from nothing has taken less time than it saved over eager mode."""
    frame = results.rows.copy()
    runs = [results.estimates(run_log)[case].raw for run_log, case in results.cases]
    for step in STEPS:
        frame[f"{step}_s"] = [step_s(raw, step) for raw in runs]
    frame["model_mb"] = [next((run.model_mb for run in raw if run.model_mb is not None), float("nan")) for raw in runs]
    eager = frame[(frame["mode"] == BASELINE) & (frame.allocator == "retained")].set_index(NETWORK).latency_ms
    saved_s = (frame.join(eager.rename("eager_ms"), on=NETWORK).eager_ms - frame.latency_ms) / 1e3
    frame["break_even"] = np.ceil(frame.prepare_s / saved_s.where(saved_s > 0))
    frame["kind"] = frame.decoder.mask(frame.model.str.contains(":"), "custom")
    return frame


def without_load(results: Results) -> pd.DataFrame:
    """The same without the run logs that were measured beside a busy process."""
    frame = everything(results)
    return frame[~frame.machine.str.endswith(BACKGROUND_LOAD)]


def valid_2d(results: Results) -> pd.DataFrame:
    """The valid rows of these of 2D networks with the allocator retained."""
    frame = without_load(results)
    return frame[(frame.allocator == "retained") & (frame.status == "ok") & ~is_volume(frame)]


def step_s(runs: Iterable[Run], step: str) -> float:
    """Mean seconds of a step from nothing. Those of torch's compile are from runs that found nothing on disk, where
    there are such runs."""
    with_step = [run for run in runs if run.phases_s.get(step)]
    cold = [run for run in with_step if run.cache == "cold"]
    return tables.mean(run.phases_s[step] for run in cold or with_step)


def fastest(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine, network and precision: its fastest valid mode."""
    columns = ["machine", "model", "decoder", "precision", "mode", "throughput_img_s", "throughput_low"]
    columns += ["throughput_high", "speedup", "speedup_low", "speedup_high", "rel_error", "argmax_agreement"]
    columns += ["memory_mb_img", "model_mb", "prepare_s", "prepare_warm_s", "break_even"]
    return rankings.best(frame, keys=[*NETWORK, "precision"])[columns]


def is_volume(frame: pd.DataFrame) -> pd.Series:
    return frame["size"].str.count("x") == 2


def share_kept(results: Results) -> pd.DataFrame:
    """A row per machine, network and mode of the run logs labelled `background-load`. `share_kept`: images over seconds
    of all samples beside the busy process, over the throughput in the machine's run log without it; the interval is
    over the runs. `p95_ms`: 95 % of the samples beside the busy process take less."""
    run_logs, rows = {run_log.name: run_log for run_log in results.run_logs}, []
    for run_log, case in results.cases:
        without = run_logs.get(run_log.name.removesuffix(BACKGROUND_LOAD), run_log)
        estimate = results.estimates(without).get(case)
        runs = [run for run in results.estimates(run_log)[case].raw if run.samples_ms]
        if without is run_log or case.allocator != "retained" or not estimate or not runs:
            continue
        shares = [estimate.latency_ms / np.mean(run.samples_ms) for run in runs]
        row = {"machine": without.name, "model": case.model, "decoder": case.decoder, "mode": case.mode}
        row |= {"latency_ms": estimate.latency_ms, "share_kept": np.mean(shares)}
        row["share_kept_low"], row["share_kept_high"] = stats.interval(shares)
        row["p95_ms"] = np.quantile(np.concatenate([run.samples_ms for run in runs]), 0.95)
        rows.append(row | {"runs": len(runs)})
    return pd.DataFrame(rows)


def reference_times(results: Results) -> Shown:
    """Does a runtime that is loaded and idle slow down the reference workload? Times of the reference workload in the
    runs of each mode, over those in the runs of eager mode: their fastest tenth, and their median."""
    times = [
        (run.case.mode, *reference_ms)
        for run_log in results.run_logs
        for run in run_log.runs
        if not run_log.name.endswith(BACKGROUND_LOAD) and run.status == "ok" and len(run.case.size) == 2
        for reference_ms in run.reference_ms
    ]
    by_mode = pd.DataFrame(times, columns=["mode", "convolution", "GEMM"]).groupby("mode")
    if BASELINE not in by_mode.groups:
        return Shown(pd.DataFrame(), {})
    quantiles = by_mode.quantile([0.1, 0.5]).unstack()
    ratios = (quantiles / quantiles.loc[BASELINE]).reindex(modes.in_order([*by_mode.groups]))
    ratios.columns = [f"{part}, {'median' if share == 0.5 else 'fastest tenth'}" for part, share in ratios]
    digits = {"reference times": 0} | dict.fromkeys(ratios, 3)
    ratios.insert(0, "reference times", by_mode.size())
    return Shown(ratios.reset_index(), digits)


def terminal(results: Results) -> str:
    frame = everything(results)
    digits = {"throughput_img_s": 2, "speedup": 2, "memory_mb_img": 1, "prepare_s": 1, "prepare_warm_s": 1}
    names = ["model", "decoder", "mode", "allocator", *digits, "break_even", "rel_error", "status"]
    shown = frame[names].assign(rel_error=frame.rel_error.map("{:.1e}".format).replace("nan", ""))
    best = fastest(frame)[["model", "decoder", "precision", "mode", "throughput_img_s", "speedup"]]
    return f"{markdown.aligned(shown, digits | {'break_even': 0})}\n\n{markdown.aligned(best, digits)}"


def gains(results: Results) -> Shown:
    """Speedup over eager FP32 with the allocator retained: geometric mean over the networks (encoders alone, with FPN,
    with UNet) that were measured under the mode; the largest relative error; and seconds to prepare from nothing and
    from disk (medians)."""
    frame, rows = valid_2d(results), []
    kinds = [kind for kind in KINDS if kind in set(frame.kind)]
    for mode in modes.in_order(frame["mode"]):
        of_mode = frame[frame["mode"] == mode]
        row = {"mode": mode, "precision": PRECISIONS.get(modes.find(mode).precision, ("",))[0]}
        row |= {KINDS[kind]: geometric_mean(of_mode[of_mode.kind == kind].speedup) for kind in kinds}
        row |= {"networks": len(of_mode), "relative error, at most": f"{of_mode.rel_error.max():.0e}"}
        row |= {"prepare, s": of_mode.prepare_s.median(), "from disk, s": of_mode.prepare_warm_s.median()}
        rows.append(row)
    digits = {KINDS[kind]: 2 for kind in kinds} | {"networks": 0, "prepare, s": 1, "from disk, s": 1}
    return Shown(pd.DataFrame(rows), digits)


def shares(results: Results) -> Shown:
    """How much is left to win: rate of the multiply-adds as a share of the best rate that this machine reached with a
    large matrix product or convolution in the mode's precision (medians over the networks). Winograd's algorithm can
    exceed 1. Only modes that were measured with at least half of the networks are shown."""
    frame = valid_2d(results)
    networks_of_mode = frame.groupby("mode").model.transform("nunique")
    frame = frame[2 * networks_of_mode >= frame.model.nunique()]
    wide = frame.pivot_table(index="mode", columns="kind", values="peak_share", aggfunc="median", sort=False)
    kinds = [kind for kind in KINDS if kind in wide]
    wide = wide.reindex(index=modes.in_order([*wide.index]), columns=kinds).rename(columns=KINDS)
    return Shown(wide.reset_index(), dict.fromkeys(wide, 2))


def winners(results: Results) -> Shown:
    """The fastest valid mode of every network at each precision, in img/s (3D: patches/s), with its 95 % interval and
    its speedup over eager FP32. Break-even: after how many inferences preparing it from nothing has taken less time
    than it saved over eager FP32."""
    best = fastest(without_load(results))
    return catalogue.shown(
        {
            "network": catalogue.networks(best),
            "precision": best.precision.map(lambda name: PRECISIONS[name][0]),
            "mode": best["mode"],
            "img/s": (best.throughput_img_s, 1),
            "95 % interval": spans(best.throughput_low, best.throughput_high),
            "speedup": (best.speedup, 2),
            "relative error": best.rel_error.map("{:.0e}".format),
            "break-even": (best.break_even, 0),
        }
    )


def geometric_mean(values: pd.Series) -> float:
    return float(gmean(values.dropna())) if values.notna().any() else float("nan")


def picture(results: Results) -> Picture:
    """A row per run log, without those of --background-load. Left: speedup of every mode over baseline for every
    network; right: torch's steps added one by one, geometric mean over the networks of a kind."""
    frame = without_load(results)
    return (frame, partial(draw, frame, results.dates())) if len(frame) else None


def draw(frame: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = plots.by_machine(frame)
    heights = [1.6 + 0.24 * catalogue.networks(rows).nunique() for rows in machines.values()]
    figure, axes = plots.panels(heights, 2, width_ratios=(5, 2))
    for (left, right), (machine, rows) in zip(axes, machines.items(), strict=True):
        heat(left, rows[rows.allocator == "retained"])
        if left.get_legend_handles_labels()[0]:  # none where no mode computed what it should
            left.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
        most_common = rows[rows["size"] == rows["size"].mode()[0]]
        left.set_title(plots.caption(most_common, dates[machine]), loc="left", fontsize=9)
        waterfall(right, rows)
    return figure


def heat(axes: Axes, rows: pd.DataFrame) -> None:
    """Networks by modes: speedups as numbers and colours, the fastest valid mode of each precision marked."""
    rows = rows.assign(network=catalogue.networks(rows))
    names, columns = [*dict.fromkeys(rows.network)], [mode for mode in modes.in_order(rows["mode"]) if mode != BASELINE]
    valid = rows[rows.status == "ok"]
    wide = valid.pivot(index="network", columns="mode", values="speedup").reindex(index=names, columns=columns)
    axes.pcolormesh(wide.to_numpy(dtype=float), cmap="PuOr_r", norm=LogNorm(1 / 5, 5), alpha=0.7)
    for (y, x), value in np.ndenumerate(wide.to_numpy(dtype=float)):
        if not np.isnan(value):
            axes.annotate(f"{value:.2f}", (x + 0.45, y + 0.5), ha="center", va="center", fontsize=7)
    best = rankings.best(valid, keys=[*NETWORK, "precision"])
    for precision, (label, marker) in PRECISIONS.items():
        fastest_modes = best[(best.precision == precision) & (best["mode"] != BASELINE)]
        x = [columns.index(mode) + 0.87 for mode in fastest_modes["mode"]]
        y = [names.index(name) + 0.5 for name in fastest_modes.network]
        if x:
            axes.scatter(x, y, s=14, color="black", marker=marker, label=f"fastest, {label}")
    ticks = [mode.replace("+", "\n+") for mode in columns]
    axes.set_xticks(np.arange(len(columns)) + 0.5, ticks, fontsize=7, rotation=45)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(length=0)


def waterfall(axes: Axes, rows: pd.DataFrame) -> None:
    """Speedup over eager mode with glibc's default allocator after each of torch's steps that at least half of the
    networks were measured with; over the networks that were measured with all of these steps."""
    rows = rows[(rows.status == "ok") & ~is_volume(rows)]
    eager = rows[(rows["mode"] == BASELINE) & (rows.allocator == "default")].set_index(NETWORK).latency_ms
    steps = rows[(rows.allocator == "retained") & rows["mode"].isin(TORCH)].join(eager.rename("eager_ms"), on=NETWORK)
    steps["gain"] = steps.eager_ms / steps.latency_ms
    wide = steps.pivot(index=[*NETWORK, "kind"], columns="mode", values="gain")
    wide = wide.loc[:, 2 * wide.notna().sum() >= len(wide)].dropna()
    if wide.empty or BASELINE not in wide:
        return axes.set_axis_off()
    names = [mode for mode in TORCH if mode in wide]
    for place, (kind, of_kind) in enumerate(wide.groupby(wide.index.get_level_values("kind"), sort=False)):
        means = [geometric_mean(of_kind[mode]) for mode in names]
        label = f"{KINDS[kind]} ({len(of_kind)})"
        axes.plot(range(len(names) + 1), [1, *means], marker="os^D"[place], color=COLOURS[place], label=label)
    ticks = ["eager", "allocator retained", *(name.replace("+", "\n+") for name in names[1:])]
    axes.set_xticks(range(len(ticks)), ticks, rotation=45, fontsize=7)
    axes.set_title("speedup over eager mode,\ndefault allocator (geometric mean)", fontsize=8, loc="left")
    axes.set_ylim(bottom=0.9)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.grid(color="0.92")
    axes.set_box_aspect(1.2)
    axes.set_anchor("N")


def runtimes(results_of: catalogue.AllResults) -> str:
    """Speedups of the modes that ran on at least four fifths of the networks, on the machine with the most cases."""
    results = catalogue.largest(results_of, "runtimes")
    if not results.run_logs:
        return ""
    shown = gains(results)
    frame = shown.frame[shown.frame.networks >= 0.8 * shown.frame.networks.max()]
    frame = frame[frame["mode"] != BASELINE].drop(columns=["networks", "prepare, s", "from disk, s"])
    here = results.run_logs[0].header.machine
    return markdown.table(frame.rename(columns={"mode": f"mode, on {here.label} ({here.name})"}), shown.digits)


def background_load(results_of: catalogue.AllResults) -> str:
    """Share of the throughput that each mode keeps beside a busy process, over the networks."""
    results = results_of.get("runtimes", catalogue.NOTHING)
    frame = share_kept(results)
    if frame.empty:
        return ""
    names = {"mean": "throughput kept, mean", "min": "lowest", "max": "highest"}
    summary = frame.groupby(["machine", "mode"]).share_kept.agg([*names]).reset_index().rename(columns=names)
    summary = summary.sort_values("mode", key=lambda column: column.map(modes.order))
    summary = summary.sort_values("machine", kind="stable").rename(columns={"machine": "CPU"})
    return markdown.table(summary.replace({"CPU": catalogue.cpus(results_of)}), dict.fromkeys(names.values(), 2))


README_TABLES = {"runtimes": runtimes, "background-load": background_load}
REPORT = Report(
    csvs={
        "benchmark_results_all.csv": everything,
        "benchmark_results.csv": lambda results: fastest(everything(results)),
        "benchmark_background_load.csv": share_kept,
    },
    pictures={"benchmark_plot.png": picture},
    show=terminal,
    pages=(gains, shares, winners, reference_times),
)
