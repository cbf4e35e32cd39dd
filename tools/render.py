"""Write every CSV, PNG, results page and README table anew from the committed journals, or with --check say what
differs from them.

A machine's page, results/<machine>.md, holds the tables of all benchmarks. In other pages a table stands between
`<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced.
Exit status 1 if --check finds a difference, 2 if a journal cannot be read.
"""

import argparse
import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import readme_tables
from PIL import Image

from segbench import cli, references, reports
from segbench.journal import JournalError, read_all
from segbench.tables import Results

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {  # in the order of the pages
    "benchmarks/encoder_only/benchmark.py": "Encoders alone",
    "benchmarks/fpn_decoder/benchmark.py": "With Semantic FPN",
    "benchmarks/unet_decoder/benchmark.py": "With UNet",
    "benchmarks/runtimes/benchmark.py": "Deployment runtimes",
    "benchmarks/combined_benchmark.py": "FPN against UNet",
    "benchmark_official.py": "2D against the official 3D models",
    "benchmarks/batch_size_comparison.py": "Batch sizes",
    "benchmarks/decoder_peers/benchmark.py": "Against segmentation-models-pytorch's decoders",
    "benchmarks/repeatability/benchmark.py": "Does it repeat?",
}
MARKS = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def load(script: Path) -> ModuleType:
    """A script as a module; what lies beside it can be imported from then on."""
    sys.path.insert(0, str(script.parent))
    spec = importlib.util.spec_from_file_location(f"script_{script.parent.name}_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def keep_references() -> None:
    """Of machines that have none yet, from their journals of all benchmarks together."""
    loaded = [load(ROOT / name).BENCHMARK for name in SCRIPTS]
    references.keep([journal for one in loaded for journal in read_all(one.journals(one.script.parent))])


def benchmarks(root: Path) -> Iterator[tuple[str, cli.Benchmark, Results]]:
    """Title, benchmark and results of every script that has a journal below `root`."""
    for name, title in SCRIPTS.items():
        benchmark = load(ROOT / name).BENCHMARK
        results = Results(read_all(benchmark.journals((root / name).parent)))
        if results.journals:
            yield title, benchmark, results


def render(root: Path, out: Path) -> list[Path]:
    """Everything that the journals below `root` say, into the same places below `out`. Returns the paths."""
    written, pages, results_of = [], {}, {}
    for title, benchmark, results in benchmarks(root):
        report, results_of[benchmark.name] = benchmark.report(), results
        folder = out / benchmark.script.parent.relative_to(ROOT)
        folder.mkdir(parents=True, exist_ok=True)
        written += reports.write(report, results, folder, benchmark.plots(folder))
        for machine in results.machines():
            if section := reports.section(report, results.of_machine(machine)):
                pages.setdefault(machine, []).append(f"## {title}\n\n{section}\n")
    (out / "results").mkdir(exist_ok=True)
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


def page(machine: str, sections: list[str], results_of: dict[str, Results]) -> str:
    """A machine's page."""
    journals = (journal for results in results_of.values() for journal in results.of_machine(machine).journals)
    head = (
        f"# {machine}: {next(journals).header.machine.label}\n\n"
        "All tables of this machine, written by `tools/render.py` from the journals named below each. What the\n"
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
        paths += [*ROOT.glob(f"*.{kind}"), *ROOT.glob(f"benchmarks/**/*.{kind}")]
    return [path for path in paths if not {"quick", "studies"} & {*path.relative_to(ROOT).parts}]


def stale(written: set[Path]) -> list[Path]:
    """Those that no journal accounts for any more."""
    return [path for path in rendered_files() if path.relative_to(ROOT) not in written]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if anything differs")
    check = parser.parse_args().check
    if not check:
        keep_references()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        names = [path.relative_to(out) for path in render(ROOT, out)]
        different = [name for name in names if differs(ROOT / name, out / name)]
        extra = stale(set(names))
        for name in different:
            print(f"{name} {'differs from what the journals give' if check else 'written'}")
        for name in [] if check else names:  # all: a picture of the same data may be drawn otherwise
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(out / name, ROOT / name)
        for path in extra:
            print(f"{path.relative_to(ROOT)} {'belongs to no journal' if check else 'removed'}")
            if not check:
                path.unlink()
    return 1 if check and (different or extra) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except JournalError as error:
        print(f"render.py: {error}", file=sys.stderr)
        sys.exit(2)
