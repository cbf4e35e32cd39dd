"""Tables and picture of encoders alone."""

from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from benchmarks import catalogue
from segbench import modes, zoo
from segbench.analysis import markdown, pages, plots, rankings, stats
from segbench.analysis.markdown import Shown
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.modes import BASELINE, BASELINES
from segbench.run_log import read_all

ALLOCATORS = Path(__file__).resolve().parent / "studies" / "allocators" / "run_logs"


def by_mode(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine and model: throughput per mode, speedups over baseline with intervals, the best mode."""
    keys = ["machine", "family", "model"]
    table = frame[keys].drop_duplicates()
    for mode in modes.in_order(frame["mode"]):
        over = [f"{name}{end}" for name in rankings.OVER for end in ("", "_low", "_high")]
        columns = ["throughput_img_s", *(over if mode != BASELINE else [])]
        rows = frame[frame["mode"] == mode].set_index(keys)[columns].rename(columns={"throughput_img_s": "img_s"})
        table = table.join(rows.add_prefix(f"{mode}_"), on=keys)
    best = rankings.floating_point(rankings.ranking(frame)).set_index(keys)["mode"]
    return table.join(best.rename("best_mode"), on=keys)


def allocators(results: Results) -> Shown:
    """Eager mode with glibc's allocator as it comes, and where it keeps freed memory, in the same rounds; medians of
    all samples, for page faults do not depend on the machine's state."""
    rows, names = [], {run_log.name for run_log in results.run_logs}
    results = Results([run_log for run_log in read_all(ALLOCATORS) if run_log.name in names])
    for run_log in results.run_logs:
        estimates = results.estimates(run_log)
        for case, default in estimates.items():
            if case.mode == BASELINE:
                retained = estimates[case.under(BASELINES[1])]
                shared = sorted(default.runs.keys() & retained.runs.keys())
                ratios = [default.runs[key].all_samples_ms / retained.runs[key].all_samples_ms for key in shared]
                row = {"encoder": case.model}
                for name, estimate in (("retained", retained), ("default", default)):
                    row[f"{name}, ms"] = estimate.all_samples_ms
                    row[f"faults, {name}"] = np.mean([run.page_faults for run in estimate.raw])
                row["default over retained"] = median(ratios)
                rows.append(row | {"95 % interval": markdown.span(*stats.interval(ratios), 2)})
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
    pages=(pages.ranking, pages.every_mode, pages.gains, allocators),
    answer=markdown.answer,
)
