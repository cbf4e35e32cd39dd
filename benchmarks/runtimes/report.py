"""What benchmark.py shows: speedups of runtimes over eager FP32, what preparing costs, and throughput beside a busy
process."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

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
from segbench.analysis.tables import OVER_RETAINED, Results
from segbench.cases import DECODERS
from segbench.modes import BASELINE, BASELINES
from segbench.records import Run

PRECISIONS = {"fp32": ("FP32", "o"), "bf16": ("BF16", "s"), "int8": ("INT8", "^")}  # name, marker of the fastest mode
NETWORK_AND_SIZE = [*NETWORK, "size", "classes"]
STEPS = ("export", "convert", "compile")
KINDS = {name: DECODERS[name] for name in ("", "fpn", "unet")} | {"custom": "own network"}  # of 2D networks
CHECKS = Path(__file__).resolve().parents[2] / "studies" / "checks"
BACKGROUND_LOAD = "-background-load"  # ends the name of a run log that was measured beside a busy process
# README's table and the picture: each a step further from eager mode.
LADDER = (
    "baseline",
    "channels_last",
    "compile+freezing",
    "autocast+compile+freezing",
    "onnxruntime",
    "onnxruntime+nhwc",
    "openvino",
    "openvino+nhwc",
    "openvino-bf16",
    "openvino-bf16+nhwc",
    "onnxruntime-int8",
    "openvino-int8",
)


def everything(results: Results) -> pd.DataFrame:
    """All rows with the seconds of each step of preparing, the size of the converted model, and `break_even`: after how
    many inferences preparing from nothing has taken less time than it saved over eager mode."""
    frame = results.rows.copy()
    runs = [results.estimates(run_log)[case].raw for run_log, case in results.cases]
    for step in STEPS:
        frame[f"{step}_s"] = [step_s(raw, step) for raw in runs]
    frame["model_mb"] = [next((run.model_mb for run in raw if run.model_mb is not None), float("nan")) for raw in runs]
    eager = rankings.eager(frame, NETWORK_AND_SIZE).latency_ms
    saved_s = (frame.join(eager.rename("eager_ms"), on=NETWORK_AND_SIZE).eager_ms - frame.latency_ms) / 1e3
    frame["break_even"] = np.ceil(frame.prepare_s / saved_s.where(saved_s > 0))
    frame["kind"] = frame.decoder.mask(frame.model.str.contains(":"), "custom")
    return frame


def without_load(results: Results) -> pd.DataFrame:
    """The same without the run logs that were measured beside a busy process."""
    frame = everything(results)
    return frame[~frame.machine.str.endswith(BACKGROUND_LOAD)]


def valid_2d(results: Results) -> pd.DataFrame:
    """The valid rows of these of 2D networks."""
    frame = without_load(results)
    return frame[(frame.status == "ok") & ~is_volume(frame)]


def step_s(runs: Iterable[Run], step: str) -> float:
    """Mean seconds of a step from nothing. Those of torch's compile are from runs that found nothing on disk, where
    there are such runs."""
    with_step = [run for run in runs if run.phases_s.get(step)]
    cold = [run for run in with_step if run.cache == "cold"]
    return tables.mean(run.phases_s[step] for run in cold or with_step)


def fastest(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine, network and precision: its fastest valid mode."""
    columns = ["machine", "model", "decoder", "precision", "mode", "throughput_img_s", "throughput_low"]
    columns += ["throughput_high", "speedup", "speedup_low", "speedup_high", "pairs", "valid_pairs", *OVER_RETAINED]
    columns += ["rel_error", "argmax_agreement", "output_is", "unpack_ms"]
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
        if without is run_log or not estimate or not runs:
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
    names = ["model", "decoder", "mode", *digits, "break_even", "rel_error", "status"]
    shown = frame[names].assign(rel_error=frame.rel_error.map("{:.1e}".format).replace("nan", ""))
    best = fastest(frame)[["model", "decoder", "precision", "mode", "throughput_img_s", "speedup"]]
    return f"{markdown.aligned(shown, digits | {'break_even': 0})}\n\n{markdown.aligned(best, digits)}"


def means(results: Results, over: str = "speedup") -> pd.DataFrame:
    """A row per mode and kind of network: geometric mean of the speedups over the networks that all modes can be
    compared on (rankings.comparable), and of the two ends of their intervals; the fewest pairs, and the networks."""
    frame = valid_2d(results)
    rows = [rankings.comparable(rows, over) for _, rows in frame.groupby("kind", sort=False)]
    frame = pd.concat([group for group in rows if len(group)] or [frame[:0]])
    rows = []
    for (mode, kind), group in frame.groupby(["mode", "kind"], sort=False):
        row = {"mode": mode, "kind": kind, "networks": len(group)}
        row |= {name: group[getattr(rankings.OVER[over], name)].min() for name in ("pairs", "valid_pairs")}
        ends = {"mean": over, "low": f"{over}_low", "high": f"{over}_high"}
        rows.append(row | {name: float(gmean(group[column])) for name, column in ends.items()})
    frame = pd.DataFrame(rows, columns=["mode", "kind", "networks", "pairs", "valid_pairs", "mean", "low", "high"])
    return frame.sort_values("mode", key=lambda column: column.map(modes.order), kind="stable")


def gains(results: Results, over: str = "speedup") -> Shown:
    """Speedup over `baseline`, eager FP32 with nothing set: geometric mean over the same networks for all modes, with
    the mean of their 95 % intervals; the fewest rounds in which a mode and baseline were both measured, and of these
    the fewest that nothing disturbed; the largest relative error; and seconds to prepare from nothing and from disk
    (medians)."""
    frame, every = means(results, over), valid_2d(results)
    kinds = [kind for kind in KINDS if kind in set(frame.kind)]
    rows = []
    for mode, of_mode in frame[frame["mode"] != rankings.OVER[over].mode].groupby("mode", sort=False):
        by_kind, alike = of_mode.set_index("kind"), every[every["mode"] == mode]
        row = {"mode": mode, "precision": PRECISIONS.get(modes.find(mode).precision, ("",))[0]}
        for kind in (kind for kind in kinds if kind in by_kind.index):
            row[KINDS[kind]] = by_kind["mean"][kind]
            row[f"{KINDS[kind]}, 95 %"] = markdown.span(by_kind.low[kind], by_kind.high[kind], 2)
        row |= {"networks": of_mode.networks.sum(), "pairs": of_mode.pairs.min()}
        row |= {"undisturbed": of_mode.valid_pairs.min()}
        row |= {"relative error, at most": f"{alike.rel_error.max():.0e}"}
        rows.append(row | {"prepare, s": alike.prepare_s.median(), "from disk, s": alike.prepare_warm_s.median()})
    digits = {KINDS[kind]: 2 for kind in kinds} | {
        "networks": 0,
        "pairs": 0,
        "undisturbed": 0,
        "prepare, s": 1,
        "from disk, s": 1,
    }
    return Shown(pd.DataFrame(rows), digits)


def over_retained(results: Results) -> Shown:
    """The same over `baseline+retained`: eager FP32 in a process whose allocator keeps freed memory."""
    return gains(results, "over_retained")


def allocators(results: Results) -> Shown:
    """Eager mode in FP32 with each allocator. Page faults per inference, and the longest over the shortest latency of
    the rounds, are medians over the networks with a decoder."""
    frame, rows = means(results), []
    runs_of = {
        (case.model, case.decoder, case.mode): [
            run.all_samples_ms for run in results.estimates(run_log)[case].host_runs
        ]
        for run_log, case in results.cases
        if not run_log.name.endswith(BACKGROUND_LOAD)
    }
    every = valid_2d(results)
    for mode in modes.variants(modes.find(BASELINE)):
        of_mode = frame[frame["mode"] == mode.name].set_index("kind")["mean"]
        alike = every[(every["mode"] == mode.name) & (every.decoder != "") & (every.pairs >= rankings.PAIRS)]
        if of_mode.empty:
            continue
        row = {"mode": mode.name} | {f"speedup, {KINDS[kind]}": of_mode[kind] for kind in KINDS if kind in of_mode}
        taken = [runs_of[key] for key in zip(alike.model, alike.decoder, alike["mode"], strict=True)]
        row |= {"page faults": alike.page_faults.median()}
        rows.append(row | {"longest over shortest": np.median([max(ms) / min(ms) for ms in taken])})
    digits = {f"speedup, {label}": 2 for label in KINDS.values()} | {"page faults": 0, "longest over shortest": 2}
    return Shown(pd.DataFrame(rows), digits)


def layouts(results: Results) -> Shown:
    """What the layout of the output costs. Throughput with the channels of the output innermost (+nhwc) over that as
    converted: geometric mean over the networks, with the mean of their 95 % intervals; the fewest rounds in which both
    were measured. `unpack, ms`: the part of a call in which the runtime copies its output into planes, with FPN and
    UNet (median). And what the call delivers."""
    ratio = ["ratio", "ratio_low", "ratio_high"]
    ratios = results.ratios("ratio", lambda case: case.under(modes.base(case.mode)))
    frame = valid_2d(results).join(ratios)
    rows = []
    for mode in modes.in_order(frame["mode"]):
        of_mode, twin = frame[frame["mode"] == mode], frame[frame["mode"] == f"{mode}+{modes.NHWC}"]
        if modes.find(mode).allocator or modes.NHWC in modes.find(mode).options:
            continue
        with_decoder, twin = of_mode[of_mode.decoder != ""], twin[twin.ratio_pairs >= rankings.PAIRS]
        row = {"mode": mode, "output": ", ".join(sorted({*with_decoder.output_is} - {""}))}
        for kind in ("fpn", "unet"):
            values = twin[(twin.kind == kind) & np.isfinite(twin[ratio]).all(axis=1)][ratio]
            if len(values):
                mean, low, high = gmean(values)
                row |= {f"+nhwc, {KINDS[kind]}": mean, f"{KINDS[kind]}, 95 %": markdown.span(low, high, 2)}
        rows.append(row | {"pairs": twin.ratio_pairs.min(), "unpack, ms": with_decoder.unpack_ms.median()})
    digits = {f"+nhwc, {KINDS[kind]}": 2 for kind in ("fpn", "unet")} | {"pairs": 0, "unpack, ms": 2}
    return Shown(pd.DataFrame(rows), digits)


def shares(results: Results) -> Shown:
    """How much is left to win: rate of the multiply-adds as a share of the best rate that this machine reached with a
    large matrix product or convolution in the mode's precision (medians over the networks, the same for all modes).
    Winograd's algorithm can exceed 1."""
    frame = valid_2d(results)
    rows = [rankings.same_networks(rows) for _, rows in frame[frame.peak_share.notna()].groupby("kind", sort=False)]
    frame = pd.concat(rows or [frame[:0]])
    wide = frame.pivot_table(index="mode", columns="kind", values="peak_share", aggfunc="median", sort=False)
    kinds = [kind for kind in KINDS if kind in wide]
    wide = wide.reindex(index=modes.in_order([*wide.index]), columns=kinds).rename(columns=KINDS)
    return Shown(wide.reset_index(), dict.fromkeys(wide, 2))


def winners(results: Results) -> Shown:
    """The fastest valid mode of every network at each precision, in img/s (3D: patches/s), with its 95 % interval and
    its speedups over baseline, and over baseline with the allocator retained. Break-even: after how many inferences
    preparing it from nothing has taken less time than it saved over eager FP32."""
    best = fastest(without_load(results))
    return catalogue.shown(
        {
            "network": catalogue.networks(best),
            "precision": best.precision.map(lambda name: PRECISIONS[name][0]),
            "mode": best["mode"],
            "img/s": (best.throughput_img_s, 1),
            "95 % interval": spans(best.throughput_low, best.throughput_high),
            "speedup": (best.speedup, 2),
            "pairs": (best.pairs, 0),
            "over baseline+retained": (best.over_retained, 2),
            "relative error": best.rel_error.map("{:.0e}".format),
            "break-even": (best.break_even, 0),
        }
    )


def picture(results: Results) -> Picture:
    """A row per run log, without those of --background-load: speedup of every mode for every network, and below it the
    ladder, the means over the networks of a kind."""
    frame = without_load(results)
    frame = frame[~is_volume(frame)]
    ladders = {log.name: means(results.of(log)) for log in results.run_logs if not log.name.endswith(BACKGROUND_LOAD)}
    shown = {name: rows for name, rows in plots.by_machine(frame).items() if len(heated(rows)[0])}
    data = pd.concat([frame, *(ladder.assign(machine=name) for name, ladder in ladders.items())])
    return (data, partial(draw, shown, ladders, results.dates())) if shown else None


def heated(rows: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Networks by modes, and over which mode: speedups of what needs no allocator, or else of all modes; of networks
    that were measured under at least half of these."""
    rows = rows.assign(network=catalogue.networks(rows))
    over = rankings.over_what(rows)
    known = rows[(rows.status == "ok") & rows[over].notna() & (rows["mode"] != rankings.OVER[over].mode)]
    plain = known[(known.allocator == "default") | known["mode"].isin(BASELINES)]
    wide = (plain if len(plain) else known).pivot_table(index="network", columns="mode", values=over, sort=False)
    wide = wide[wide.notna().mean(axis=1) >= 0.5]
    return wide.reindex(columns=modes.in_order([*wide.columns])), over


def draw(of_machine: dict[str, pd.DataFrame], ladders: dict[str, pd.DataFrame], dates: dict[str, str]) -> Figure:
    heights = []
    for rows in of_machine.values():
        heights += [1.7 + 0.24 * len(heated(rows)[0]), 3.4]
    figure, axes = plots.panels(heights)
    for (upper, lower), (machine, rows) in zip(axes.reshape(-1, 2), of_machine.items(), strict=True):
        wide, over = heated(rows)
        heat(upper, wide, rows)
        text = plots.caption(rows, dates[machine])
        upper.set_title(f"Speedup over {rankings.OVER[over].mode}\n{text}", loc="left", fontsize=9)
        ladder(lower, ladders[machine])
    return figure


def heat(axes: Axes, wide: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Networks by modes: speedups as numbers and colours, the fastest valid mode of each precision marked."""
    names, columns = [*wide.index], [*wide.columns]
    axes.pcolormesh(wide.to_numpy(dtype=float), cmap="PuOr_r", norm=LogNorm(1 / 8, 8), alpha=0.7)
    for (y, x), value in np.ndenumerate(wide.to_numpy(dtype=float)):
        if not np.isnan(value):
            axes.annotate(f"{value:.2f}", (x + 0.45, y + 0.5), ha="center", va="center", fontsize=7)
    rows = rows.assign(network=catalogue.networks(rows))
    best = rankings.best(rows[rows["mode"].isin(columns)], keys=[*NETWORK, "precision"])
    best = best[best.network.isin(names)]
    for precision, (label, marker) in PRECISIONS.items():
        of_precision = best[best.precision == precision]
        x = [columns.index(mode) + 0.9 for mode in of_precision["mode"]]
        y = [names.index(name) + 0.5 for name in of_precision.network]
        if x:
            axes.scatter(x, y, s=12, color="black", marker=marker, label=f"fastest, {label}")
    if axes.get_legend_handles_labels()[0]:  # none where no mode computed what it should
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=8)
    ticks = [mode.replace("+", "\n+") for mode in columns]
    axes.set_xticks(np.arange(len(columns)) + 0.5, ticks, fontsize=7, rotation=45)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7)
    axes.invert_yaxis()
    axes.tick_params(length=0)


def ladder(axes: Axes, frame: pd.DataFrame) -> None:
    """Mean speedup over baseline of each step of LADDER, full, and with the allocator retained, hollow."""
    steps = [step for step in LADDER if step in {*frame["mode"].map(without_allocator)}]
    if not steps:
        return axes.set_axis_off()
    for place, (kind, of_kind) in enumerate(frame.groupby("kind", sort=False)):
        by_mode, shift = of_kind.set_index("mode"), 0.2 * (place - 1)
        for suffix, face in (("", COLOURS[place]), (f"+{modes.RETAINED}", "white")):
            chosen = by_mode.reindex([step + suffix for step in steps])
            label = f"{KINDS[kind]} ({of_kind.networks.max()} networks)" if not suffix else None
            x, ends = np.arange(len(steps)) + shift, chosen[["low", "high"]].replace([0, np.inf], np.nan)
            bars = np.abs(ends.sub(chosen["mean"], axis=0)).fillna(0).T
            axes.errorbar(x, chosen["mean"], yerr=bars, fmt="none", ecolor=COLOURS[place], alpha=0.5, lw=1)
            axes.scatter(x, chosen["mean"], marker="os^D"[place], c=face, edgecolors=COLOURS[place], s=30, label=label)
    axes.axhline(1, color="0.6", lw=1, ls="--", zorder=1)
    axes.set_yscale("log")
    plots.plain_log(axes.yaxis)
    axes.set_xticks(range(len(steps)), [step.replace("+", "\n+") for step in steps], rotation=45, fontsize=7)
    axes.set_ylabel("speedup over baseline, mean", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="upper left", title="hollow: allocator retained", title_fontsize=8)
    axes.grid(color="0.92")


def without_allocator(mode: str) -> str:
    return mode.removesuffix(f"+{modes.find(mode).allocator}") if modes.find(mode).allocator else mode


def on_machine(table: Callable[[Results], Shown], without: tuple[str, ...], results_of: catalogue.AllResults) -> str:
    """A table of the machine with the most runs behind its name, without some columns."""
    results = catalogue.largest(results_of, "runtimes")
    shown = table(results) if results.run_logs else Shown(pd.DataFrame(), {})
    if shown.frame.empty:
        return ""
    frame = shown.frame.drop(columns=[*without], errors="ignore")
    return f"On {catalogue.cpu(results.run_logs[0].header.machine)}:\n\n{markdown.table(frame, shown.digits)}"


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


def check(name: str, columns: dict[str, int | None], results_of: catalogue.AllResults) -> str:
    """What studies/runtime_checks.py or studies/thread_counts.py measured, on all machines. `columns`: which are shown,
    with the decimals of those of numbers."""
    frame = catalogue.evidence(CHECKS / name)
    if frame.empty:
        return ""
    shown = pd.DataFrame({"CPU": frame.machine.replace(catalogue.cpus(results_of))} | {c: frame[c] for c in columns})
    shown["95 % interval"] = spans(frame.low, frame.high, 2)
    return markdown.table(shown, {name: digits for name, digits in columns.items() if digits is not None})


def newcomer(results_of: catalogue.AllResults) -> str:
    """What studies/runtime_checks.py found with two bare scripts, beside the speedups of the tables."""
    frame = catalogue.evidence(CHECKS / "newcomer")
    if frame.empty or "runtimes" not in results_of:
        return ""
    keys, ends = ["machine", "network", "mode"], ["speedup_low", "speedup_high"]
    rows = valid_2d(results_of["runtimes"])
    rows = rows[rows.decoder == ""].rename(columns={"model": "network"}).drop_duplicates(keys).set_index(keys)
    frame = frame.join(rows[["speedup", *ends]], on=keys)
    columns = {
        "CPU": frame.machine.replace(catalogue.cpus(results_of)),
        "network": frame.network,
        "mode": frame["mode"],
        "pairs": (frame.pairs, 0),
        "eager / artefact": (frame["eager / artefact"], 2),
        "95 % interval": spans(frame.low, frame.high, 2),
        "in the tables": (frame.speedup, 2),
        "their 95 % interval": spans(frame.speedup_low, frame.speedup_high, 2),
    }
    return markdown.table(*catalogue.shown(columns)[:2])


TOOLS = {"network": None, "mode": None, "ms": 1, "pairs": 0, "mode over tool": 3}
THREADS = {"what": None, "CPUs": 1, "threads": None, "chosen": 0, "s": 3, "times the best": 2}
PREPARING = ("prepare, s", "from disk, s")
README_TABLES = {
    "newcomer": newcomer,
    "tools": partial(check, "tools", TOOLS),
    "thread-counts": partial(check, "thread_counts", THREADS),
    "runtimes": partial(on_machine, gains, PREPARING),
    "runtimes-retained": partial(on_machine, over_retained, (*PREPARING, "relative error, at most")),
    "allocators": partial(on_machine, allocators, ()),
    "layouts": partial(on_machine, layouts, ()),
    "background-load": background_load,
}
REPORT = Report(
    csvs={
        "benchmark_results_all.csv": everything,
        "benchmark_results.csv": lambda results: fastest(everything(results)),
        "benchmark_background_load.csv": share_kept,
    },
    pictures={"benchmark_plot.png": picture},
    show=terminal,
    pages=(gains, over_retained, allocators, layouts, shares, winners, reference_times),
)
