"""Encoder alone, with Semantic FPN and with UNet; the script is benchmarks/combined/benchmark.py."""

import sys

try:
    from benchmarks.combined.benchmark import BENCHMARK
    from segbench import cli
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

if __name__ == "__main__":
    cli.main(BENCHMARK)
