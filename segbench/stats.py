"""Estimators and intervals: arrays in, numbers out. Which samples count is decided here and nowhere else."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

QUIET = 1.05  # a reading within 5 % of the floor: the two states of the machine lie 1.55 apart
FLOOR_QUANTILE = 0.02  # of the readings in a window: the lowest single one may be a timer's luck
WINDOW_S = 600  # floors are found per window, so that a machine that gets slower is seen and said
MIN_QUIET = 3  # quiet samples that a visit needs for a figure of its own
CONTENT = 1 / 3  # share of its budget after which a visit is content with MIN_QUIET of them
LONG_MS = 300  # inferences that outlast the machine's states: readings around them say little


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


def geometric_mean(values: ArrayLike) -> float:
    return float(np.exp(np.log(np.asarray(values, dtype=float)).mean()))


def interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t-interval of the mean logarithm, as (low, high); NaN for fewer than two values.

    Over rounds, never over the samples of one process: those share the process's luck.
    """
    from scipy import stats

    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + confidence) / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    return float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def half_width(values: ArrayLike) -> float:
    """By which factor the interval's ends lie from its middle, less one: 0.02 for +- 2 %. NaN for fewer than two."""
    low, high = interval(values)
    return (high / low) ** 0.5 - 1
