"""Make every CSV, picture, results page and README table from the run logs.

- results/<machine>.md: the tables of all benchmarks on a machine
- other pages: tables between `<!-- table: NAME -->` and `<!-- end -->`
- and figures in sentences, between
  `<!-- value: CSV | rows | column | format -->` and `<!-- end -->`: a CSV
  below benchmarks/; which of its rows, and what of them, in the language of
  pandas' query and eval; the format as Python writes it

    uv run tools/render.py
    uv run tools/render.py --check       # for CI: draws and writes nothing
"""

import re
import shutil
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from segbench.problem import Problem, exit_with

if TYPE_CHECKING:  # imported where they are used: --help needs neither pandas nor matplotlib
    from benchmarks.catalogue import AllResults

ROOT = Path(__file__).resolve().parents[1]
EVIDENCE = ("precision", "labels", "whole_ct")  # benchmarks with tables from other files than run logs
MARKS = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
VALUES = re.compile(r"(<!-- value: ([^|]+)\|([^|]+)\|([^|]+)\|([^|]+?)-->)(.*?)(<!-- end -->)", re.DOTALL)


@dataclass
class Settings:
    check: bool = False
    """Write nothing; exit status 1 if a file differs from what the run logs give."""


def render(root: Path, out: Path, draw: bool = True) -> list[Path]:
    """Everything that the run logs below `root` say, into the same places below `out`. Returns the paths."""
    from benchmarks import catalogue, time_to_labels
    from segbench.analysis import plots, reports

    results_of, written, pages = catalogue.all_results(root), [], {}
    for folder, results in results_of.items():
        report = import_module(f"benchmarks.{folder}.report").REPORT
        (out / "benchmarks" / folder).mkdir(parents=True, exist_ok=True)
        written += reports.write(report, results, out / "benchmarks" / folder, draw)
        for machine in results.machines():
            if section := reports.section(report, results.of_machine(machine)):
                pages.setdefault(machine, []).append(f"## {catalogue.TITLES[folder]}\n\n{section}\n")
    for folder in EVIDENCE:
        place = Path("benchmarks") / folder
        (out / place).mkdir(parents=True, exist_ok=True)
        written += import_module(f"benchmarks.{folder}.report").write(root / place, out / place, draw)
    (out / "results").mkdir(exist_ok=True)
    if picture := time_to_labels.picture(root):
        written.append(out / "results" / "image_to_labels.png")
        plots.save(picture, written[-1], draw)
    for machine, sections in pages.items():
        written.append(out / "results" / f"{machine}.md")
        written[-1].write_text(page(machine, sections, results_of))
    tables = all_tables()
    for path in sorted([*root.glob("*.md"), *root.glob("benchmarks/**/*.md")]):
        text = path.read_text()
        if MARKS.search(text) or VALUES.search(text):
            fresh = MARKS.sub(lambda mark: f"{mark[1]}{tables[mark[2]](results_of)}\n{mark[4]}", text)
            fresh = VALUES.sub(
                lambda mark, path=path: f"{mark[1]}{value(out, *mark.groups()[1:5], path)}{mark[7]}", fresh
            )
            written.append(out / path.relative_to(root))
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_text(fresh)
    return written


def all_tables() -> dict:
    """Name -> what makes a table of README.md or of a folder's page from the results of all benchmarks."""
    from benchmarks import catalogue, overview

    modules = [import_module(f"benchmarks.{folder}.report") for folder in (*catalogue.TITLES, *EVIDENCE)]
    tables = [getattr(module, "README_TABLES", {}) for module in (overview, *modules)]
    return {name: table for of_module in tables for name, table in of_module.items()}


def value(out: Path, table: str, rows: str, column: str, form: str, page: Path) -> str:
    """A figure of a sentence: `column` of the `rows` of a CSV that was just written, or else of one with evidence.
    Raises Problem for none, and for rows that have several."""
    import pandas as pd

    written = out / "benchmarks" / table.strip()
    frame = pd.read_csv(written if written.exists() else ROOT / "benchmarks" / table.strip()).query(rows.strip())
    values = frame.eval(column.strip())
    values = {*values} if isinstance(values, pd.Series) else {values}
    if len(values) != 1 or pd.isna(next(iter(values))):
        raise Problem(f"{page}: {table}|{rows}|{column} is {len(values)} values, not one")
    return format(next(iter(values)), form.strip())


def page(machine: str, sections: list[str], results_of: "AllResults") -> str:
    """A machine's page."""
    from benchmarks import catalogue

    head = (
        f"# {catalogue.cpus(results_of)[machine]}\n\n"
        "All tables of this machine, written by `tools/render.py` from the run logs named below each. What the\n"
        "columns mean stands in [benchmarks/encoder_only](../benchmarks/encoder_only/README.md#columns).\n\n"
    )
    return head + "\n".join(sections)


def differs(committed: Path, fresh: Path) -> bool:
    """By their bytes, or for a picture by the digest of its data."""
    if not committed.exists():
        return True
    if committed.suffix == ".png":
        from PIL import Image

        try:
            with Image.open(committed) as picture:
                picture.load()  # all of it: a download may have ended early
                return picture.info.get("Description") != fresh.read_text()
        except (OSError, SyntaxError, ValueError):  # what Pillow raises for what is no whole PNG
            return True
    return committed.read_bytes() != fresh.read_bytes()


def stale(written: set[Path]) -> list[Path]:
    """Pages, CSVs and pictures that follow from no run log."""
    rendered = [*ROOT.glob("results/*.*"), *ROOT.glob("benchmarks/*/*.csv"), *ROOT.glob("benchmarks/*/*.png")]
    rendered += ROOT.glob("benchmarks/*/plots/*.png")
    return [path for path in rendered if path.relative_to(ROOT) not in written]


def main() -> int:
    check = tyro.cli(Settings, description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)).check
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        names = [path.relative_to(out) for path in render(ROOT, out, draw=not check)]
        different = [name for name in names if check and differs(ROOT / name, out / name)]
        unaccounted = stale(set(names))
        for name in different:
            print(f"{name} differs from what the run logs give")
        for path in unaccounted:
            print(f"{path.relative_to(ROOT)} {'belongs to no run log' if check else 'removed'}")
        if check:
            return 1 if different or unaccounted else 0
        for name in names:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / name, ROOT / name)
        for path in unaccounted:
            path.unlink()
    return 0


if __name__ == "__main__":
    exit_with(main)
