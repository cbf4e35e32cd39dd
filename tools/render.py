"""Write every CSV, PNG and README table anew from the committed journals, or with --check say what differs from them.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced.
Exit status 1 if --check finds a difference, 2 if a journal cannot be read.
"""

import argparse
import importlib.util
import re
import sys
import tempfile
from pathlib import Path

import answers
import decoder_tables
import encoder_tables
import official_tables
import repeat_tables
from PIL import Image

from segbench import cli
from segbench.journal import JournalError, read_all

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (
    *sorted(ROOT.glob("benchmarks/*/benchmark.py")),
    ROOT / "benchmarks" / "combined_benchmark.py",
    ROOT / "benchmarks" / "batch_size_comparison.py",
    ROOT / "benchmark_official.py",
)
PARTS = (answers, encoder_tables, repeat_tables, decoder_tables, official_tables)
TABLES = {name: table for part in PARTS for name, table in part.TABLES.items()}
MARKS = re.compile(r"(<!-- table: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """The text with every table between marks made anew."""
    return MARKS.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[4]}", text)


def benchmark_of(script: Path) -> cli.Benchmark:
    spec = importlib.util.spec_from_file_location(f"script_{script.parent.name}_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BENCHMARK


def differs(committed: Path, fresh: Path) -> bool:
    """Bytes, or for a picture the digest of the data that it shows."""
    if not committed.exists():
        return True
    if committed.suffix == ".png":
        return Image.open(committed).info.get("Description") != Image.open(fresh).info["Description"]
    return committed.read_bytes() != fresh.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if anything differs")
    check = parser.parse_args().check
    different = []
    for script in SCRIPTS:
        benchmark = benchmark_of(script)
        found = read_all(benchmark.journals(script.parent))
        if not found:
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) if check else script.parent
            written = benchmark.report(found, out)
            different += [path.name for path in written if check and differs(script.parent / path.name, path)]
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("benchmarks/**/*.md")]):
        text = page.read_text()
        if (fresh := rendered(text)) != text:
            different.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(fresh)
    for name in different:
        print(f"{name} {'differs from what the journals give' if check else 'written'}")
    return 1 if check and different else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except JournalError as error:
        print(f"render.py: {error}", file=sys.stderr)
        sys.exit(2)
