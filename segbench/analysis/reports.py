"""A benchmark's tables and pictures, and writing them to files."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # the sweeping process reads scripts that name these, and never imports pandas or matplotlib
    from pandas import DataFrame

    from ..run_log import RunLog
    from .markdown import Shown
    from .plots import Picture
    from .tables import Results

ROOT = Path(__file__).resolve().parents[2]


class Report(NamedTuple):
    """Tables, pictures and texts of a benchmark. All are functions of results, so that nothing here can measure."""

    csvs: "dict[str, Callable[[Results], DataFrame]]"  # by file name, of all machines
    pictures: "dict[str, Callable[[Results], Picture]]"  # of one machine
    show: "Callable[[Results], str]"  # for the terminal
    pages: "tuple[Callable[[Results], Shown], ...]"  # tables of a machine's page; their docstrings are the captions
    # The result in some sentences, at the end of the terminal's text.
    answer: "Callable[[Results], str] | None" = None


def write(report: Report, results: "Results", out: Path, draw: bool = True) -> list[Path]:
    """Every CSV, and a picture a machine: that with the most runs into `out`, the others into `out`/plots. Returns the
    paths; empty tables are left out. Without `draw` a picture is only the digest that a check compares."""
    from . import plots, tables

    written = []
    for name, table in report.csvs.items():
        frame = table(results)
        if len(frame):
            tables.write_csv(out / name, frame)
            written.append(out / name)
    for number, (name, picture_of) in enumerate(report.pictures.items()):
        first = out / name  # place of the first machine's picture, while it is free
        for machine in results.machines():
            further = out / "plots" / (f"{machine}-{Path(name).stem}.png" if number else f"{machine}.png")
            if picture := picture_of(results.of_machine(machine)):
                path, first = first or further, None
                path.parent.mkdir(parents=True, exist_ok=True)
                plots.save(picture, path, draw)
                written.append(path)
                if path != further:
                    further.unlink(missing_ok=True)  # from a time when another machine had more runs
    return written


def section(report: Report, results: "Results") -> str:
    """All tables of one machine's page, each with its caption and its source; run logs with a label under a heading."""
    from . import markdown

    parts = []
    for run_log in results.run_logs:
        of_run_log, shown = results.of(run_log), []
        label = run_log.name.removeprefix(run_log.header.machine.name).removeprefix("-")
        for function in report.pages:
            table = function(of_run_log)
            if len(table.frame):
                caption = " ".join((inspect.getdoc(unwrapped(function)) or "").split())
                source = f"{provenance((table.results or of_run_log).run_logs)}; `{origin(function)}`"
                shown.append(f"{caption}\n\n{markdown.table(table.frame, table.digits)}\n\n<sub>{source}</sub>")
        if label and shown:
            parts.append(f"### Labelled `{label}`")
        parts += shown
    return "\n\n".join(parts)


def provenance(run_logs: "list[RunLog]") -> str:
    """The run logs, their runs and dates: `benchmarks/encoder_only/run_logs/amd-25.17-2c, 667 runs, 2026-11-24`"""
    from .tables import days

    texts = []
    for run_log in run_logs:
        folder = run_log.folder.resolve()
        shown = folder.relative_to(ROOT) if folder.is_relative_to(ROOT) else folder
        texts.append(f"{shown}, {len(run_log.runs)} runs, {days(run_log.runs)}")
    return "; ".join(texts)


def origin(function: Callable[..., Any]) -> str:
    """The file and the name of the function that made a table."""
    path = Path(inspect.getsourcefile(unwrapped(function))).resolve()
    return f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{unwrapped(function).__name__}"


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of a partial the function itself."""
    return getattr(function, "func", function)
