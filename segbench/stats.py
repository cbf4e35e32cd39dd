"""Estimators and intervals: arrays in, numbers out. Which samples count is decided here and nowhere else."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

QUIET = 1.05  # a reading within 5 % of the floor: the two states of the machine lie 1.55 apart
FLOOR_QUANTILE = 0.02  # of the readings in a window: the lowest single one may be a timer's luck
WINDOW_S = 600  # floors are found per window, so that a machine that gets slower is seen and said
MIN_QUIET = 3  # quiet samples that a figure needs
# By how much quiet figures of sessions some minutes apart differ in common (standard deviation of logarithms): neither
# the yardsticks nor the rounds of one session see it (notes.md, from benchmarks/repeatability).
DRIFT = 0.02
LONG_MS = 300  # an inference that outlasts the machine's states: what two readings say of it is little (notes.md)
CONTENT = 1 / 3  # share of its budget after which a visit is content with MIN_QUIET of them
# By which powers of what the two yardsticks lose a network gets slower: middle values (notes.md).
NETWORK_LOSES = (0.85, 0.3)


def window_floors(times_s: ArrayLike, readings_ms: ArrayLike) -> NDArray:
    """Low quantile of both yardsticks' readings per window. Times (N,), readings (N, 2) -> (windows, 2) in ms."""
    readings = np.asarray(readings_ms, dtype=float).reshape(-1, 2)
    windows = (np.asarray(times_s, dtype=float) // WINDOW_S).astype(int)
    counts = {window: int((windows == window).sum()) for window in np.unique(windows)}
    # A window with few readings has no low quantile to speak of; the only one there is must do.
    full = [window for window, count in counts.items() if count >= 50] or list(counts)
    return np.array([np.quantile(readings[windows == window], FLOOR_QUANTILE, axis=0) for window in full])


def floor(times_s: ArrayLike, readings_ms: ArrayLike) -> NDArray:
    """What both yardsticks take in a session when nothing disturbs them: the lowest of the windows' floors, (2,) ms."""
    return window_floors(times_s, readings_ms).min(axis=0)


def quiet(readings_ms: ArrayLike, floor_ms: ArrayLike) -> NDArray:
    """Which samples lie between two good readings. Readings (N + 1, 2), floor (2,) -> bool (N,)."""
    good = (np.asarray(readings_ms, dtype=float).reshape(-1, 2) <= np.asarray(floor_ms) * QUIET).all(axis=1)
    return good[:-1] & good[1:]


def scaled(
    samples_ms: ArrayLike, readings_ms: ArrayLike, floor_ms: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What every sample lost (the larger of both yardsticks' losses beside it, as a logarithm), and its latency in ms
    without what a network loses then. Samples (N,), readings (N + 1, 2), floor (2,) -> (N,), (N,)."""
    readings = np.asarray(readings_ms, dtype=float).reshape(-1, 2) / np.asarray(floor_ms)
    lost = np.log(np.maximum((readings[:-1] + readings[1:]) / 2, 1))
    return lost.max(axis=1), np.asarray(samples_ms) * np.exp(-lost @ NETWORK_LOSES)


def calmest(lost: NDArray[np.float64], scaled_ms: NDArray[np.float64]) -> float:
    """Median of the scaled latencies of the twentieth of the samples that lost least, of three at least, in ms."""
    order = np.argsort(lost, kind="stable")[: max(MIN_QUIET, len(lost) // 20)]
    return float(np.median(scaled_ms[order]))


def geometric_mean(values: ArrayLike) -> float:
    return float(np.exp(np.log(np.asarray(values, dtype=float)).mean()))


def half_width(values: ArrayLike, confidence: float = 0.95) -> float:
    """Half of Student's t-interval of the mean logarithm: 0.02 for +- 2 %. NaN for fewer than two values.

    Over rounds, never over the samples of one process: those share the process's luck.
    """
    from scipy import stats

    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) < 2:
        return float("nan")
    return float(stats.t.ppf((1 + confidence) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))


def normal_width(deviation: float, confidence: float = 0.95) -> float:
    """Half of the interval that a known standard deviation gives."""
    return NormalDist().inv_cdf((1 + confidence) / 2) * deviation


def around(middle: float, half_width: float) -> tuple[float, float]:
    """(low, high) of a half width on the scale of logarithms."""
    return float(middle * np.exp(-half_width)), float(middle * np.exp(half_width))


def interval(values: ArrayLike) -> tuple[float, float]:
    """Student's t-interval around the geometric mean, as (low, high); NaN for fewer than two values."""
    return around(geometric_mean(values), half_width(values))
