"""Which samples count, and how sure a figure is: arrays in, numbers out. The rule is explained in
benchmarks/repeatability/README.md."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BIN = 0.01  # of the histogram of log reference times whose first peak is the reference
PEAK = 0.3  # share of the highest peak that the first one has at least
BAND = (0.08, 0.10)  # convolution, GEMM: a reference time this far above the reference is still valid ...
WIDTHS = 2.5  # ... or this many of its left-hand standard deviations, on a machine that scatters more
MIN_SAMPLES = 3  # valid ones that a run needs, or all of a run with fewer samples
# A network's latency goes with this power of the reference convolution's time, before its own runs say more; and how
# unsure that is: machines 1.0 to 2.9, a runtime or a decoder on one up to 1 less (studies/estimator_kinds.csv).
SLOPE, SLOPE_SPREAD, CLASS_SPREAD = 1.5, 0.5, 0.3
# Variance of a run's log latency before runs of the same cases say more, and the degrees of freedom it counts as.
VARIANCE, FREEDOM = 0.03**2, 4
PRIOR_FREEDOM = 3  # degrees of freedom that the scatter of all cases counts as beside a case's own
OUTLIER = 3  # standard deviations beyond which a run is not one of those that agree
# Standard deviations between sessions: of a case, which no reference time shows (notes.md), and of the level of the
# reference workload (0.5 to 3.1 % in run logs of four sessions and more).
BETWEEN, LEVEL = 0.021, 0.02
BETWEEN_95 = 1.96 * BETWEEN


class Reference(NamedTuple):
    """What the reference workload (convolution, GEMM) takes on an idle machine, and the longest valid time; in ms."""

    level_ms: tuple[float, float]
    bound_ms: tuple[float, float]


def reference(reference_ms: ArrayLike) -> Reference:
    """From the shape of the reference times (N, 2): the first peak of their histogram, and its scatter to the left.

    A machine with two states has two peaks, one that scatters has one broad peak; a low quantile, in contrast, is luck.
    """
    levels, bounds = [], []
    for logs, band in zip(np.log(np.asarray(reference_ms, dtype=float).reshape(-1, 2)).T, BAND, strict=True):
        level = first_peak(logs)
        below = logs[(logs <= level) & (logs >= np.quantile(logs, 0.001))]  # the lowest may be the timer's luck
        width = float(np.sqrt(np.mean((below - level) ** 2))) if len(below) else 0.0
        levels.append(float(np.exp(level)))
        bounds.append(float(np.exp(level + max(band, WIDTHS * width))))
    return Reference(tuple(levels), tuple(bounds))


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


def valid_samples(reference_ms: ArrayLike, bound_ms: ArrayLike) -> NDArray:
    """Which samples lie between two valid reference times. Reference times (N + 1, 2), bounds (2,) -> bool (N,)."""
    valid = (np.asarray(reference_ms, dtype=float).reshape(-1, 2) <= np.asarray(bound_ms)).all(axis=1)
    return valid[:-1] & valid[1:]


def fitted_slope(
    levels: list[NDArray], logs: list[NDArray], prior: float = SLOPE, spread: float = SLOPE_SPREAD
) -> float:
    """Slope of runs' log latencies over their levels within a case: least squares over all cases, outliers left out,
    shrunk towards `prior` as far as the fit is unsure. One array a case."""
    pairs = [(x - x.mean(), y - y.mean()) for x, y in zip(levels, logs, strict=True) if len(x) > 1]
    if not pairs:
        return prior
    x, y = (np.concatenate(side) for side in zip(*pairs, strict=True))
    inliers = np.ones(len(x), dtype=bool)
    for _ in range(5):
        if (squares := x[inliers] @ x[inliers]) == 0:
            return prior
        slope = x[inliers] @ y[inliers] / squares
        residuals = y - slope * x
        inliers = np.abs(residuals) <= OUTLIER * robust_deviation(residuals) + 1e-9
    # Few residuals say little of how unsure the slope is.
    freedom = max(0, int(inliers.sum()) - len(pairs) - 1) + FREEDOM
    variance = (residuals[inliers] @ residuals[inliers] + FREEDOM * VARIANCE) / freedom / (x[inliers] @ x[inliers])
    weights = np.array([1 / variance, 1 / spread**2])
    return float(np.clip(weights @ (slope, prior) / weights.sum(), 0, 3))


def robust_deviation(values: ArrayLike) -> float:
    """Standard deviation by the median of the absolute deviations from zero."""
    return float(1.4826 * np.median(np.abs(values)))


class Scatter(NamedTuple):
    """Variance of a run's log latency over many cases, with its degrees of freedom."""

    variance: float = VARIANCE
    freedom: int = FREEDOM


def scatter(logs: list[NDArray], prior: Scatter = Scatter()) -> Scatter:  # noqa: B008 (a named tuple cannot change)
    """From the runs of every case, outliers cut, shrunk towards `prior`; one array a case."""
    deviations = [np.sqrt(len(y) / (len(y) - 1)) * (y - np.median(y)) for y in logs if len(y) > 1]
    if not deviations:
        return prior
    values = np.concatenate(deviations)
    cut = OUTLIER * robust_deviation(values)
    freedom = sum(len(y) - 1 for y in logs if len(y) > 1)
    counts, weight = freedom + min(prior.freedom, PRIOR_FREEDOM), min(prior.freedom, PRIOR_FREEDOM)
    variance = float(np.mean(np.clip(values, -cut, cut) ** 2))
    return Scatter((freedom * variance + weight * prior.variance) / counts, counts)


def weighted_median(values: NDArray, weights: NDArray) -> float:
    """The median where weights are equal; between two values it is interpolated."""
    order = np.argsort(values)
    places = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(weights.sum() / 2, places, values[order]))


def agreeing_mean(logs: ArrayLike, weights: ArrayLike, common: Scatter) -> tuple[float, float]:
    """Mean of runs' log latencies (N,), and half of its 95 % interval.

    Averaged are the runs that agree with the weighted median. The interval is Student's t over runs, never over the
    samples of one process, which share the process's luck. The variance is shrunk towards that of many cases, so that
    two runs have a usable interval. Where no majority agrees it is the median, and the interval reaches to all.
    """
    from scipy.special import stdtrit  # Student's quantile; scipy.stats takes half a second to import

    logs, weights = np.asarray(logs, dtype=float), np.asarray(weights, dtype=float)
    median = weighted_median(logs, weights)
    distances = np.abs(logs - median)
    agree = distances <= OUTLIER * np.sqrt(common.variance / weights)
    if 2 * weights[agree].sum() <= weights.sum():
        return median, float(distances.max() + 2 * np.sqrt(common.variance))
    logs, weights = logs[agree], weights[agree]
    mean = float(np.average(logs, weights=weights))
    prior = min(common.freedom, PRIOR_FREEDOM)
    freedom = len(logs) - 1 + prior
    squares = float(np.average((logs - mean) ** 2, weights=weights)) * len(logs)
    variance = (squares + prior * common.variance) / freedom / weights.sum()
    return mean, float(stdtrit(freedom, 0.975) * np.sqrt(variance))


def session_half_width(sessions: int) -> float:
    """Half width, as a logarithm, of the difference between so many sessions and the next one."""
    return float(BETWEEN_95 * np.sqrt(1 + 1 / sessions))


def interval_around(middle: float, half_width: float) -> tuple[float, float]:
    """(low, high) of a half width on the scale of logarithms."""
    return float(middle * np.exp(-half_width)), float(middle * np.exp(half_width))


def interval(values: ArrayLike) -> tuple[float, float]:
    """Student's t-interval around the geometric mean, as (low, high); NaN for fewer than two values."""
    from scipy.special import stdtrit

    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) < 2:
        return float("nan"), float("nan")
    return interval_around(np.exp(logs.mean()), stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs)))
