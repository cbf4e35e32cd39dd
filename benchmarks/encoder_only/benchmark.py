"""Encoders alone: which timm encoder is fastest on this CPU, and what autocast, torch.compile and OpenVINO bring.

Writes benchmark_results_all.csv (everything), benchmark_results_comparison.csv (modes side by side),
benchmark_results.csv (each model at its fastest valid mode) and benchmark_plot.png from the run logs of all machines.
"""

import sys
from pathlib import Path

try:
    from segbench import cli, modes
    from segbench.settings import Settings
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="encoder_only",
    description=__doc__,
    cases=Settings.cases,
    report="benchmarks.encoder_only.report",
    modes=(*modes.DEFAULT, "openvino", "openvino-bf16"),
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
