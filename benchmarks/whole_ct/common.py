"""What both ways do to a CT before and behind its networks, and what is measured of each part."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom
from skimage.transform import resize
from torch import Tensor, nn

from benchmarks.whole_ct.jobs import Job
from segbench.measure import timing

CUBIC = 3  # order of the splines that an image is resampled by, in nnU-Net as in TotalSegmentator


class Laps:
    """Seconds and the peak of the resident set, by part."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}
        self.peaks_mb: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        forget_peak()
        start = time.perf_counter()
        yield
        self.spent_s[part] = self.spent_s.get(part, 0) + time.perf_counter() - start
        self.peaks_mb[part] = max(self.peaks_mb.get(part, 0), peak_mb())


def forget_peak() -> None:
    with suppress(OSError):  # sandboxes have no such file: peaks are then of all that was before, too
        Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5)


def peak_mb() -> float:
    return timing.status_kb("VmHWM") * 1024 / 1e6


class Timed(nn.Module):
    """A network, the number of its calls and the seconds that they took."""

    def __init__(self, network: Callable[[Tensor], Tensor], classes: int):
        super().__init__()
        self.network, self.classes, self.calls, self.seconds = network, classes, 0, 0.0

    def forward(self, tile: Tensor) -> Tensor:
        start = time.perf_counter()
        logits = self.network(tile)
        self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - start
        return logits

    def release(self) -> None:
        """Give its memory back to the system: tenths of a second for gigabytes, which count as its own."""
        start = time.perf_counter()
        self.network = None
        self.seconds += time.perf_counter() - start


def as_nnunet(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return resize(values, size, order=CUBIC, mode="edge", anti_aliasing=False, clip=False)


def as_official(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return zoom(values, np.divide(size, values.shape), order=CUBIC, mode="nearest")


IMAGES = {"nnunet": as_nnunet, "official": as_official}


def finish(image: Tensor, volume: np.ndarray, kind: str, job: Job) -> None:
    """Change a resampled image in place: nnU-Net clips what splines overshoot, TotalSegmentator keeps whole Hounsfield
    units."""
    if kind == "nnunet":
        image.clamp_(float(volume.min()), float(volume.max()))
    elif job.intensities:
        image.trunc_()


def normalised(values: Tensor, job: Job, number: int) -> Tensor:
    """Clipped and z-scored by the plans of the job's network of that number. nnU-Net normalises before it resamples,
    TotalSegmentator afterwards."""
    if not job.intensities:
        return values
    low, high, mean, std = job.intensities[number]
    return values.clamp(low, high).sub_(mean).div_(max(std, 1e-8))


def small(labels: Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(labels).astype(np.uint8)


def merge(merged: np.ndarray, labels: np.ndarray, label_among_all: tuple[int, ...]) -> None:
    """As TotalSegmentator does: a later part wins wherever it has a label other than 0. Without `label_among_all`, the
    label of each of its classes among all, labels stay as they are."""
    table = np.array(label_among_all or range(256), np.uint8)[: labels.max() + 1]
    renumbered = table[labels]
    np.copyto(merged, renumbered, where=renumbered != 0)
