"""Parameters, GMACs and activations of networks.

The script is tools/count_params.py.
"""

import sys

try:
    from segbench.problem import exit_with
    from tools.count_params import main
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

if __name__ == "__main__":
    exit_with(main)
