"""Do rankings transfer to another CPU? Compares run logs and published tables.

Spearman's rank correlation of networks by throughput, between the machines of
the run logs and with published/. Measures nothing. Prints both tables and writes

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
    from benchmarks.catalogue import all_results
    from segbench.analysis import markdown
    from studies import rankings

    results_of = all_results()
    if not check:
        for table in rankings.README_TABLES.values():
            print(markdown.aligned(*table(results_of)[:2]) + "\n")
    return common.update(lambda out, draw: rankings.write(results_of, out, draw), check)


if __name__ == "__main__":
    exit_with(main)
