"""Encoder alone, with Semantic FPN and with UNet, next to each other in the same rounds: what does which decoder cost?

Writes combined_benchmark_results.csv (a row per machine, model and mode: all three side by side, FPN over UNet with its
interval) and combined_benchmark_plot.png beside this file from the run logs of all machines in run_logs/.
"""

import sys
from pathlib import Path

try:
    from benchmarks import decoders
    from segbench import cli
    from segbench.cases import FEATURES
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="combined_benchmark",
    description=__doc__,
    cases=lambda settings: decoders.cases(settings, (FEATURES, "fpn", "unet")),
    report="benchmarks.combined.report",
    modes=decoders.ENDS,
    defaults=decoders.DecoderSettings(models=("twelve",)),
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
