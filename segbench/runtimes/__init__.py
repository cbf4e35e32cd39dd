"""The runtimes: a network and its input in, a call out. To add a runtime, add a module here that defines

PACKAGES: tuple[str, ...]
    What it needs installed beside torch; the first is imported in the process that forks the runs.
prepare(network, example, mode, threads, cache, calibration=None) -> Prepared
    Make a network run on an input, (B, C, H, W) or (B, C, D, H, W), and run it once. `cache` is a folder;
    `calibration` gives for an input others like it, by which INT8 chooses its ranges, or else inputs.calibration does.
    Raises whatever the network or the runtime raises.

and, where a default does not fit, functions that are called like methods of `Runtime`. Only `preload` and `prepare` may
import anything heavy: the sweeping process asks the others. Nothing outside a runtime reads a mode's options. To add a
mode, add its line in segbench/modes.py.
"""

from collections.abc import Callable, Iterable, Sequence
from ctypes.util import find_library
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..cases import Case
from ..machine import Machine, installed
from ..modes import NHWC, Mode

# After the reference workload torch's OpenMP threads would spin for 7 ms on a core that a runtime's own threads need:
# samples between reference times were 16 to 18 % slower than back-to-back ones. With 20000 they are within 1 to 2 % of
# these, and reference times as in torch's own processes; with 2000 they were 20 to 30 % longer where a hypervisor wakes
# threads slowly.
SHORT_SPIN = {"GOMP_SPINCOUNT": "20000"}

# Allocators that a process can be started with: the library, and Debian's package of it.
PRELOADED = {"jemalloc": ("jemalloc", "libjemalloc2"), "tcmalloc": ("tcmalloc_minimal", "libtcmalloc-minimal4")}

Calibration = Callable[[Any], list[Any]]  # an input -> others like it


class Prepared(NamedTuple):
    call: Callable[[], Any]  # one inference, and what is timed
    feed: Callable[[Any], None]  # another input of the same shape, a torch tensor, for the calls that follow
    outputs: Callable[[Any], Sequence[Any]]  # what a call returned -> torch tensors, logits or the feature map first
    ran: Callable[[], dict[str, str]]  # what ran, as the runtime itself tells it: precision, threads
    steps_s: dict[str, float]  # seconds of each step of preparing from nothing: export, convert, compile
    cache: str  # "cold" or "warm": whether the result was on disk; "" where nothing is made
    saved_s: float = 0.0  # of those seconds, what this process did not spend: steps whose result was on disk
    folder: Path | None = None  # of the cache, with what was converted: the artefact
    unpack: Callable[[], Any] | None = None  # the part of `call` that copies the outputs into planes, once more

    @property
    def model_mb(self) -> float | None:
        """Of the artefact on disk; None where nothing is converted."""
        return None if self.folder is None else size_of(self.folder) / 1e6

    def then(self, last_step: Callable[[Any], Any]) -> "Prepared":
        """Followed by a step that makes the only output of the first one."""

        def call() -> Any:
            return last_step(self.outputs(self.call())[0])

        call()
        return self._replace(call=call, outputs=lambda output: [output], unpack=None)


class Runtime:
    """A module of this folder, with defaults for what it does not define."""

    def __init__(self, module: ModuleType):
        self.packages: tuple[str, ...] = module.PACKAGES
        self.prepare: Callable[..., Prepared] = module.prepare
        for name in ("missing", "versions", "environment", "preload"):
            if hasattr(module, name):
                setattr(self, name, getattr(module, name))

    def missing(self, mode: Mode, case: Case, machine: Machine) -> str:
        """Why a mode cannot run a case on a machine, "" where it can."""
        return lacking(self.packages)

    def versions(self) -> dict[str, str]:
        """The builds that its numbers depend on, by package."""
        return installed(("torch", *self.packages))

    def environment(self, threads: int) -> dict[str, str]:
        """What a process needs set before it starts."""
        return SHORT_SPIN

    def preload(self, mode: Mode) -> None:
        """Import what every run needs, in the process that forks them."""
        import_module(self.packages[0])


def of_mode(mode: Mode) -> Runtime:
    """Its runtime. Raises ModuleNotFoundError for a mode that the code does not know."""
    return Runtime(import_module(f"{__name__}.{mode.runtime}"))


def missing(mode: Mode, case: Case, machine: Machine) -> str:
    """Why a mode cannot run a case on a machine, "" where it can."""
    if mode.allocator in PRELOADED and not library(mode.allocator):
        name, package = PRELOADED[mode.allocator]
        return f"not installed: lib{name} (Debian's package {package})"
    if mode.options.get(NHWC) and len(case.size) == 3:
        return "+nhwc is for images"
    return of_mode(mode).missing(mode, case, machine)


def environment(mode: Mode, threads: int) -> dict[str, str]:
    """What a process of a mode needs set before it starts."""
    preload = {"LD_PRELOAD": library(mode.allocator)} if mode.allocator in PRELOADED else {}
    return of_mode(mode).environment(threads) | preload


@cache
def library(allocator: str) -> str:
    """File name of an allocator to preload, "" where there is none."""
    return find_library(PRELOADED[allocator][0]) or ""


def lacking(packages: Iterable[str]) -> str:
    """What of the packages is not installed, in words; "" where all are."""
    names = [name for name, version in installed(packages).items() if version == "missing"]
    return f"not installed: {', '.join(names)} (uv pip install {' '.join(names)})" if names else ""


def size_of(folder: Path) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
