"""Tables and pictures of the repeatability benchmark."""

from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks import catalogue
from benchmarks.repeatability import repetitions
from segbench.analysis import markdown, plots
from segbench.analysis.compare import compare
from segbench.analysis.markdown import Shown
from segbench.analysis.plots import COLOURS, Picture
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.modes import BASELINES, RETAINED

DIGITS = {"repetitions": 0, "throughput_img_s": 1, "spread": 3, "speedup": 2, "speedup_spread": 3, "coverage": 2}
DIGITS |= {"seconds": 1, "prepare_s": 1, "valid_share": 2}
# Targets of this project's protocol; its seconds may be twice those of the fixed-iteration one.
TARGETS = {"spread, worst": 1.06, "spread, median": 1.04, "speedup's spread, worst": 1.06, "coverage": 0.93}
SECONDS = "eager models together, s"
TARGETS_BESIDE_LOAD = {"spread, worst": 1.10, "spread, median": 1.05}
PROTOCOLS = {
    "drift-corrected": "this protocol",
    "alone": "a session by itself",
    "all_samples": "all samples",
    "fixed-iteration": "fixed-iteration protocol",
}
SHADES = {"drift-corrected": (COLOURS[0], "o"), "fixed-iteration": (COLOURS[1], "s")}  # colour and marker


def all_cases(results: Results) -> Shown:
    """Every case under each protocol: throughput in img/s, spread, coverage, and the seconds of one repetition."""
    return Shown(repetitions.protocols(results).drop(columns="cpu"), DIGITS)


def promises(results: Results) -> Shown:
    """Each protocol over all cases. Spread is max/min over the repetitions, coverage how often a 95 % interval contains
    the median of the other repetitions. `drift-corrected` is this project's rule with the drift over all repetitions,
    `alone` with the drift within each session; `all_samples` counts the disturbed samples of the same runs too."""
    rows, repeated = [], repetitions.repetitions(results)
    if repeated.empty:
        return Shown(repeated, {})
    eager = repeated[repeated["mode"].isin(BASELINES)]
    together = eager.groupby(["machine", "protocol", "repetition"]).seconds.sum()
    seconds = together.groupby(["machine", "protocol"]).median()
    for key, cases in repetitions.protocols(results).groupby(["machine", "protocol"], sort=False):
        row = {"machine": key[0], "protocol": key[1], "cases": len(cases)}
        row |= {"spread, worst": cases.spread.max(), "spread, median": cases.spread.median()}
        row["speedup's spread, worst"] = cases.speedup_spread.max()
        row["coverage"] = np.average(cases.coverage, weights=cases.repetitions)
        rows.append(row | {SECONDS: seconds.get(key, np.nan)})
    digits = {"cases": 0, "spread, worst": 3, "spread, median": 3, "speedup's spread, worst": 3, "coverage": 2}
    return Shown(pd.DataFrame(rows), digits | {SECONDS: 0})


def targets(results: Results) -> Shown:
    """The targets of this project's protocol, and whether they were met."""
    frame, checks = promises(results).frame, []
    for machine, rows in frame.groupby("machine", sort=False) if len(frame) else ():
        by_protocol = rows.set_index("protocol")
        project, fixed_iteration = by_protocol.loc["drift-corrected"], by_protocol.loc["fixed-iteration"]
        limits = TARGETS | {SECONDS: 2 * fixed_iteration[SECONDS]}
        limits |= TARGETS_BESIDE_LOAD if machine.endswith("-background-load") else {}
        for what, limit in limits.items():
            met = project[what] >= limit if what == "coverage" else project[what] <= limit
            row = {"machine": machine, "what": what, "target": limit, "this protocol": project[what]}
            checks.append(row | {"fixed-iteration protocol": fixed_iteration[what], "": "met" if met else "missed"})
    table = pd.DataFrame(checks).dropna(subset="this protocol") if checks else pd.DataFrame()
    return Shown(table, {"target": 2, "this protocol": 3, "fixed-iteration protocol": 3})


def verdicts(results: Results) -> Shown:
    """tools/compare.py on each repetition against the next, where nothing changed, and on compile against baseline
    within each, with either allocator."""
    summary = []
    for run_log in results.run_logs:
        parts = [*repetitions.parts(run_log).values()]
        comparisons = {
            "a repetition against the next": [compare(first, second) for first, second in pairwise(parts)],
        }
        for baseline, compiled in zip(BASELINES, ("compile", f"compile+{RETAINED}"), strict=True):
            comparisons[f"{compiled} against {baseline}"] = [
                compare(part, part, (baseline, compiled)) for part in parts
            ]
        for what, tables in comparisons.items():
            counts = pd.concat(tables).verdict.value_counts() if tables else {}
            row = {"machine": run_log.name, "what": what, "pairs": sum(map(len, tables))}
            row |= {verdict: counts.get(verdict, 0) for verdict in ("faster", "slower", "tied")}
            summary += [row] if row["pairs"] else []
    return Shown(pd.DataFrame(summary), {"pairs": 0, "faster": 0, "slower": 0, "tied": 0})


def picture(results: Results) -> Picture:
    """A panel per run log: throughput by every repetition of both protocols over the median of this project's, with the
    repetition's 95 % interval."""
    frame = repetitions.repetitions(results)
    return (frame, partial(draw, frame, results.dates())) if len(frame) else None


def draw(frame: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = {name: [*rows.groupby(["model", "mode"], sort=False)] for name, rows in plots.by_machine(frame).items()}
    figure, axes = plots.panels([0.9 + 0.5 * len(cases) for cases in machines.values()], sharex=True)
    for panel, (machine, cases) in zip(axes[:, 0], machines.items(), strict=True):
        for place, (_, rows) in enumerate(cases):
            median = rows[rows.protocol == "drift-corrected"].latency_ms.median()
            for (protocol, shade), shift in zip(SHADES.items(), (-0.2, 0.2), strict=True):
                repeated = rows[rows.protocol == protocol]
                spots = place + shift + np.linspace(-0.14, 0.14, len(repeated))
                x, low, high = (median / repeated[column] for column in ("latency_ms", "high_ms", "low_ms"))
                plots.dots(panel, x, low, high, spots, shade)
        panel.set_yticks(range(len(cases)), [f"{model} {mode}" for (model, mode), _ in cases], fontsize=8)
        panel.set_ylim(len(cases) - 0.5, -0.5)
        plots.line_at_1(panel)
        panel.set_xlim(0.3, 1.3)
        panel.grid(color="0.92", axis="x")
        plots.title(panel, frame[frame.machine == machine], dates[machine])
    axes[-1, 0].set_xlabel("throughput by a repetition, over the median of this protocol's")
    plots.key(figure, [plots.point(PROTOCOLS[name], *shade) for name, shade in SHADES.items()])
    return figure


def samples(results: Results) -> pd.DataFrame:
    """A row per sample of this project's protocol: latency, and the mean of the reference times beside it, over the
    reference."""
    frames = []
    for run_log, case in results.cases:
        for key, run in results.estimates(run_log)[case].runs.items():
            reference = run.reference
            reference_times = run.reference_ms / reference.level_ms
            beside = (reference_times[:-1] + reference_times[1:]) / 2
            rows = pd.DataFrame({"latency_ms": run.samples_ms, "convolution": beside[:, 0], "gemm": beside[:, 1]})
            rows["valid"], rows["bound"] = run.valid_samples, reference.bound_ms[0] / reference.level_ms[0]
            rows[["machine", "model", "mode", "round"]] = run_log.name, case.model, case.mode, key.round
            frames.append(rows)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def states(results: Results) -> Picture:
    """Latency of every sample against the time of the reference convolution beside it: a panel per run log and eager
    model."""
    frame = samples(results)
    if frame.empty:
        return None
    cpus = {run_log.name: run_log.header.machine.title for run_log in results.run_logs}
    frame = frame[frame["mode"].isin(BASELINES)]
    return frame, partial(draw_states, frame, cpus)


def draw_states(frame: pd.DataFrame, cpus: dict[str, str]) -> Figure:
    machines, models = plots.by_machine(frame), [*dict.fromkeys(frame.model)]
    figure, axes = plots.panels([3.1] * len(machines), len(models))
    for row, (machine, of_machine) in zip(axes, machines.items(), strict=True):
        for panel, model in zip(row, models, strict=True):
            rows = of_machine[of_machine.model == model]
            for valid, colour in ((False, "0.6"), (True, COLOURS[0])):
                chosen = rows[rows.valid == valid]
                panel.scatter(chosen.convolution, chosen.latency_ms, s=5, color=colour, alpha=0.4, linewidths=0)
            panel.axvline(1, color="0.6", lw=1, zorder=1)
            panel.axvline(of_machine.bound.iloc[0], color=COLOURS[1], lw=1, ls="--")
            panel.set_xlim(0.9, 2)
            panel.set_title(model, loc="left", fontsize=8)
            panel.set_xlabel("convolution over its reference")
            if len(rows):
                panel.set_ylim(rows.latency_ms.min() * 0.9, rows.latency_ms.min() * 2.4)
        row[0].set_title(f"{cpus[machine]} ({machine})\n{models[0]}", loc="left", fontsize=8)
        row[0].set_ylabel("latency (ms)")
    handles = [plots.point("disturbed", "0.6", "o"), plots.point("valid", COLOURS[0], "o")]
    handles.append(Line2D([], [], color=COLOURS[1], ls="--", label="longest valid time of the convolution"))
    plots.key(figure, handles)
    return figure


def promises_of_all(results_of: catalogue.AllResults) -> str:
    """A row per run log and protocol."""
    results = results_of.get("repeatability", catalogue.NOTHING)
    shown, cpus = promises(results), {log.name: f"{log.header.machine.title} ({log.name})" for log in results.run_logs}
    names = ["machine", "protocol", "cases", "spread, worst", "spread, median", "coverage"]
    frame = shown.frame.reindex(columns=names)
    frame["machine"], frame["protocol"] = frame.machine.map(cpus), frame.protocol.map(PROTOCOLS)
    digits = {"cases": 0, "spread, worst": 2, "spread, median": 2, "coverage": 2}
    return markdown.table(frame, digits)


README_TABLES = {"promises": promises_of_all}
REPORT = Report(
    csvs={"benchmark_results.csv": repetitions.protocols},
    pictures={"benchmark_plot.png": picture, "states_plot.png": states},
    show=lambda results: markdown.aligned(*all_cases(results)[:2]),
    pages=(promises, targets, all_cases, verdicts),
)
