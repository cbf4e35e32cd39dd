"""2D encoders with decoders against the official 3D models.

The script is benchmarks/official/benchmark.py.
"""

import sys

try:
    from benchmarks.official.benchmark import BENCHMARK
    from segbench import cli
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

if __name__ == "__main__":
    cli.main(BENCHMARK)
