"""Write every CSV, PNG, results page and README table anew from the committed run logs, or with --check say what
differs from them.

A machine's page, results/<machine>.md, holds the tables of all benchmarks. In other pages a table stands between
`<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced.
Exit status 1 if --check finds a difference, 2 if a run log cannot be read.
"""

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks import time_to_labels
from benchmarks.catalogue import ROOT, benchmarks
from segbench.analysis import plots, reports
from segbench.analysis.tables import Results
from segbench.run_log import RunLogError
from studies import agreement
from tools import readme_tables

MARKS = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def render(root: Path, out: Path) -> list[Path]:
    """Everything that the run logs below `root` say, into the same places below `out`. Returns the paths."""
    written, pages, results_of = [], {}, {}
    for title, benchmark, results in benchmarks(root):
        report, results_of[benchmark.name] = benchmark.report(), results
        folder = out / benchmark.script.parent.relative_to(ROOT)
        folder.mkdir(parents=True, exist_ok=True)
        written += reports.write(report, results, folder, benchmark.plots(folder))
        for machine in results.machines():
            if section := reports.section(report, results.of_machine(machine)):
                pages.setdefault(machine, []).append(f"## {title}\n\n{section}\n")
    written += without_journals(root, out)
    (out / "results").mkdir(exist_ok=True)
    written += agreement.write(results_of, out / "results")
    for machine, sections in pages.items():
        written.append(out / "results" / f"{machine}.md")
        written[-1].write_text(page(machine, sections, results_of))
    for path in sorted([*root.glob("*.md"), *root.glob("benchmarks/**/*.md")]):
        text = path.read_text()
        if (fresh := rendered(text, results_of)) != text or MARKS.search(text):
            written.append(out / path.relative_to(root))
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_text(fresh)
    return written


def without_journals(root: Path, out: Path) -> list[Path]:
    """What is no run log's: scores of images, kernels against torch, whole CTs, and where the time goes."""
    for name in ("precision", "labels", "whole_ct"):
        folder = ROOT / "benchmarks" / name
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        (out / "benchmarks" / name).mkdir(parents=True, exist_ok=True)
    from benchmarks.labels import report
    from benchmarks.precision import report
    from benchmarks.whole_ct import report

    writers = {"precision": report.write, "labels": report.write_kernels, "whole_ct": report.write}
    pairs = ((write, Path("benchmarks") / name) for name, write in writers.items())
    written = [path for write, folder in pairs for path in write(root / folder, out / folder)]
    if found := time_to_labels.picture(root):
        written.append(out / "results" / "time_to_labels.png")
        written[-1].parent.mkdir(exist_ok=True)
        plots.save(*found, written[-1])
    return written


def page(machine: str, sections: list[str], results_of: dict[str, Results]) -> str:
    """A machine's page."""
    run_logs = (run_log for results in results_of.values() for run_log in results.of_machine(machine).run_logs)
    head = (
        f"# {machine}: {next(run_logs).header.machine.label}\n\n"
        "All tables of this machine, written by `tools/render.py` from the run logs named below each. What the\n"
        "columns mean stands in [benchmarks/encoder_only](../benchmarks/encoder_only/README.md#columns).\n\n"
    )
    return head + "\n".join(sections)


def rendered(text: str, results_of: dict[str, Results]) -> str:
    """The text with every table between marks made anew."""
    return MARKS.sub(lambda mark: f"{mark[1]}{readme_tables.TABLES[mark[2]](results_of)}\n{mark[4]}", text)


def differs(committed: Path, fresh: Path) -> bool:
    """Bytes, or for a picture the digest of the data that it shows."""
    if not committed.exists():
        return True
    if committed.suffix == ".png":
        return Image.open(committed).info.get("Description") != Image.open(fresh).info["Description"]
    return committed.read_bytes() != fresh.read_bytes()


def rendered_files() -> list[Path]:
    """Pages, CSVs and pictures as they lie beside the scripts."""
    paths = [*ROOT.glob("results/*.md"), *ROOT.glob("plots/**/*.png")]
    for kind in ("csv", "png"):
        paths += [path for place in ("", "results/", "benchmarks/**/") for path in ROOT.glob(f"{place}*.{kind}")]
    evidence = {"images", "kernels", "parts", "runs"}  # what tables are made from
    others = {"quick", "own", "studies"} | evidence
    return [path for path in paths if not others & {*path.relative_to(ROOT).parts}]


def stale(written: set[Path]) -> list[Path]:
    """Those that no run log accounts for any more."""
    return [path for path in rendered_files() if path.relative_to(ROOT) not in written]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if anything differs")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        names = [path.relative_to(out) for path in render(ROOT, out)]
        different = [name for name in names if differs(ROOT / name, out / name)]
        extra = stale(set(names))
        for name in different:
            print(f"{name} {'differs from what the run_logs give' if check else 'written'}")
        for name in [] if check else names:  # all: a picture of the same data may be drawn otherwise
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / name, ROOT / name)
        for path in extra:
            print(f"{path.relative_to(ROOT)} {'belongs to no run_log' if check else 'removed'}")
            if not check:
                path.unlink()
    return 1 if check and (different or extra) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RunLogError as error:
        print(f"render.py: {error}", file=sys.stderr)
        sys.exit(2)
