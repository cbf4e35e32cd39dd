"""Encoder alone, with Semantic FPN and with UNet, next to each other in the same rounds: what does which decoder cost?

Writes combined_benchmark_results.csv (a row per machine, model and mode: all three side by side, FPN over UNet with its
interval) and combined_benchmark_plot.png beside this file from the run logs of all machines in run_logs/.
"""

from pathlib import Path

from segbench import cli, decoder_benchmark
from segbench.cases import FEATURES
from segbench.reports import Report


def report() -> Report:
    import combined_report

    return Report(
        csvs={"combined_benchmark_results.csv": combined_report.side_by_side},
        pictures={"combined_benchmark_plot.png": combined_report.picture},
        show=combined_report.terminal,
        pages=(combined_report.over_all, combined_report.by_encoder),
    )


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="combined_benchmark",
    description=__doc__,
    cases=lambda settings: decoder_benchmark.cases(settings, (FEATURES, "fpn", "unet")),
    report=report,
    modes=decoder_benchmark.ENDS,
    modes_without_bf16=decoder_benchmark.ENDS_WITHOUT_BF16,
    defaults=decoder_benchmark.DecoderSettings(models=("twelve",)),
    subfolder="combined_benchmark",
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
