"""Do rankings transfer to another CPU? Compares run logs and published tables.

Spearman's rank correlation of networks by throughput, between the machines of
the run logs and with published/. Measures nothing. Writes

  agreement.csv: a row per pair of rankings
  agreement.png: places on the first machine against those elsewhere
  README.md: the two tables in it

    uv run studies/agreement.py
"""

from segbench import settings
from segbench.problem import exit_with
from studies import common


def main() -> int:
    check = settings.parse(common.Files(), __doc__).check
    from studies import rankings

    return common.update(rankings.write, check)


if __name__ == "__main__":
    exit_with(main)
