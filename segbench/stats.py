"""Which samples count, and how sure a mean is: arrays in, numbers out."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

QUIET = 1.05  # a reading within 5 % of the floor: the two states of the machine lie 1.55 apart
FLOOR_QUANTILE = 0.02  # of the readings in a window: the lowest single one may be a timer's luck
WINDOW_S = 600  # floors are found per window, so that a machine that gets slower is seen and said
FULL_WINDOW = 50  # readings; a window with fewer has no low quantile to speak of
MIN_QUIET = 3  # quiet samples that an estimate needs
# By how much quiet estimates of sessions some minutes apart differ in common (standard deviation of logarithms):
# neither the yardsticks nor the rounds of one session see it (notes.md, from benchmarks/repeatability).
DRIFT = 0.02
LONG_MS = 300  # an inference that outlasts the machine's states: two readings say little about it (notes.md)
CONTENT = 1 / 3  # share of its budget after which a visit is content with MIN_QUIET of them
# By which powers of what the two yardsticks lose a network gets slower: middle values (notes.md).
NETWORK_LOSES = (0.85, 0.3)


class Floors:
    """What both yardsticks take when nothing disturbs them, kept up to date while readings of a session come in."""

    def __init__(self) -> None:
        self.readings: dict[int, list[NDArray]] = {}  # window -> blocks of (N, 2), in ms
        self.quantiles: dict[int, NDArray] = {}
        self.floor_ms: NDArray | None = None

    def add(self, time_s: float, readings_ms: ArrayLike) -> None:
        """Readings (N, 2) in ms. All of a visit count as taken at its start: windows are far longer than visits."""
        window = int(time_s // WINDOW_S)
        self.readings.setdefault(window, []).append(np.asarray(readings_ms, dtype=float).reshape(-1, 2))
        self.quantiles.pop(window, None)
        self.floor_ms = None

    def windows(self) -> NDArray:
        """Low quantile of both yardsticks' readings per window, (windows, 2) in ms."""
        sizes = {window: sum(map(len, blocks)) for window, blocks in self.readings.items()}
        # Where no window is full, what there is must do.
        counted = [window for window, size in sizes.items() if size >= FULL_WINDOW] or list(sizes)
        for window in counted:
            if window not in self.quantiles:
                blocks = np.concatenate(self.readings[window])
                self.quantiles[window] = np.quantile(blocks, FLOOR_QUANTILE, axis=0)
        return np.array([self.quantiles[window] for window in counted])

    def lowest(self) -> NDArray:
        """The lowest of the windows' floors, (2,) in ms."""
        if self.floor_ms is None:
            self.floor_ms = self.windows().min(axis=0)
        return self.floor_ms


def quiet(readings_ms: ArrayLike, floor_ms: ArrayLike, bounds: ArrayLike = QUIET) -> NDArray:
    """Which samples lie between two good readings. Readings (N + 1, 2), floor (2,) -> bool (N,)."""
    readings = np.asarray(readings_ms, dtype=float).reshape(-1, 2)
    good = (readings <= np.asarray(floor_ms) * bounds).all(axis=1)
    return good[:-1] & good[1:]


def scaled(
    samples_ms: ArrayLike, readings_ms: ArrayLike, floor_ms: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What every sample lost (the larger of both yardsticks' losses beside it, as a logarithm), and its latency in ms
    without what a network loses then. Samples (N,), readings (N + 1, 2), floor (2,) -> (N,), (N,)."""
    readings = np.asarray(readings_ms, dtype=float).reshape(-1, 2) / np.asarray(floor_ms)
    losses = np.log(np.maximum((readings[:-1] + readings[1:]) / 2, 1))
    return losses.max(axis=1), np.asarray(samples_ms) * np.exp(-losses @ NETWORK_LOSES)


def calmest(losses: NDArray[np.float64], scaled_ms: NDArray[np.float64]) -> float:
    """Median of the scaled latencies of the twentieth of the samples that lost least, of three at least, in ms."""
    order = np.argsort(losses, kind="stable")[: max(MIN_QUIET, len(losses) // 20)]
    return float(np.median(scaled_ms[order]))


def geometric_mean(values: ArrayLike) -> float:
    return float(np.exp(np.log(np.asarray(values, dtype=float)).mean()))


def half_width(values: ArrayLike, confidence: float = 0.95) -> float:
    """Half of Student's t-interval of the mean logarithm: 0.02 for +- 2 %. NaN for fewer than two values.

    Over rounds, never over the samples of one process: those share the process's luck.
    """
    from scipy.special import stdtrit  # Student's quantile; scipy.stats takes half a second to import

    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) < 2:
        return float("nan")
    return float(stdtrit(len(logs) - 1, (1 + confidence) / 2) * logs.std(ddof=1) / np.sqrt(len(logs)))


def normal_width(deviation: float, confidence: float = 0.95) -> float:
    """Half of the interval that a known standard deviation gives."""
    return NormalDist().inv_cdf((1 + confidence) / 2) * deviation


def around(middle: float, half_width: float) -> tuple[float, float]:
    """(low, high) of a half width on the scale of logarithms."""
    return float(middle * np.exp(-half_width)), float(middle * np.exp(half_width))


def interval(values: ArrayLike) -> tuple[float, float]:
    """Student's t-interval around the geometric mean, as (low, high); NaN for fewer than two values."""
    return around(geometric_mean(values), half_width(values))
