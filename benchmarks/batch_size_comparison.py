"""The effect of the batch size; the script is benchmarks/batch_sizes/benchmark.py."""

import sys

try:
    from benchmarks.batch_sizes.benchmark import BENCHMARK
    from segbench import cli
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

if __name__ == "__main__":
    cli.main(BENCHMARK)
