"""The runtimes: a network and its input in, a call out. A module here is a runtime, with these functions:

missing(mode, case, machine) -> str
    Why a mode cannot run a case on a machine, "" where it can.
versions() -> dict[str, str]
    The builds that its numbers depend on, by package.
environment(threads) -> dict[str, str]
    What a process needs set before it starts.
preload(mode) -> None
    Import what every run needs, in the process that forks them.
prepare(network, example, mode, threads, cache, calibration=None) -> Prepared
    Make a network run on an input, (B, C, H, W) or (B, C, D, H, W), and run it once. `cache` is a folder;
    `calibration` gives for an input others like it, by which INT8 chooses its ranges, or else inputs.calibration does.
    Raises whatever the network or the runtime raises.

Only `preload` and `prepare` may import anything heavy: the sweeping process asks the others. Nothing outside a runtime
reads a mode's options. To add a runtime, add its module; to add a mode, its line in segbench/modes.py.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..modes import Mode

Calibration = Callable[[Any], list[Any]]  # an input -> others like it


class Prepared(NamedTuple):
    call: Callable[[], Any]  # one inference, and what is timed
    feed: Callable[[Any], None]  # another input of the same shape, a torch tensor, for the calls that follow
    outputs: Callable[[Any], Sequence[Any]]  # what a call returned -> torch tensors, logits or the feature map first
    ran: Callable[[], dict[str, str]]  # what ran, as the runtime itself tells it: precision, threads
    steps_s: dict[str, float]  # seconds of each step of preparing from nothing: export, convert, compile
    cache: str  # "cold" or "warm": whether the result was found on disk; "" where nothing is made
    saved_s: float = 0.0  # of those seconds, what this process did not spend: steps that were found on disk
    folder: Path | None = None  # of the cache, with what was converted: the artefact

    @property
    def model_mb(self) -> float | None:
        """Of the artefact on disk; None where nothing is converted."""
        return None if self.folder is None else size_of(self.folder) / 1e6

    def then(self, end: Callable[[Any], Any]) -> "Prepared":
        """With something behind it, which makes its one output of the first one."""

        def call() -> Any:
            return end(self.outputs(self.call())[0])

        call()
        return self._replace(call=call, outputs=lambda output: [output])


def size_of(folder: Path) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def of_mode(mode: Mode) -> ModuleType:
    """Its runtime. Raises ModuleNotFoundError for a mode that the code does not know."""
    return import_module(f"{__name__}.{mode.runtime}")
