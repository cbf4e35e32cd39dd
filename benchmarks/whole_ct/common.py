"""What both ways share: networks, and what is measured of each part."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path

from benchmarks.whole_ct.jobs import Job
from segbench.measure import timing
from segbench.models.volume import Volume, build_volume


class Laps:
    """Seconds, the peak of the resident set and the number of calls, by part. What is inside another part counts as
    its own."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}
        self.peaks_mb: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.outer, self.inner_s = "", 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self.see_peak()
        forget_peak()
        outer, before_s, self.outer, self.inner_s = self.outer, self.inner_s, part, 0.0
        start = time.perf_counter()
        yield
        elapsed = time.perf_counter() - start
        self.see_peak()
        self.spent_s[part] = self.spent_s.get(part, 0) + elapsed - self.inner_s
        self.calls[part] = self.calls.get(part, 0) + 1
        self.outer, self.inner_s = outer, before_s + elapsed

    def see_peak(self) -> None:
        if self.outer:
            self.peaks_mb[self.outer] = max(self.peaks_mb.get(self.outer, 0), peak_mb())

    def of(self, part: str, function: Callable) -> Callable:
        """The function, with each of its calls a lap."""

        @wraps(function)
        def timed(*arguments, **keywords):
            with self(part):
                return function(*arguments, **keywords)

        return timed


def forget_peak() -> None:
    with suppress(OSError):  # sandboxes have no such file: peaks are then of all that was before, too
        Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5)


def peak_mb() -> float:
    return timing.status_kb("VmHWM") * 1024 / 1e6


def network_of(job: Job, number: int) -> Volume:
    """A network with its weights, or random ones. Raises ValueError for weights of another network."""
    plans = job.plans[number]
    return build_volume(job.model, len(plans.names), plans.patch, number, job.weights[number] if job.weights else "")
