"""Encoders alone: which timm encoder is fastest on this CPU, and what autocast and torch.compile bring.

Writes benchmark_results_all.csv (everything), benchmark_results_comparison.csv (modes side by side),
benchmark_results.csv (each model at its fastest right mode) and benchmark_plot.png from the journals of all machines.
"""

from pathlib import Path

from segbench import cli


def report(journals: list, out: Path) -> list[Path]:
    from segbench import plots, tables

    rows = tables.rows(journals)
    tables.write_csv(out / "benchmark_results_all.csv", rows)
    tables.write_csv(out / "benchmark_results_comparison.csv", tables.comparison(rows))
    tables.write_csv(out / "benchmark_results.csv", tables.results(rows))
    plots.encoders(rows, tables.dates(journals), out / "benchmark_plot.png")
    return [
        out / "benchmark_results_all.csv",
        out / "benchmark_results_comparison.csv",
        out / "benchmark_results.csv",
        out / "benchmark_plot.png",
    ]


def show(journals: list) -> str:
    from segbench import tables

    return tables.terminal(tables.rows(journals))


BENCHMARK = cli.Benchmark(Path(__file__).resolve(), "encoder_only", __doc__, cli.Settings.cases, report, show)

if __name__ == "__main__":
    cli.main(BENCHMARK)
