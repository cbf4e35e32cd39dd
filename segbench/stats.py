"""Which samples count, and how sure a mean is: arrays in, numbers out. The rule is explained in
benchmarks/repeatability/README.md."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BIN = 0.01  # of the histogram of log readings whose first peak is the reference
PEAK = 0.3  # share of the highest peak that the first one has at least
BAND = (0.06, 0.10)  # convolution, GEMM: a reading this far above the reference is still in the band ...
WIDTHS = 2.5  # ... or this many of its left-hand standard deviations, on a machine that scatters more
MIN_SAMPLES = 3  # in the band, that a visit needs
# By which power of what the convolution yardstick reads a network gets slower: what is assumed of a machine, and how
# unsure that is, before its own visits say more (0.7 to 2.4, benchmarks/repeatability/study_machines.csv).
SLOPE, SLOPE_SPREAD = 1.5, 0.5
PRIOR_FREEDOM = 4  # degrees of freedom that the scatter of all cases counts as beside a case's own
BETWEEN = 0.02  # standard deviation of what differs between hours and no reading sees
HOURS = 1.96 * BETWEEN  # what no number of visits brings the half width of a 95 % interval below
OUTLIER = 2.5  # standard deviations from which on a visit counts less
WINDOW_S, FULL_WINDOW, LOW = 600, 50, 0.1  # stretches of a session, the readings and the quantile that stand for one
LONG_MS = 300  # an inference that outlasts the machine's states: two readings say little about it (notes.md)


class Reference(NamedTuple):
    """What the yardsticks, (convolution, GEMM), read on a machine that nothing disturbs, and up to where a reading is
    taken for undisturbed; in ms."""

    level_ms: tuple[float, float]
    bound_ms: tuple[float, float]


def reference(readings_ms: ArrayLike) -> Reference:
    """From the shape of the readings (N, 2): the first peak of their histogram, and its scatter to the left.

    A machine with two states has two peaks, one that scatters has one broad peak; a low quantile, in contrast, is luck.
    """
    levels, bounds = [], []
    for logs, band in zip(np.log(np.asarray(readings_ms, dtype=float).reshape(-1, 2)).T, BAND, strict=True):
        level = first_peak(logs)
        below = logs[(logs <= level) & (logs >= np.quantile(logs, 0.001))]  # the lowest may be a timer's luck
        width = float(np.sqrt(np.mean((below - level) ** 2))) if len(below) else 0.0
        levels.append(float(np.exp(level)))
        bounds.append(float(np.exp(level + max(band, WIDTHS * width))))
    return Reference(tuple(levels), tuple(bounds))


class Readings:
    """Of both yardsticks in one session, with their times."""

    def __init__(self) -> None:
        self.blocks: list[tuple[float, NDArray]] = []

    def add(self, time_s: float, readings_ms: ArrayLike) -> None:
        """Readings (N, 2) in ms. All of a visit count as taken at its start."""
        self.blocks.append((time_s, np.asarray(readings_ms, dtype=float).reshape(-1, 2)))

    def all(self) -> NDArray:
        return np.concatenate([readings for _, readings in self.blocks])

    def drift(self) -> float:
        """By what factor the low quantile of the readings moved between windows, the more of both yardsticks."""
        windows: dict[int, list[NDArray]] = {}
        for time_s, readings in self.blocks:
            windows.setdefault(int(time_s // WINDOW_S), []).append(readings)
        full = [blocks for blocks in map(np.concatenate, windows.values()) if len(blocks) >= FULL_WINDOW]
        if len(full) < 2:
            return 1.0
        low = np.array([np.quantile(readings, LOW, axis=0) for readings in full])
        return float((low.max(axis=0) / low.min(axis=0)).max())


def first_peak(logs: NDArray) -> float:
    """Mean around the first peak of the smoothed histogram that is at least PEAK as high as the highest."""
    low, high = np.quantile(logs, (0.001, 0.995))
    edges = np.arange(low - 5 * BIN, high + 6 * BIN, BIN)
    counts, _ = np.histogram(logs, edges)
    smooth = np.convolve(counts, (0.25, 0.5, 0.25), "same")
    rises = np.diff(smooth, prepend=0) >= 0
    falls = np.diff(smooth, append=0) < 0
    peaks = np.flatnonzero(rises & falls & (smooth >= PEAK * smooth.max()))
    return float(logs[np.abs(logs - (edges[peaks[0]] + BIN / 2)) <= 1.5 * BIN].mean())


def in_band(readings_ms: ArrayLike, bound_ms: ArrayLike) -> NDArray:
    """Which samples lie between two undisturbed readings. Readings (N + 1, 2), bounds (2,) -> bool (N,)."""
    good = (np.asarray(readings_ms, dtype=float).reshape(-1, 2) <= np.asarray(bound_ms)).all(axis=1)
    return good[:-1] & good[1:]


def fitted_slope(levels: list[NDArray], logs: list[NDArray]) -> float:
    """How visits' log latencies go with their levels within a case: least squares over all cases, outliers left out,
    drawn towards SLOPE by as much as the fit is unsure. One array a case."""
    pairs = [(x - x.mean(), y - y.mean()) for x, y in zip(levels, logs, strict=True) if len(x) > 1]
    if not pairs:
        return SLOPE
    x, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
    kept = np.ones(len(x), dtype=bool)
    for _ in range(5):
        if (spread := x[kept] @ x[kept]) == 0:
            return SLOPE
        slope = x[kept] @ y[kept] / spread
        residuals = y - slope * x
        kept = np.abs(residuals) <= 3 * robust_deviation(residuals) + 1e-9
    variance = residuals[kept].var() / (x[kept] @ x[kept]) + 1e-12
    weights = np.array([1 / variance, 1 / SLOPE_SPREAD**2])
    return float(np.clip(weights @ (slope, SLOPE) / weights.sum(), 0, 3))


def robust_deviation(values: ArrayLike) -> float:
    """Standard deviation by the median of the absolute deviations from zero."""
    return float(1.4826 * np.median(np.abs(values)))


class Scatter(NamedTuple):
    """Variance of a visit's log latency over all cases of a machine."""

    variance: float
    freedom: int  # degrees


def scatter(logs: list[NDArray]) -> Scatter:
    """From the visits of every case, outliers cut; one array a case."""
    deviations = [np.sqrt(len(y) / (len(y) - 1)) * (y - np.median(y)) for y in logs if len(y) > 1]
    if not deviations:
        return Scatter(float("nan"), 0)
    values = np.concatenate(deviations)
    cut = 3 * robust_deviation(values)
    return Scatter(float(np.mean(np.clip(values, -cut, cut) ** 2)), sum(len(y) - 1 for y in logs if len(y) > 1))


def mean(logs: ArrayLike, weights: ArrayLike, common: Scatter) -> tuple[float, float]:
    """Robust weighted mean of log latencies (N,), and half of its 95 % interval: Student's t over visits, never over
    the samples of one process, for those share the process's luck. The variance is drawn towards what is `common` to a
    machine's cases, so that two visits have a usable interval; NaN where neither says anything."""
    from scipy.special import stdtrit  # Student's quantile; scipy.stats takes half a second to import

    logs, weights = np.asarray(logs, dtype=float), np.asarray(weights, dtype=float)
    middle = float(np.average(logs, weights=weights))
    own = len(logs) - 1
    prior = min(common.freedom, PRIOR_FREEDOM)
    if own + prior == 0:
        return middle, float("nan")
    for _ in range(5):
        squares = float(np.average((logs - middle) ** 2, weights=weights)) * len(logs)
        variance = (squares + (prior * common.variance if prior else 0)) / (own + prior)
        far = np.abs(logs - middle) / np.sqrt(variance / (weights / weights.max()) + 1e-18)
        robust = weights * np.minimum(1, OUTLIER / np.maximum(far, 1e-9))
        middle = float(np.average(logs, weights=robust))
    error = variance / (robust.sum() / weights.max())
    return middle, float(np.hypot(stdtrit(own + prior, 0.975) * np.sqrt(error), HOURS))


def geometric_mean(values: ArrayLike) -> float:
    return float(np.exp(np.log(np.asarray(values, dtype=float)).mean()))


def around(middle: float, half_width: float) -> tuple[float, float]:
    """(low, high) of a half width on the scale of logarithms."""
    return float(middle * np.exp(-half_width)), float(middle * np.exp(half_width))


def interval(values: ArrayLike) -> tuple[float, float]:
    """Student's t-interval around the geometric mean, as (low, high); NaN for fewer than two values."""
    from scipy.special import stdtrit

    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) < 2:
        return float("nan"), float("nan")
    return around(np.exp(logs.mean()), stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs)))
