"""What the repeatability benchmark shows: tables of a machine's page, and its picture."""

from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from benchmarks import catalogue
from benchmarks.repeatability import repetitions
from segbench.analysis import markdown
from segbench.analysis.compare import compare
from segbench.analysis.markdown import Shown
from segbench.analysis.plots import COLOURS, WIDTH, Picture
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.modes import BASELINE

DIGITS = {"repetitions": 0, "throughput_img_s": 1, "spread": 3, "speedup": 2, "speedup_spread": 3, "coverage": 2}
DIGITS |= {"seconds": 1, "prepare_s": 1, "valid_share": 2}
# What was asked of this project's protocol; the seconds are twice those of the usual one.
LIMITS = {"spread, worst": 1.06, "spread, median": 1.04, "speedup's spread, worst": 1.06, "coverage": 0.93}
LIMITS |= {"eager models together, s": None}
BESIDE_LOAD = {"spread, worst": 1.10, "spread, median": 1.05}


PROTOCOLS = {
    "drift-corrected": "this protocol",
    "alone": "a session by itself",
    "all_samples": "all its samples",
    "fixed-iteration": "the fixed-iteration protocol",
}


def terminal(results: Results) -> str:
    rows = repetitions.protocols(results)
    return "no repetition is complete yet" if rows.empty else markdown.aligned(rows, DIGITS)


def promises(results: Results) -> Shown:
    """What each protocol keeps over all cases. Spread is max/min over the repetitions, coverage how often a 95 %
    interval contains what the others found; `corrected` is this project's rule, each repetition at the
    level that its host has in all of them, `alone` at that of its own session; `all_samples` counts the disturbed
    samples of the same runs too."""
    kept = []
    for run_log in results.run_logs:
        alone = Results([run_log])
        rows, single = repetitions.protocols(alone), repetitions.repetitions(alone)
        if rows.empty:
            continue
        for protocol, cases in rows.groupby("protocol", sort=False):
            eager = single[(single.protocol == protocol) & (single["mode"] == BASELINE)]
            kept.append(
                {
                    "machine": run_log.name,
                    "protocol": protocol,
                    "cases": len(cases),
                    "spread, worst": cases.spread.max(),
                    "spread, median": cases.spread.median(),
                    "speedup's spread, worst": cases.speedup_spread.max(),
                    "coverage": np.average(cases.coverage, weights=cases.repetitions),
                    "eager models together, s": eager.groupby("repetition").seconds.sum().median(),
                }
            )
    digits = {"cases": 0, "spread, worst": 3, "spread, median": 3, "speedup's spread, worst": 3, "coverage": 2}
    return Shown(pd.DataFrame(kept), digits | {"eager models together, s": 0})


def targets(results: Results) -> Shown:
    """What was asked of this project's protocol, and what it keeps."""
    rows, checks = promises(results).frame.set_index(["machine", "protocol"]), []
    for machine in dict.fromkeys(machine for machine, _ in rows.index):
        quiet, fixed_iterations = rows.loc[machine, "drift-corrected"], rows.loc[machine, "fixed-iteration"]
        for what, limit in (LIMITS | (BESIDE_LOAD if machine.endswith("-background-load") else {})).items():
            limit = 2 * fixed_iterations[what] if limit is None else limit
            held = quiet[what] >= limit if what == "coverage" else quiet[what] <= limit
            if quiet[what] == quiet[what]:
                row = {"machine": machine, "what": what, "asked for": limit, "this protocol": quiet[what]}
                checks.append(row | {"usual protocol": fixed_iterations[what], "": "held" if held else "missed"})
    return Shown(pd.DataFrame(checks), {"asked for": 2, "this protocol": 3, "usual protocol": 3})


def all_cases(results: Results) -> Shown:
    """Every case under each protocol: throughput in img/s, spread, coverage, and the seconds of one repetition."""
    rows = repetitions.protocols(results).drop(columns="cpu", errors="ignore")
    return Shown(rows, {name: digits for name, digits in DIGITS.items() if name in rows})


def verdicts(results: Results) -> Shown:
    """tools/compare.py on each repetition against the next, where nothing changed, and on compile against baseline
    within each."""
    summary = []
    for run_log in results.run_logs:
        parts = [*repetitions.parts(run_log).values()]
        same = [compare(one, two) for one, two in pairwise(parts)]
        modes_apart = [compare(part, part, (BASELINE, "compile")) for part in parts]
        for what, tables in (("a repetition against the next", same), ("compile against baseline", modes_apart)):
            verdicts = pd.concat(tables).verdict if tables else pd.Series(dtype=str)
            counts = {name: int((verdicts == name).sum()) for name in ("faster", "slower", "not separable")}
            if len(verdicts):
                summary.append({"machine": run_log.name, "what": what, "pairs": len(verdicts), **counts})
    return Shown(pd.DataFrame(summary), {"pairs": 0, "faster": 0, "slower": 0, "not separable": 0})


TABLES = (promises, targets, all_cases, verdicts)


def picture(results: Results) -> Picture:
    """A panel per run log: the throughput that each repetition of both protocols found, over this project's median,
    with the repetition's own 95 % interval."""
    single = repetitions.repetitions(results)
    if single.empty:
        return None
    return single, partial(draw, single, results.dates())


def draw(single: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = [*dict.fromkeys(single.machine)]
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
    shades = {"drift-corrected": (COLOURS[0], "o", -0.2), "fixed-iteration": (COLOURS[1], "s", 0.2)}
    for panel, machine in zip(axes[:, 0], machines, strict=True):
        rows = single[single.machine == machine]
        cases = [*rows.groupby(["model", "mode"], sort=False).groups]
        for place, (model, mode) in enumerate(cases):
            of_case = rows[(rows.model == model) & (rows["mode"] == mode)]
            middle = of_case[of_case.protocol == "drift-corrected"].latency_ms.median()
            for protocol, (colour, marker, shift) in shades.items():
                chosen = of_case[of_case.protocol == protocol]
                spots = place + shift + np.linspace(-0.14, 0.14, len(chosen))
                panel.hlines(spots, middle / chosen.high_ms, middle / chosen.low_ms, color=colour, alpha=0.35, lw=1.5)
                panel.scatter(
                    middle / chosen.latency_ms,
                    spots,
                    s=20,
                    color=colour,
                    marker=marker,
                    edgecolors="white",
                    lw=0.4,
                    zorder=3,
                )
        panel.set_yticks(range(len(cases)), [f"{model} {mode}" for model, mode in cases], fontsize=8)
        panel.set_ylim(len(cases) - 0.5, -0.5)
        panel.axvline(1, color="0.6", lw=1, ls="--", zorder=1)
        panel.set_xlim(0.3, 1.3)
        panel.grid(color="0.92", axis="x")
        panel.set_title(f"{machine}: {rows.cpu.iloc[0]}, {dates[machine]}", loc="left", fontsize=9)
    axes[-1, 0].set_xlabel("throughput that a repetition found, over this project's median")
    names = {"drift-corrected": "this project's protocol", "fixed-iteration": "the fixed-iteration protocol"}
    handles = [
        plt.Line2D([], [], linestyle="", color=colour, marker=marker, label=names[name])
        for name, (colour, marker, _) in shades.items()
    ]
    figure.legend(handles=handles, ncols=2, loc="outside lower center", frameon=False)
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
    """Latency of every sample against the convolution reference workload beside it: a panel per run log and eager model."""
    frame = samples(results)
    if frame.empty:
        return None
    frame = frame[frame["mode"] == BASELINE]
    return frame, partial(draw_states, frame)


def draw_states(frame: pd.DataFrame) -> Figure:
    machines = {machine: [*dict.fromkeys(rows.model)] for machine, rows in frame.groupby("machine", sort=False)}
    columns = max(map(len, machines.values()))
    figure, axes = plt.subplots(
        len(machines), columns, figsize=(WIDTH, 3.1 * len(machines)), squeeze=False, layout="constrained"
    )
    for panels, (machine, models) in zip(axes, machines.items(), strict=True):
        for panel in panels[len(models) :]:
            panel.set_axis_off()
        for panel, model in zip(panels, models, strict=False):
            rows = frame[(frame.machine == machine) & (frame.model == model)]
            for valid, colour in ((False, "0.6"), (True, COLOURS[0])):
                some = rows[rows.valid == valid]
                panel.scatter(some.convolution, some.latency_ms, s=5, color=colour, alpha=0.4, linewidths=0)
            panel.axvline(1, color="0.6", lw=1, zorder=1)
            panel.axvline(rows.bound.iloc[0], color=COLOURS[1], lw=1, ls="--")
            panel.set_xlim(0.9, 2)
            panel.set_ylim(rows.latency_ms.min() * 0.9, rows.latency_ms.min() * 2.4)
            panel.set_title(f"{model}\n{machine}", loc="left", fontsize=8)
            panel.set_xlabel("reference workload over its reference")
        panels[0].set_ylabel("latency (ms)")
    handles = [
        plt.Line2D([], [], linestyle="", marker="o", color=colour, label=label)
        for colour, label in (
            ("0.6", "disturbed"),
            (COLOURS[0], "in the band: both reference workload, before and after"),
        )
    ]
    handles.append(plt.Line2D([], [], color=COLOURS[1], ls="--", label="end of the convolution's band"))
    figure.legend(handles=handles, ncols=3, loc="outside lower center", frameon=False)
    return figure


def promises_of_all(results_of: catalogue.AllResults) -> str:
    """What each protocol keeps, worst and median case: a row per run log."""
    frame, rows = promises(results_of.get("repeatability", catalogue.NOTHING)).frame, []
    for machine, group in frame.groupby("machine", sort=False):
        found = group.set_index("protocol")
        row = {"machine": machine, "cases": found.cases["drift-corrected"]}
        for protocol in PROTOCOLS:
            worst, median = (found[f"spread, {which}"][protocol] for which in ("worst", "median"))
            row[PROTOCOLS[protocol]] = f"{worst:.2f} / {median:.2f} / {found.coverage[protocol]:.2f}"
        rows.append(row)
    return markdown.table(pd.DataFrame(rows), {"cases": 0})


README_TABLES = {"promises": promises_of_all}


REPORT = Report(
    csvs={"benchmark_results.csv": repetitions.protocols},
    pictures={"benchmark_plot.png": picture, "states_plot.png": states},
    show=terminal,
    pages=TABLES,
)
