"""Tables of encoders alone that no other benchmark has: costs of a run, limits of the figures, and the studies in
studies/."""

from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import pandas as pd

from benchmarks import catalogue
from segbench import modes, zoo
from segbench.analysis import markdown, pages, plots, rankings, stats
from segbench.analysis.markdown import Shown
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.modes import BASELINE
from segbench.run_log import read_all

STUDIES = Path(__file__).resolve().parent / "studies"
REPEATS = {"repeat 1": "repeat-1", "repeat 2": "repeat-2"}
SHOWN_PHASES = ("build", "prepare", "reference_workload", "inference", "reference_times", "memory", "check")
NETWORK_PHASES = ["build", "prepare", "inference", "check"]
PHASES = ["build", "prepare", "reference_workload", "measure", "memory", "check"]  # without overlap
RUNS_BY_CACHE = {"": "eager", "warm": "compiled, warm", "cold": "compiled, cold"}


def by_mode(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine and model: throughput per mode, speedups over baseline with intervals, the best mode."""
    keys = ["machine", "family", "model"]
    frame = frame[frame.allocator == "retained"]
    table = frame[keys].drop_duplicates().set_index(keys)
    for mode in modes.in_order(frame["mode"]):
        rows = frame[frame["mode"] == mode].set_index(keys)
        table[f"{mode}_img_s"] = rows.throughput_img_s
        if mode != BASELINE:
            for column in ("speedup", "speedup_low", "speedup_high"):
                table[f"{mode}_{column}"] = rows[column]
    table["best_mode"] = rankings.floating_point(rankings.ranking(frame)).set_index(keys)["mode"]
    return table.reset_index()


def study(name: str, results: Results) -> Results:
    """A study's run logs of the same machines and labels."""
    names = {run_log.name for run_log in results.run_logs}
    return Results([run_log for run_log in read_all(STUDIES / name / "run_logs") if run_log.name in names])


def run_costs(results: Results) -> Shown:
    """Duration of a run by its parts, medians in seconds. Building, preparing, inference and the check belong to the
    network; the rest (forking, preparing and timing the reference workload, measuring memory) to the protocol."""
    rows = []
    for run_log in results.run_logs:
        for cache, kind in RUNS_BY_CACHE.items():
            runs = [run for run in run_log.runs if run.phases_s and run.cache == cache]
            if runs:
                seconds = pd.Series([run.seconds for run in runs])
                phases = pd.DataFrame([run.phases_s for run in runs]).reindex(columns=[*SHOWN_PHASES, "measure"])
                phases = phases.fillna(0)
                protocol = seconds - phases[NETWORK_PHASES].sum(axis=1)
                row = {"run": kind, "runs": len(runs), "fork, exit": (seconds - phases[PHASES].sum(axis=1)).median()}
                row |= {phase.replace("_", " "): phases[phase].median() for phase in SHOWN_PHASES}
                rows.append(row | {"protocol": protocol.median(), "protocol, 90 %": protocol.quantile(0.9)})
    frame = pd.DataFrame(rows)
    return Shown(frame, {"runs": 0} | dict.fromkeys(frame.columns[2:], 2))


def limits(results: Results) -> Shown:
    """The worst value of all rows in the run logs."""
    rows = results.rows
    rows = rows[rows.model.isin(zoo.BY_MODEL) & rows.params_m.notna()]
    encoders = [zoo.BY_MODEL[model] for model in rows.model]
    checks = {
        "parameters, difference from the zoo's table (M)": (rows.params_m - [e.params_m for e in encoders]).abs(),
        "GMACs, difference from the zoo's table": (rows.gmacs - [e.gmacs for e in encoders]).abs(),
        "feature map's standard deviation, smallest": -rows.output_std,
        "feature map's standard deviation, largest": rows.output_std,
        "page faults per inference, baseline": rows.page_faults[rows["mode"] == BASELINE],
    }
    for mode in modes.in_order(rows["mode"]):
        if mode != BASELINE:
            checks[f"relative error, {mode}"] = rows.rel_error[rows["mode"] == mode]
    worst = []
    for check, values in checks.items():
        if values.notna().any():
            index = values.idxmax()
            worst.append({"what": check, "worst": f"{abs(values[index]):.2g}", "encoder": rows.model[index]})
    return Shown(pd.DataFrame(worst), {})


def repeats(results: Results) -> Shown:
    """The same sweep repeated at other hours, for the cases that were repeated, in img/s."""
    sweeps = {"main run log": results} | {name: study(folder, results) for name, folder in REPEATS.items()}
    frames = {name: sweep.rows.set_index(["model", "mode"]) for name, sweep in sweeps.items() if sweep.run_logs}
    repeated = next((frames[name].index for name in REPEATS if name in frames), None)
    if len(frames) < 2 or repeated is None:
        return Shown(pd.DataFrame(), {})
    wide = pd.concat([frame.reindex(repeated) for frame in frames.values()], axis=1, keys=frames).swaplevel(axis=1)
    table, all_samples = wide["throughput_img_s"], wide["throughput_all"]
    table = table.assign(**{"max/min": table.max(axis=1) / table.min(axis=1)})
    table["all samples, max/min"] = all_samples.max(axis=1) / all_samples.min(axis=1)
    table["valid, %"] = wide["valid_share"].mean(axis=1) * 100
    digits = dict.fromkeys(frames, 1) | {"max/min": 3, "all samples, max/min": 3, "valid, %": 0}
    return Shown(table.reset_index(), digits, Results([log for sweep in sweeps.values() for log in sweep.run_logs]))


def allocators(results: Results) -> Shown:
    """glibc's default allocator against the retained one, eager mode, in the same rounds; medians of all samples, for
    page faults do not depend on the machine's state."""
    rows, results = [], study("allocators", results)
    for run_log in results.run_logs:
        estimates = results.estimates(run_log)
        for case, default in estimates.items():
            if case.allocator == "default":
                retained = estimates[msgspec.structs.replace(case, allocator="retained")]
                shared = sorted(default.runs.keys() & retained.runs.keys())
                ratios = [default.runs[key].all_samples_ms / retained.runs[key].all_samples_ms for key in shared]
                row = {"encoder": case.model}
                for name, estimate in (("retained", retained), ("default", default)):
                    row[f"{name}, ms"] = estimate.all_samples_ms
                    row[f"faults, {name}"] = float(np.mean([run.page_faults for run in estimate.raw]))
                row["default over retained"] = median(ratios)
                rows.append(row | {"95 % interval": "{:.2f} to {:.2f}".format(*stats.interval(ratios))})
    digits = {"retained, ms": 1, "faults, retained": 0, "default, ms": 1, "faults, default": 0}
    return Shown(pd.DataFrame(rows), digits | {"default over retained": 2}, results)


def families(results_of: catalogue.AllResults) -> str:
    """The zoo."""
    rows = []
    for family in zoo.FAMILIES:
        members = [encoder for encoder in zoo.ENCODERS if encoder.family == family]
        sizes = [encoder.params_m for encoder in members]
        names = dict.fromkeys(f"`{member.model}`" for member in (members[0], members[-1]))
        row = {"family": family, "encoders": len(members), "models": " to ".join(names)}
        rows.append(row | {"params, M": f"{min(sizes):.1f} to {max(sizes):.1f}"})
    return markdown.table(pd.DataFrame(rows))


README_TABLES = {"families": families}
REPORT = Report(
    csvs={
        "benchmark_results_all.csv": lambda results: results.rows,
        "benchmark_results_comparison.csv": lambda results: by_mode(results.rows),
        "benchmark_results.csv": lambda results: rankings.fastest(results.rows),
    },
    pictures={"benchmark_plot.png": lambda results: plots.encoders(results.rows, results.dates())},
    show=markdown.terminal,
    pages=(pages.ranking, pages.every_mode, pages.gains, run_costs, limits, repeats, allocators),
    answer=markdown.answer,
)
