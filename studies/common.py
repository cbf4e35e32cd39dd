"""What the studies share: a network prepared under a mode, two calls compared in turn, tables, committed files."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tabulate import tabulate

from segbench import machine, modes, runtimes
from segbench.analysis import stats
from segbench.cases import Case

if TYPE_CHECKING:  # --help needs no torch
    from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
CHECKS = HERE / "checks"


@dataclass
class Files:
    check: bool = False
    """Write nothing; exit status 1 where a committed file differs."""


def network(case: Case) -> "tuple[nn.Module, Tensor]":
    """The network of a case and its input, (B, 3, H, W)."""
    from segbench import inputs, models

    return models.build(case), inputs.picture(case)


def prepare(module: "nn.Module", image: "Tensor", mode: str) -> runtimes.Prepared:
    """The network under a mode, run once. Raises whatever the network or the runtime raises."""
    import torch

    chosen = modes.MODES[mode]
    return runtimes.of_mode(chosen).prepare(module, image, chosen, torch.get_num_threads(), machine.cache_folder())


def during(seconds: float) -> Iterator[None]:
    """As many steps as begin within some seconds, at least one."""
    end = time.perf_counter() + seconds
    yield
    while time.perf_counter() < end:
        yield


class Comparison(NamedTuple):
    """Seconds of two ways to do a thing, taken in turn."""

    first: list[float]  # one more than of the second
    second: list[float]

    def columns(self, name: str) -> dict[str, float]:
        """`name`: the geometric mean of first over second, with its 95 % interval over the pairs. Each time of the
        second way is divided by what the first took before and after it, which shares the state of the machine."""
        around = [(before * after) ** 0.5 for before, after in zip(self.first, self.first[1:], strict=False)]
        ratios = [one / other for one, other in zip(around, self.second, strict=True)]
        low, high = stats.interval(ratios)
        return {"pairs": len(ratios), name: statistics.geometric_mean(ratios), "low": low, "high": high}


def in_turn(first: Callable[[], float], second: Callable[[], float], steps: Iterable) -> Comparison:
    """Seconds that two functions return, called in turn, a pair a step."""
    comparison = Comparison([first()], [])
    for _ in steps:
        comparison.second.append(second())
        comparison.first.append(first())
    return comparison


def print_setting(here: machine.Machine, packages: Iterable[str]) -> None:
    """On what is measured: CPU, threads, versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine.installed(packages).items())
    print(f"{here.title} ({here.name}), {here.cores} threads, {versions}")


def print_table(title: str, rows: list[dict]) -> None:
    print(f"\n{title}\n\n{tabulate(rows, headers='keys', tablefmt='github', floatfmt='.4g')}", flush=True)


def keep(name: str, rows: list[dict], here: machine.Machine, folder: Path | None) -> None:
    """Write a table as evidence, `folder`/NAME/<machine>.csv, from which pages are made; nothing without a folder."""
    import pandas as pd

    from benchmarks.catalogue import evidence_path
    from segbench.analysis import tables

    if folder:
        about = {"machine": here.name, "cpu": here.title, "date": f"{datetime.now(UTC):%Y-%m-%d}"}
        tables.write_csv(evidence_path(folder, name, here.name), pd.DataFrame([about | row for row in rows]))


def update(write: Callable[[Path, bool], list[Path]], check: bool, committed: Path = HERE) -> int:
    """Write a study's files, or for a check name those that differ. Returns the exit status. `write`: writes all of
    them into a folder and returns their paths; without its second argument it draws no picture (see plots.save)."""
    from tools.render import differs

    with tempfile.TemporaryDirectory() as folder:
        written = write(Path(folder), not check)
        if not check:
            for path in written:
                shutil.copyfile(path, committed / path.name)
            return 0
        different = [path.name for path in written if differs(committed / path.name, path)]
    for name in different:
        print(f"studies/{name} differs from what the run logs give")
    return 1 if different else 0
