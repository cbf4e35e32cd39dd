"""Encoders with Semantic FPN: how fast is which timm encoder with this decoder on this CPU?

Writes benchmark_results_all.csv (everything, the encoder's feature maps alone included), benchmark_results.csv (each
model at its fastest valid mode) and benchmark_plot.png from the run logs of all machines.
"""

import sys

try:
    from benchmarks import decoders
    from segbench import cli
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

BENCHMARK = decoders.benchmark(__file__, "fpn", __doc__)

if __name__ == "__main__":
    cli.main(BENCHMARK)
