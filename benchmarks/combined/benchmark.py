"""Encoder alone, with Semantic FPN and with UNet, next to each other in the same rounds: what does which decoder cost?

Writes combined_benchmark_results.csv (a row per machine, model and mode: all three side by side, FPN over UNet with its
interval) and combined_benchmark_plot.png beside this file from the run logs of all machines in run_logs/.
"""

from pathlib import Path

from benchmarks import decoders
from segbench import cli
from segbench.analysis.reports import Report
from segbench.cases import FEATURES


def report() -> Report:
    from benchmarks.combined import report

    return Report(
        csvs={"combined_benchmark_results.csv": report.side_by_side},
        pictures={"combined_benchmark_plot.png": report.picture},
        show=report.terminal,
        pages=(report.over_all, report.by_encoder),
    )


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="combined_benchmark",
    description=__doc__,
    cases=lambda settings: decoders.cases(settings, (FEATURES, "fpn", "unet")),
    report=report,
    modes=decoders.ENDS,
    modes_without_bf16=decoders.ENDS_WITHOUT_BF16,
    defaults=decoders.DecoderSettings(models=("twelve",)),
    subfolder="combined_benchmark",
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
