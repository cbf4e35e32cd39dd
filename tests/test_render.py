"""Every committed number comes from a committed run log; and two unlike machines go through every table and picture."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from benchmarks import catalogue
from segbench.analysis import plots
from segbench.cases import Case
from segbench.records import Header, MachineSpeed, Run
from segbench.run_log import RunLog, read_all
from tools import render

from .conftest import ROOT

AMD, OTHER, LABELLED = "amd-25.17-2c", "amd-25.1-2c", "amd-25.17-2c-mine"
MODELS = ("mobileone_s0", "lcnet_100", "resnet18", "mobilenetv3_small_100", "convnext_small")
VOLUMES = ("stunet_s", "totalsegmentator")
SMALL = ROOT / "tests" / "run_logs"  # what two Intel machines sent: a quick run, and sweeps that were stopped


def test_what_is_committed_is_what_the_journals_give():
    done = subprocess.run([sys.executable, ROOT / "tools" / "render.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_table_between_marks_is_made_anew():
    text = "before\n<!-- table: families -->\nby hand\n<!-- end -->\nafter\n"
    made = render.rendered(text, {})
    assert made != text and "`resnet18`" in made and made.startswith("before\n") and made.endswith("after\n")
    assert render.rendered(made, {}) == made


def test_a_number_changed_by_hand_is_found(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n")
    (tmp_path / "b.csv").write_text("x\n2\n")
    assert not render.differs(tmp_path / "a.csv", tmp_path / "a.csv")
    assert render.differs(tmp_path / "a.csv", tmp_path / "b.csv")
    assert render.differs(tmp_path / "none.csv", tmp_path / "b.csv")
    pictures = [tmp_path / f"{name}.png" for name in ("one", "same", "other")]
    for path, data in zip(pictures, (1, 1, 2), strict=True):
        plots.save(plt.figure(), pd.DataFrame({"x": [data]}), path)
    assert not render.differs(pictures[0], pictures[1]) and render.differs(pictures[0], pictures[2])


def test_what_no_journal_accounts_for_is_found():
    written = {path.relative_to(ROOT) for path in render.rendered_files()}
    gone = Path("benchmarks/encoder_only/benchmark_results.csv")
    assert render.stale(written) == [] and render.stale(written - {gone}) == [ROOT / gone]


def shortened(run_log: RunLog, folder: Path, keep: int, native_bf16: bool) -> None:
    """The first sessions' runs of a few models, with a few samples each; without native BF16 as a machine that skips
    what it would have to emulate, slower by a half."""
    sessions = [*run_log.headers][:keep]
    name = AMD if native_bf16 else OTHER
    for session in sessions:
        header = run_log.headers[session]
        machine = msgspec.structs.replace(header.machine, name=name, native_bf16=native_bf16, isa=["AVX2"])
        header = msgspec.structs.replace(header, machine=machine)
        copy = RunLog(folder / header.folder)
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
def two_machines(tmp_path_factory) -> tuple[Path, Path]:
    """Run logs of two machines, one without native BF16, as small as they can be; and all that is made of them."""
    root, out = (tmp_path_factory.mktemp(name) for name in ("run_logs", "rendered"))
    for name in catalogue.SCRIPTS:
        benchmark = catalogue.load(ROOT / name).BENCHMARK
        for run_log in read_all(benchmark.run_logs(benchmark.script.parent)):
            if run_log.header.machine.name == AMD:
                repeated = benchmark.name == "repeatability"
                folder = benchmark.run_logs((root / name).parent)
                for native in (True, False):
                    shortened(run_log, folder, 2 if repeated else 3, native)
                if run_log.name == AMD and not repeated:  # a run log of one's own beside it
                    shutil.copytree(folder / AMD, folder / LABELLED)
    shutil.copy(ROOT / "README.md", root / "README.md")
    render.render(root, out)
    return root, out


def test_two_unlike_machines_have_every_table(two_machines):
    _, out = two_machines
    frames = {path.relative_to(out).as_posix(): pd.read_csv(path) for path in out.rglob("*.csv")}
    studies = {name for name in frames if "study_" in name}
    assert len(frames) - len(studies) == 13 and studies
    for name, frame in frames.items():
        assert {AMD, OTHER} <= {
            machine.removesuffix("-background-load").removesuffix("-long") for machine in frame.machine
        }, name
    rows = frames["benchmarks/encoder_only/benchmark_results_all.csv"].set_index(["machine", "model", "mode"])
    fast, slow = (rows.loc[name, "mobileone_s0", "baseline"] for name in (AMD, OTHER))
    assert fast.throughput_all == pytest.approx(1.5 * slow.throughput_all, rel=1e-4)
    skipped = rows.loc[OTHER, "mobileone_s0", "autocast"]
    assert skipped.status == "skipped" and skipped.throughput_img_s != skipped.throughput_img_s
    best = frames["benchmarks/encoder_only/benchmark_results.csv"].set_index(["machine", "model"]).best_mode
    assert "autocast" in best[AMD, "mobileone_s0"] and "autocast" not in best[OTHER, "mobileone_s0"]


def test_two_unlike_machines_have_every_page(two_machines):
    _, out = two_machines
    pages = {name: (out / "results" / f"{name}.md").read_text() for name in (AMD, OTHER)}
    for name, page in pages.items():
        elsewhere = ("Deployment runtimes", "From image to labels")  # run logs that these machines lack
        measured = [title for title in catalogue.SCRIPTS.values() if title not in elsewhere]
        assert re.findall("^## (.*)", page, re.MULTILINE) == measured
        tables = re.findall(r"^\|(?: -+:? \|)+$", page, re.MULTILINE)
        sources = re.findall(r"<sub>(.*); `(.*):(\w+)`</sub>", page)
        assert len(tables) == len(sources) >= 15, name
        for _, path, function in sources:
            assert f"def {function}(" in (ROOT / path).read_text()
        assert all(name in run_logs and " runs, 2026-" in run_logs for run_logs, _, _ in sources)
    assert pages[AMD].count("### Labelled `mine`") == 7 and "### Labelled `background_load`" in pages[AMD]
    ranking = pages[AMD].split("### Labelled")[0].split("<sub>")[0]
    assert ranking.count("| mobileone_s0 |") == 1, "a row per encoder and run log"
    assert "nan" not in pages[AMD] + pages[OTHER]


def test_two_unlike_machines_have_every_picture(two_machines):
    _, out = two_machines
    main = [path for path in out.rglob("*.png") if "plots" not in path.parts]
    others = [path for path in out.rglob("*.png") if "plots" in path.parts]
    assert len(main) == len(others) == 9 and all(path.stem.startswith((AMD, OTHER)) for path in others)
    assert len({Image.open(path).info["Description"] for path in (*main, *others)}) == 18, "each shows data of its own"


def test_two_unlike_machines_have_a_row_each_in_the_readme(two_machines):
    _, out = two_machines
    text = (out / "README.md").read_text()
    answers = text.split("<!-- table: answers -->\n")[1].split("<!-- end -->")[0].strip().splitlines()
    named = [line for line in answers[2:] if "](results/" in line]  # further precisions follow the machine's name
    assert len(named) == 2 and all(any(machine in line for line in named) for machine in (AMD, OTHER))
    widths = [line.count(" | ") + 1 for line in text.splitlines() if line.startswith("| ")]
    assert max(widths) <= 6


@pytest.mark.parametrize("name", ["encoder_only", "encoder_only_quick", "benchmark_official"])
def test_sweeps_that_were_stopped_and_other_versions_are_rows_too(name):
    from segbench.analysis.tables import Results

    script = "benchmark_official.py" if name == "benchmark_official" else "benchmarks/encoder_only/benchmark.py"
    report, results = catalogue.load(ROOT / script).BENCHMARK.report(), Results(read_all(SMALL / name))
    rows = results.rows
    assert len(rows) == len({run.case for run_log in results.run_logs for run in run_log.runs})
    assert rows.torch.unique().tolist() == (["2.15.0"] if name == "encoder_only_quick" else ["2.11.0"])
    assert rows.throughput_img_s.notna().all() and report.show(results)


def test_a_mode_that_only_a_journal_knows_comes_last(tmp_path):
    (run_log,) = read_all(SMALL / "encoder_only_quick")
    copy = RunLog(tmp_path / run_log.name)
    copy.begin(run_log.header)
    for line in (*run_log.machine_speeds, *run_log.runs):
        copy.append(line)
        if isinstance(line, Run) and line.case.mode == "compile":
            copy.append(msgspec.structs.replace(line, case=Case(**as_fields(line.case) | {"mode": "a mode of old"})))
    from segbench.analysis import tables

    results = tables.Results([RunLog.read(copy.folder)])
    of_model = results.rows[results.rows.model == "lcnet_100"]
    assert of_model["mode"].tolist() == ["baseline", "compile", "a mode of old"]
    assert of_model.precision.tolist() == ["fp32", "fp32", ""]
    assert "a mode of old" not in tables.ranking(results.rows)["mode"].tolist()
    report = catalogue.load(ROOT / "benchmarks/encoder_only/benchmark.py").BENCHMARK.report()
    assert "a mode of old" in report.show(results)
    assert [*report.pages[1](results).frame] == ["encoder", "baseline", "compile", "a mode of old"]


def as_fields(struct: msgspec.Struct) -> dict:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_headers_of_committed_journals_are_of_this_schema():
    for path in ROOT.glob("**/run_logs/**/*.jsonl"):
        if ".venv" not in path.parts:
            first = path.read_bytes().split(b"\n", 1)[0]
            assert msgspec.json.decode(first, type=Header).started, path
