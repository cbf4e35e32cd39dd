"""What pages promise of their figures: pairs behind speedups, a machine's name beside tables, sources of numbers."""

import re
from pathlib import Path

import pandas as pd
import pytest

from segbench import modes, zoo
from segbench.analysis import rankings
from segbench.problem import Problem
from tools import render

from .conftest import ROOT

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("benchmarks/**/README.md"))]
TABLE = re.compile(r"<!-- table: ([a-z0-9-]+) -->\n(.*?)<!-- end -->", re.DOTALL)
MACHINE = re.compile(r"\([a-z]+-[0-9a-f.]+-\w+\)")
OF_NO_MACHINE = ("families",)
# Numbers of the README's sentences that are no result: sizes, versions, what is counted by hand and checked below.
CLASSES, ENCODERS = "117", str(len(zoo.ENCODERS))
ALLOWED = {"512\N{MULTIPLICATION SIGN}512", "3.11", CLASSES, ENCODERS, "7", "1", "3"}


def tables(page: Path) -> dict[str, str]:
    return dict(TABLE.findall(page.read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_table_of_results_names_its_machine(page):
    for name, text in tables(page).items():
        assert name in OF_NO_MACHINE or not text.strip() or MACHINE.search(text), name


def test_figures_in_the_readme_rest_on_four_rounds_or_pairs():
    counts = []
    for text in tables(ROOT / "README.md").values():
        heading, _, *rows = [line for line in text.splitlines() if line.startswith("|")]
        columns = [cell.strip() for cell in heading.strip("|").split("|")]
        basis = [place for place, column in enumerate(columns) if column in ("rounds", "pairs")]
        assert len(basis) == 1, columns
        counts += [int(row.strip("|").split("|")[basis[0]]) for row in rows]
    assert counts and min(counts) >= rankings.PAIRS


def test_numbers_in_the_readmes_sentences_have_a_source():
    text = (ROOT / "README.md").read_text()
    for pattern in (TABLE, render.VALUES, re.compile(r"```.*?```", re.DOTALL), re.compile(r"`[^`]*`")):
        text = pattern.sub("", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    sentences = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    sentences = re.sub(r"(Zen|issue) \d+", "", sentences)
    numbers = re.findall(r"(?<![\w.])\d[^\s)]*\d|(?<![\w.])\d", sentences)
    assert {number for number in numbers} <= ALLOWED


def test_no_line_begins_with_a_mark_of_a_figure():
    """Markdown would take it for a block of HTML, and the sentence would end there."""
    assert not [page for page in PAGES if re.search(r"^\s*<!-- value", page.read_text(), re.MULTILINE)]


def test_a_figure_of_a_sentence_is_one_cell(tmp_path):
    folder = tmp_path / "benchmarks" / "x"
    folder.mkdir(parents=True)
    pd.DataFrame({"mode": ["a", "b"], "speedup": [1.25, 3.0]}).to_csv(folder / "rows.csv", index=False)
    mark = "<!-- value: x/rows.csv | mode == 'a' | 100 * speedup | .0f -->old<!-- end -->"
    found = render.VALUES.search(f"gains {mark} %")
    assert render.value(tmp_path, *found.groups()[1:5], tmp_path) == "125"
    assert render.value(tmp_path, "x/rows.csv", "index >= 0", "speedup.max()", ".1f", tmp_path) == "3.0"
    for rows in ("mode == 'c'", "index >= 0"):
        with pytest.raises(Problem, match="values, not one"):
            render.value(tmp_path, "x/rows.csv", rows, "speedup", ".1f", tmp_path)


def test_a_variant_is_a_mode_of_its_own():
    mode = modes.find("openvino-bf16+nhwc+tcmalloc")
    assert (mode.runtime, mode.precision, mode.allocator) == ("openvino", "bf16", "tcmalloc")
    assert modes.base(mode.name) == "openvino-bf16" and modes.own_baseline(mode.name) == "baseline+tcmalloc"
    assert modes.process(mode.name) == "openvino+tcmalloc" and not modes.find("ncnn+nhwc").runtime
    kept = modes.without_emulation(["autocast+compile+retained", "openvino-bf16+nhwc"], native_bf16=False)
    assert kept == ("compile+retained", "openvino+nhwc")
