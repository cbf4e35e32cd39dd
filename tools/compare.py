"""Compare two run logs case by case: two sessions, machines, or torch versions.

- ratio: latency of A over B (above 1: B is faster), with its 95 % interval
- verdict: B is faster, slower, or tied with A

    uv run tools/compare.py run_logs/A run_logs/B
    uv run tools/compare.py run_logs/A run_logs/A --modes baseline compile
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from segbench.problem import Problem, exit_with

DIGITS = {"first_ms": 2, "second_ms": 2, "ratio": 3, "low": 3, "high": 3}

# Columns that are shown where they differ.
CONSTANT = ("decoder", "output", "classes", "size", "batch_size", "quality")


@dataclass
class Settings:
    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """A machine's folder in run_logs/."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """Another one, or the same with --modes."""
    modes: Annotated[
        tuple[str, str], tyro.conf.arg(metavar="OF_A OF_B", help_behavior_hint="(default: each mode with itself)")
    ] = ("", "")
    """Compare A under one mode with B under another."""
    csv: Annotated[Path | None, tyro.conf.arg(help_behavior_hint="(default: none)")] = None
    """Write the table to this file too."""


def main() -> None:
    settings = tyro.cli(Settings, prog="compare.py", description=__doc__)
    from segbench import modes
    from segbench.analysis import compare, markdown, tables
    from segbench.run_log import RunLog

    if any(settings.modes) and (unknown := {*settings.modes} - {*modes.MODES}):
        raise Problem(f"unknown mode {min(unknown)!r}; modes: {', '.join(mode.name for mode in modes.BASES)}")
    run_logs = []
    for name, folder in (("A", settings.first), ("B", settings.second)):
        run_log = RunLog.read(folder)
        if not run_log.headers:
            raise Problem(f"{folder} holds no session of a run log: name a machine's folder in run_logs/")
        versions = ", ".join(f"{package} {number}" for package, number in run_log.header.versions.items())
        print(f"{name}: {folder}: {run_log.header.machine.title} ({run_log.name}), {versions}")
        run_logs.append(run_log)
    rows = compare.compare(*run_logs, settings.modes)
    if rows.empty:
        raise Problem("the two run logs have no case in common")
    varied = [column for column in CONSTANT if rows[column].nunique() > 1]
    shown = rows[[column for column in rows if column not in CONSTANT or column in varied]]
    print("\n" + markdown.aligned(shown, DIGITS) + "\n")
    counts = rows.verdict.str.split(":").str[0].value_counts()
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    for name, count in zip("AB", rows.attrs["without_partner"], strict=True):
        if count:
            print(f"{count} more case{'s' * (count > 1)} of {name}, which the other does not have")
    if settings.csv:
        try:
            tables.write_csv(settings.csv, rows)
        except OSError as error:
            raise Problem(f"{settings.csv} cannot be written: {error.strerror}") from None
        print(f"wrote {settings.csv}")


if __name__ == "__main__":
    exit_with(main)
