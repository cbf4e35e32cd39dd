"""Every committed number comes from a committed run log; and two unlike machines go through every table and picture."""

import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from benchmarks import catalogue
from benchmarks.encoder_only import report as encoder_only
from segbench import zoo
from segbench.analysis import plots, rankings, reports
from segbench.analysis.tables import Results
from segbench.cases import Case
from segbench.records import Header, MachineSpeed, Run
from segbench.run_log import RunLog, read_all
from tools import render

from .conftest import ROOT

AMD, OTHER, LABELLED = "amd-25.17-2c", "amd-25.1-2c", "amd-25.17-2c-mine"
MODELS = ("mobileone_s0", "lcnet_100", "resnet18", "mobilenetv3_small_100", "convnext_small")
VOLUMES = ("stunet_s", "totalsegmentator")
SMALL = ROOT / "tests" / "run_logs"  # a quick run and sweeps that were stopped, from two Intel machines
ZOO_TABLE = re.compile(r"<!-- table: families -->.*?<!-- end -->", re.DOTALL)  # the only one that shows the zoo's list


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    """Everything that the committed run logs give, pictures as digests."""
    out = tmp_path_factory.mktemp("rendered")
    render.render(ROOT, out, draw=False)
    return out


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_what_is_committed_is_what_the_run_logs_give(rendered):
    for name in files(rendered):
        if name.suffix == ".md":
            committed, fresh = (ZOO_TABLE.sub("", (folder / name).read_text()) for folder in (ROOT, rendered))
            assert committed == fresh, f"{name}: run tools/render.py"
        else:
            assert not render.differs(ROOT / name, rendered / name), f"{name}: run tools/render.py"
    assert render.stale({*files(rendered)}) == []


@pytest.mark.slow
def test_the_check_names_what_differs_and_what_no_run_log_accounts_for(rendered, monkeypatch, capsys):
    changed, missing = (
        "benchmarks/combined/combined_benchmark_results.csv",
        "benchmarks/encoder_only/benchmark_plot.png",
    )

    def render_again(root: Path, out: Path, draw: bool) -> list[Path]:
        shutil.copytree(rendered, out, dirs_exist_ok=True)
        (out / changed).write_text("x\n1\n")
        (out / missing).unlink()
        return [out / name for name in files(out)]

    monkeypatch.setattr(render, "render", render_again)
    monkeypatch.setattr(sys, "argv", ["render.py", "--check"])
    assert render.main() == 1
    said = capsys.readouterr().out
    assert f"{changed} differs" in said and f"{missing} belongs to no run log" in said


def test_files_differ_by_their_bytes_and_pictures_by_the_digest_of_their_data(tmp_path):
    for name, text in (("a.csv", "x\n1\n"), ("b.csv", "x\n2\n")):
        (tmp_path / name).write_text(text)
    assert not render.differs(tmp_path / "a.csv", tmp_path / "a.csv")
    assert render.differs(tmp_path / "a.csv", tmp_path / "b.csv")
    assert render.differs(tmp_path / "none.csv", tmp_path / "b.csv")
    first, second = pd.DataFrame({"x": [1]}), pd.DataFrame({"x": [2]})
    plots.save((first, plt.figure), tmp_path / "drawn.png")
    for name, data in (("same", first), ("other", second)):
        plots.save((data, plt.figure), tmp_path / name, draw=False)
    assert not render.differs(tmp_path / "drawn.png", tmp_path / "same")
    assert render.differs(tmp_path / "drawn.png", tmp_path / "other")
    whole = (tmp_path / "drawn.png").read_bytes()
    for broken in (whole[:-2000], whole[:20], b"version https://git-lfs.github.com/spec/v1\n"):
        (tmp_path / "drawn.png").write_bytes(broken)
        assert render.differs(tmp_path / "drawn.png", tmp_path / "same")


def test_an_encoder_added_to_the_zoo_is_in_every_table_and_picture(monkeypatch):
    """Measured as another one was: a new name, in a new family, takes that one's place everywhere."""
    added = zoo.ENCODERS[0]._replace(model="a_new_model", family="A new family")
    monkeypatch.setattr(zoo, "ENCODERS", (added, *zoo.ENCODERS))
    monkeypatch.setattr(zoo, "BY_MODEL", {added.model: added} | zoo.BY_MODEL)
    monkeypatch.setattr(zoo, "FAMILIES", [added.family, *zoo.FAMILIES])
    (run_log,) = read_all(SMALL / "encoder_only_quick")
    for run in run_log.runs:
        if run.case.model == "lcnet_100":
            run.case = msgspec.structs.replace(run.case, model=added.model)
    results, report = Results([run_log]), encoder_only.REPORT
    assert f"| {added.family} | 1 | `{added.model}` |" in encoder_only.families({})
    assert results.rows.model.iloc[0] == added.model and (results.rows.family == added.family).any()
    assert added.model in report.show(results) and added.model in reports.section(report, results)
    _, draw = report.pictures["benchmark_plot.png"](results)
    figure = draw()
    assert added.family in [text.get_text() for text in figure.legends[0].get_texts()]
    plt.close(figure)


def shortened(run_log: RunLog, folder: Path, keep: int, native_bf16: bool) -> None:
    """The first sessions' runs of a few models, with a few samples each; without native BF16 as of a machine that skips
    BF16 and is slower by a half."""
    sessions = [*run_log.headers][:keep]
    name = AMD if native_bf16 else OTHER
    for session in sessions:
        header = run_log.headers[session]
        machine = msgspec.structs.replace(header.machine, name=name, native_bf16=native_bf16, isa=["AVX2"])
        header = msgspec.structs.replace(header, machine=machine)
        copy = RunLog(folder / f"{name}{run_log.name.removeprefix(AMD)}")
        copy.begin(header)
        for line in (*run_log.machine_speeds, *run_log.runs):
            if line.session == session and (isinstance(line, MachineSpeed) or line.case.model in MODELS + VOLUMES):
                copy.append(smaller(line, native_bf16))


def smaller(line: MachineSpeed | Run, native_bf16: bool) -> MachineSpeed | Run:
    reference_times = line.reference_ms[:13]
    if isinstance(line, MachineSpeed):
        return msgspec.structs.replace(line, reference_ms=reference_times)
    if not native_bf16 and line.case.mode.startswith("autocast"):
        return Run(case=line.case, round=line.round, started=line.started, status="skipped", reason="no native BF16")
    samples = [ms if native_bf16 else 1.5 * ms for ms in line.samples_ms[:12]]
    return msgspec.structs.replace(line, samples_ms=samples, reference_ms=reference_times)


@pytest.fixture(scope="module")
def two_machines(tmp_path_factory) -> tuple[Path, list[Path], Path]:
    """All that is made of small run logs of two machines, one without native BF16: the folder, the paths, and the root
    of the run logs."""
    root, out = (tmp_path_factory.mktemp(name) for name in ("root", "out"))
    for folder in catalogue.TITLES:
        run_logs = root / "benchmarks" / folder / "run_logs"
        for run_log in read_all(ROOT / "benchmarks" / folder / "run_logs"):
            if run_log.header.machine.name == AMD:
                repeated = folder == "repeatability"
                for native in (True, False):
                    shortened(run_log, run_logs, 2 if repeated else 3, native)
                if run_log.name == AMD and not repeated:  # a run log with a label beside it
                    shutil.copytree(run_logs / AMD, run_logs / LABELLED)
                    for path in run_logs.glob(f"{LABELLED}/*.jsonl"):  # sessions of its own
                        path.write_bytes(path.read_bytes().replace(b'"boot_id":"', b'"boot_id":"1', 1))
    tables = [f"<!-- table: {name} -->\n<!-- end -->\n" for name in render.all_tables()]
    (root / "README.md").write_text("before\n" + "".join(tables) + "after\n")
    return out, render.render(root, out, draw=False), root


@pytest.mark.slow
def test_two_unlike_machines_have_every_table(two_machines):
    out, written, _ = two_machines
    frames = {path.relative_to(out).as_posix(): pd.read_csv(path) for path in written if path.suffix == ".csv"}
    for name, frame in frames.items():
        machines = {machine.removesuffix("-background-load").removesuffix("-long") for machine in frame.machine}
        assert {AMD, OTHER} <= machines, name
    rows = frames["benchmarks/encoder_only/benchmark_results_all.csv"].set_index(["machine", "model", "mode"])
    fast, slow = (rows.loc[name, "mobileone_s0", "baseline+retained"] for name in (AMD, OTHER))
    assert fast.throughput_all == pytest.approx(1.5 * slow.throughput_all, rel=1e-4)
    skipped = rows.loc[OTHER, "mobileone_s0", "autocast+retained"]
    assert skipped.status == "skipped" and pd.isna(skipped.throughput_img_s)
    best = frames["benchmarks/encoder_only/benchmark_results.csv"].set_index(["machine", "model"]).best_mode
    assert "autocast" in best[AMD, "mobileone_s0"] and "autocast" not in best[OTHER, "mobileone_s0"]


@pytest.mark.slow
def test_two_unlike_machines_have_every_page(two_machines):
    out, *_ = two_machines
    pages = {name: (out / "results" / f"{name}.md").read_text() for name in (AMD, OTHER)}
    folders = [path.parent.name for path in out.glob("benchmarks/*/*.csv")]
    for name, page in pages.items():
        headings = re.findall("^## (.*)", page, re.MULTILINE)
        assert headings == [title for folder, title in catalogue.TITLES.items() if folder in folders]
        tables = re.findall(r"^\|(?: -+:? \|)+$", page, re.MULTILINE)
        sources = re.findall(r"<sub>(.*); `(.*):(\w+)`</sub>", page)
        assert len(tables) == len(sources) > len(headings), name
        for run_logs, path, function in sources:
            assert f"def {function}(" in (ROOT / path).read_text()
            assert name in run_logs and " runs, 2026-" in run_logs
        assert "nan" not in page
    assert "### Labelled `mine`" in pages[AMD] and "### Labelled `background-load`" in pages[AMD]
    ranking = pages[AMD].split("### Labelled")[0].split("<sub>")[0]
    assert ranking.count("| mobileone_s0 |") == 1, "a row per encoder and run log"


@pytest.mark.slow
def test_two_unlike_machines_have_every_picture(two_machines):
    _, written, root = two_machines
    pictures = [path for path in written if path.suffix == ".png" and path.parent.name != "results"]
    first = [path for path in pictures if path.parent.name != "plots"]
    others = [path for path in pictures if path.parent.name == "plots"]
    assert len(first) == len(others) > 0 and all(path.stem.startswith((AMD, OTHER)) for path in others)
    assert len({path.read_text() for path in pictures}) == len(pictures), "each shows other data"
    for folder, results in catalogue.all_results(root).items():
        for picture_of in import_module(f"benchmarks.{folder}.report").REPORT.pictures.values():
            _, draw = picture_of(results.of_machine(OTHER))
            figure = draw()
            assert any(OTHER in axes.get_title(loc="left") for axes in figure.axes), (
                f"{folder}: whose figures are shown"
            )
            plt.close(figure)


@pytest.mark.slow
def test_two_unlike_machines_are_in_the_tables_between_marks(two_machines):
    out, *_ = two_machines
    text = (out / "README.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    table = dict(re.findall(r"<!-- table: ([a-z-]+) -->\n(.*?)\n?<!-- end -->", text, re.DOTALL))
    rows = table["answers"].splitlines()[2:]
    assert all(any(f"({name})" in row.split(" | ")[0] for row in rows) for name in (AMD, OTHER))
    assert len({row.count(" | ") for row in rows}) == 1
    assert "`resnet18`" in table["families"] and AMD in table["sweeps"] and OTHER in table["sweeps"]


@pytest.mark.parametrize("name", ["encoder_only", "encoder_only_quick", "benchmark_official"])
def test_sweeps_that_were_stopped_and_other_versions_are_rows_too(name):
    folder = "official" if name == "benchmark_official" else "encoder_only"
    report, results = import_module(f"benchmarks.{folder}.report").REPORT, Results(read_all(SMALL / name))
    rows = results.rows
    assert len(rows) == len({run.case for run_log in results.run_logs for run in run_log.runs})
    assert rows.torch.unique().tolist() == [results.run_logs[0].header.versions["torch"]]
    assert rows.throughput_img_s.notna().all() and report.show(results)


def test_a_mode_that_only_a_run_log_knows_comes_last(tmp_path):
    (run_log,) = read_all(SMALL / "encoder_only_quick")
    copy = RunLog(tmp_path / run_log.name)
    copy.begin(run_log.header)
    for line in (*run_log.machine_speeds, *run_log.runs):
        copy.append(line)
        if isinstance(line, Run) and line.case.mode == "compile+retained":
            copy.append(msgspec.structs.replace(line, case=Case(**as_fields(line.case) | {"mode": "a mode of old"})))
    results = Results([RunLog.read(copy.folder)])
    of_model = results.rows[results.rows.model == "lcnet_100"]
    names = ["baseline+retained", "compile+retained", "a mode of old"]
    assert of_model["mode"].tolist() == names
    assert of_model.precision.tolist() == ["fp32", "fp32", ""]
    assert "a mode of old" not in rankings.ranking(results.rows)["mode"].tolist()
    report = encoder_only.REPORT
    assert "a mode of old" in report.show(results)
    assert [*report.pages[1](results).frame] == ["encoder", *names]


def as_fields(struct: msgspec.Struct) -> dict:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_headers_of_committed_run_logs_are_of_this_schema():
    for path in ROOT.glob("**/run_logs/**/*.jsonl"):
        if ".venv" not in path.parts:
            first = path.read_bytes().split(b"\n", 1)[0]
            assert msgspec.json.decode(first, type=Header).started, path
