"""Two journals side by side: two runs, two machines, or two versions of torch. Per case the ratio of the latencies,
A over B (above 1: B is faster), its 95 % interval, and whether B is faster, slower, or not separable from A.

    uv run tools/compare.py A.jsonl B.jsonl
    uv run tools/compare.py A.jsonl A.jsonl --modes baseline compile
"""

import argparse
import sys
from pathlib import Path

from segbench import modes, tables, versus
from segbench.journal import Journal, JournalError

DIGITS = {"first_ms": 2, "second_ms": 2, "ratio": 3, "low": 3, "high": 3}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, metavar="A", help="a journal, as scripts write them into journals/")
    parser.add_argument("second", type=Path, metavar="B", help="another, or the same with --modes")
    parser.add_argument("--modes", nargs=2, metavar=("OF_A", "OF_B"), choices=[*modes.MODES], default=("", ""))
    parser.add_argument("--csv", type=Path, help="write the table to this file too")
    given = parser.parse_args()
    first, second = (Journal.read(path) for path in (given.first, given.second))
    for name, journal in (("A", first), ("B", second)):
        header = journal.header
        versions = ", ".join(f"{package} {number}" for package, number in header.versions.items())
        print(f"{name}: {journal.path}: {header.name}, {header.machine.label}, {versions}")
    found = versus.compare(first, second, tuple(given.modes))
    if found.empty:
        print("compare.py: the two journals have no case in common", file=sys.stderr)
        return 2
    told = found[[column for column in found if column in DIGITS or (found[column] != "").any()]]
    print("\n" + tables.markdown(told, DIGITS) + "\n")
    counts = found.verdict.str.split(":").str[0].value_counts()
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if given.csv:
        tables.write_csv(given.csv, found)
        print(f"wrote {given.csv}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (JournalError, OSError) as error:
        print(f"compare.py: {error}", file=sys.stderr)
        sys.exit(2)
