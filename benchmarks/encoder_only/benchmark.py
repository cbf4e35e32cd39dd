"""Encoders alone: which timm encoder is fastest on this CPU, and what autocast, torch.compile and OpenVINO bring.

Writes benchmark_results_all.csv (everything), benchmark_results_comparison.csv (modes side by side),
benchmark_results.csv (each model at its fastest valid mode) and benchmark_plot.png from the run logs of all machines.
"""

from pathlib import Path

from segbench import cli, modes
from segbench.analysis.reports import Report
from segbench.settings import Settings


def report() -> Report:
    from benchmarks.encoder_only import report
    from segbench.analysis import markdown, pages, plots, tables

    return Report(
        csvs={
            "benchmark_results_all.csv": lambda results: results.rows,
            "benchmark_results_comparison.csv": lambda results: report.by_mode(results.rows),
            "benchmark_results.csv": lambda results: tables.fastest(results.rows),
        },
        pictures={"benchmark_plot.png": lambda results: plots.encoders(results.rows, results.dates())},
        show=markdown.terminal,
        pages=(pages.ranking, pages.every_mode, pages.gains, *report.TABLES),
        answer=markdown.answer,
    )


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="encoder_only",
    description=__doc__,
    cases=Settings.cases,
    report=report,
    modes=(*modes.DEFAULT, "openvino", "openvino-bf16"),
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
