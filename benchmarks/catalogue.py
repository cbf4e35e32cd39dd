"""All benchmarks and their results."""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from segbench.analysis import tables
from segbench.analysis.markdown import Shown
from segbench.analysis.tables import Results
from segbench.cases import DECODERS
from segbench.machine import Machine
from segbench.problem import Problem
from segbench.run_log import read_all

ROOT = Path(__file__).resolve().parents[1]
TITLES = {  # folder -> the heading on a machine's page, in their order
    "encoder_only": "Encoders alone",
    "fpn_decoder": "With Semantic FPN",
    "unet_decoder": "With UNet",
    "runtimes": "Deployment runtimes",
    "labels": "From image to labels",
    "combined": "FPN against UNet",
    "official": "2D against the official 3D models",
    "batch_sizes": "Batch sizes",
    "decoder_peers": "Against segmentation-models-pytorch's decoders",
    "repeatability": "Does it repeat?",
}
AllResults = dict[str, Results]  # by folder
Column = pd.Series | list | tuple[pd.Series, int]
NOTHING = Results([])


def all_results(root: Path = ROOT) -> AllResults:
    """Those of every benchmark that has a run log below `root`."""
    results_of = {}
    for folder in TITLES:
        results = Results(read_all(root / "benchmarks" / folder / "run_logs"))
        if results.run_logs:
            results_of[folder] = results
    return results_of


def evidence(folder: Path) -> pd.DataFrame:
    """The CSVs of all machines in a folder; empty where there is none."""
    frames = [read_table(path) for path in sorted(folder.glob("*.csv"))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def read_table(path: Path) -> pd.DataFrame:
    """A CSV of evidence. Raises Problem where a line is not whole, such as one that git marked as a conflict."""
    try:
        with path.open(newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        if not rows or "machine" not in rows[0]:
            raise ValueError("its first line does not name the columns")
        for number, row in enumerate(rows, 1):
            if len(row) != len(rows[0]):
                raise ValueError(f"row {number} has {len(row)} fields, not {len(rows[0])}")
        return pd.read_csv(path)
    except (OSError, ValueError, csv.Error) as error:
        raise Problem(f"{path} is no table of this project: {error}; mend or move it") from None


def evidence_path(out: Path, folder: str, machine: str) -> Path:
    """Where the evidence of a machine goes; makes the folder. Raises Problem."""
    try:
        (out / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"--out {out} cannot be written to ({error.strerror})") from None
    return out / folder / f"{machine}.csv"


def shown(columns: dict[str, Column]) -> Shown:
    """A table from its columns; one of numbers is a pair with their decimals."""
    digits = {name: column[1] for name, column in columns.items() if isinstance(column, tuple)}
    series = {name: column[0] if name in digits else column for name, column in columns.items()}
    return Shown(pd.DataFrame(series), digits)


def networks(frame: pd.DataFrame) -> pd.Series:
    """`resnet18 + UNet`, `resnet18`, `stunet_s`"""
    return frame.model + frame.decoder.map(lambda name: f" + {DECODERS[name]}" if name else "")


def rows(machine: str = "", model: str = "") -> pd.DataFrame:
    """Every row of the run logs without a label, with `benchmark`: of all machines or one, of all run logs or those
    with a model. Repeatability is left out, which measures the same cases again."""
    frames = []
    for folder, results in all_results().items():
        run_logs = [log for log in results.run_logs if log.name == (machine or log.header.machine.name)]
        run_logs = [log for log in run_logs if not model or any(run.case.model == model for run in log.runs)]
        if run_logs and folder != "repeatability":
            frames.append(results.of(*run_logs).rows.assign(benchmark=f"benchmarks/{folder}/benchmark.py"))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def machines(results_of: AllResults) -> list[str]:
    """That with the most cases first."""
    cases: Counter[str] = Counter()
    for results in results_of.values():
        for run_log in results.run_logs:
            cases[run_log.header.machine.name] += len(results.estimates(run_log))
    return sorted(cases, key=lambda name: (-cases[name], name))


def cpus(results_of: AllResults) -> dict[str, str]:
    """Machine -> its CPU and its name, as people read it."""
    described = [run_log.header.machine for results in results_of.values() for run_log in results.run_logs]
    return {machine.name: cpu(machine) for machine in described}


def cpu(machine: Machine) -> str:
    """A CPU and its machine's name, as people read it."""
    return f"{machine.title} ({machine.name})"


def basis(results_of: AllResults, folders: Iterable[str], machine: str) -> str:
    """What a machine's figures rest on: `2 hosts, 9 hours of runs, 2026-11-28 to 2026-12-01`"""
    run_logs = [log for folder in folders for log in of_machine(results_of, folder, machine).run_logs]
    hosts = {host for log in run_logs for host in log.hosts()}
    runs = [run for log in run_logs for run in log.runs]
    hours = sum(run.seconds for run in runs) / 3600
    count = f"{len(hosts)} host{'s' * (len(hosts) > 1)}"
    return f"{count}, {hours:.1f} hours of runs, {tables.days(runs)}"


def of_machine(results_of: AllResults, folder: str, machine: str) -> Results:
    """Of a machine's run logs the one without a label, or else that with the most cases."""
    results = results_of.get(folder, NOTHING).of_machine(machine)
    run_logs = sorted(results.run_logs, key=lambda log: (log.name != machine, -len(results.estimates(log)), log.name))
    return results.of(*run_logs[:1])


def largest(results_of: AllResults, folder: str) -> Results:
    """Of the machine with the most runs."""
    names = results_of.get(folder, NOTHING).machines()
    return of_machine(results_of, folder, names[0]) if names else NOTHING
