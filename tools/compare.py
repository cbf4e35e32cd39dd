"""Two run logs side by side: two runs, two machines, or two versions of torch. Per case the ratio of the latencies,
A over B (above 1: B is faster), its 95 % interval, and whether B is faster, slower, or not separable from A.

    uv run tools/compare.py run_logs/A run_logs/B
    uv run tools/compare.py run_logs/A run_logs/A --modes baseline compile
"""

import argparse
import sys
from pathlib import Path

from segbench import modes
from segbench.analysis import compare, markdown, tables
from segbench.problem import Problem
from segbench.run_log import RunLog

DIGITS = {"first_ms": 2, "second_ms": 2, "ratio": 3, "low": 3, "high": 3}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, metavar="A", help="a machine's folder, as scripts make them in run_logs/")
    parser.add_argument("second", type=Path, metavar="B", help="another, or the same with --modes")
    parser.add_argument("--modes", nargs=2, metavar=("OF_A", "OF_B"), choices=[*modes.MODES], default=("", ""))
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    given = parser.parse_args()
    run_logs = []
    for name, folder in (("A", given.first), ("B", given.second)):
        run_log = RunLog.read(folder)
        if not run_log.headers:
            raise Problem(f"{folder} holds no session of a run log: name a machine's folder in run_logs/")
        versions = ", ".join(f"{package} {number}" for package, number in run_log.header.versions.items())
        print(f"{name}: {folder}: {run_log.name}, {run_log.header.machine.label}, {versions}")
        run_logs.append(run_log)
    rows = compare.compare(*run_logs, tuple(given.modes))
    if rows.empty:
        print("compare.py: the two run logs have no case in common", file=sys.stderr)
        return 2
    shown = rows[[column for column in rows if column in DIGITS or (rows[column] != "").any()]]
    print("\n" + markdown.aligned(shown, DIGITS) + "\n")
    counts = rows.verdict.str.split(":").str[0].value_counts()
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if given.csv:
        tables.write_csv(given.csv, rows)
        print(f"wrote {given.csv}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Problem, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        sys.exit(2)
