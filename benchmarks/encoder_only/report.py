"""Tables of encoders alone that no other benchmark has: what a run costs, what the run logs must hold, and the
studies in studies/."""

from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import pandas as pd

from benchmarks import catalogue
from segbench import modes, zoo
from segbench.analysis import markdown, pages, plots, stats, tables
from segbench.analysis.markdown import Shown
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.modes import BASELINE
from segbench.records import Run
from segbench.run_log import read_all

STUDIES = Path(__file__).resolve().parent / "studies"
REPEATS = {"repeat 1": "repeat-1", "repeat 2": "repeat-2"}
NETWORK = ("build", "prepare", "inference", "check")  # phases: building, compiling and running it
PHASES = ("build", "prepare", "reference_workload", "measure", "memory", "check")
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
    table["best_mode"] = tables.floating_point(tables.ranking(frame)).set_index(keys)["mode"]
    return table.reset_index()


def study(name: str, results: Results) -> Results:
    """A study's run logs of the machines and labels that the results are of."""
    names = {run_log.name for run_log in results.run_logs}
    return Results([run_log for run_log in read_all(STUDIES / name / "run_logs") if run_log.name in names])


def run_costs(results: Results) -> Shown:
    """What a run costs by its parts, medians in seconds. Building, preparing, inference and the check are the
    network's own time; the rest (forking, the reference workload's set-up and reference times, the memory's measurement) is the
    protocol's."""
    rows = []
    for run_log in results.run_logs:
        for cache, kind in RUNS_BY_CACHE.items():
            runs = [run for run in run_log.runs if run.phases_s and run.cache == cache]
            if runs:
                besides = [without(run, NETWORK) for run in runs]
                row = {"run": kind, "runs": len(runs)}
                row["fork, exit"] = median(without(run, PHASES) for run in runs)
                for phase in (
                    "build",
                    "prepare",
                    "reference_workload",
                    "inference",
                    "reference_times",
                    "memory",
                    "check",
                ):
                    row[phase] = median(run.phases_s.get(phase, 0) for run in runs)
                rows.append(row | {"besides the network": median(besides), "90 %": float(np.quantile(besides, 0.9))})
    columns = [name for name in rows[0] if name not in ("run", "runs")] if rows else []
    return Shown(pd.DataFrame(rows), {"runs": 0} | dict.fromkeys(columns, 2))


def without(run: Run, phases: tuple[str, ...]) -> float:
    """Seconds of a run, some of its phases left out."""
    return run.seconds - sum(run.phases_s.get(phase, 0) for phase in phases)


def limits(results: Results) -> Shown:
    """What the run logs must hold: the worst of all rows."""
    rows = results.rows
    rows = rows[rows.model.isin(zoo.BY_MODEL) & rows.params_m.notna()]
    known = [zoo.BY_MODEL[model] for model in rows.model]
    checks = {
        "parameters, difference from the zoo's table (M)": (rows.params_m - [e.params_m for e in known]).abs(),
        "GMACs, difference from the zoo's table": (rows.gmacs - [e.gmacs for e in known]).abs(),
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
    """The same sweep at different moments, as far as the repeats go, in img/s."""
    keys = ["model", "mode"]
    runs = {"main run log": results} | {name: study(folder, results) for name, folder in REPEATS.items()}
    frames = {name: run.rows.set_index(keys) for name, run in runs.items() if run.run_logs}
    if len(frames) < 2:
        return Shown(pd.DataFrame(), {})
    shared = next(frame for name, frame in frames.items() if name in REPEATS).index
    frames = {name: frame.reindex(shared) for name, frame in frames.items()}
    table = pd.concat([frame.throughput_img_s for frame in frames.values()], axis=1, keys=frames)
    all_samples = pd.concat([frame.throughput_all for frame in frames.values()], axis=1)
    quiet = pd.concat([frame.valid_share for frame in frames.values()], axis=1)
    table["max/min"] = table.max(axis=1) / table.min(axis=1)
    table["all samples, max/min"] = all_samples.max(axis=1) / all_samples.min(axis=1)
    table["quiet, %"] = quiet.mean(axis=1) * 100
    digits = dict.fromkeys(frames, 1) | {"max/min": 3, "all samples, max/min": 3, "quiet, %": 0}
    run_logs = [run_log for run in runs.values() for run_log in run.run_logs]
    return Shown(table.reset_index(), digits, Results(run_logs))


def allocators(results: Results) -> Shown:
    """The allocator retained against plain glibc, eager mode, in the same rounds; medians of all samples on both sides,
    for page faults are no matter of the machine's state."""
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
    digits = {
        "retained, ms": 1,
        "faults, retained": 0,
        "default, ms": 1,
        "faults, default": 0,
        "default over retained": 2,
    }
    return Shown(pd.DataFrame(rows), digits, results)


TABLES = (run_costs, limits, repeats, allocators)


def families(results_of: catalogue.AllResults) -> str:
    """The zoo."""
    rows = []
    for family in zoo.FAMILIES:
        members = [encoder for encoder in zoo.ENCODERS if encoder.family == family]
        sizes = [encoder.params_m for encoder in members]
        names = " to ".join(dict.fromkeys(f"`{member.model}`" for member in (members[0], members[-1])))
        rows.append(
            {
                "family": family,
                "encoders": len(members),
                "models": names,
                "params, M": f"{min(sizes):.1f} to {max(sizes):.1f}",
            }
        )
    return markdown.table(pd.DataFrame(rows))


README_TABLES = {"families": families}


REPORT = Report(
    csvs={
        "benchmark_results_all.csv": lambda results: results.rows,
        "benchmark_results_comparison.csv": lambda results: by_mode(results.rows),
        "benchmark_results.csv": lambda results: tables.fastest(results.rows),
    },
    pictures={"benchmark_plot.png": lambda results: plots.encoders(results.rows, results.dates())},
    show=markdown.terminal,
    pages=(pages.ranking, pages.every_mode, pages.gains, *TABLES),
    answer=markdown.answer,
)
