"""The rule of 6c4739d, to compare with: samples are quiet where both yardsticks are within 5 % of the session's floor;
their median, or, where there are none, the calmest samples scaled by what the yardsticks lost."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from segbench import stats
from segbench.cases import Visit
from segbench.health import seconds_since_epoch
from segbench.journal import Journal

QUIET = 1.05  # a reading within 5 % of the floor
FLOOR_QUANTILE, WINDOW_S, FULL_WINDOW = 0.02, 600, 50  # of the readings in a window of ten minutes
MIN_QUIET = 3  # samples
DRIFT = 0.02  # standard deviation of what sessions differ by
NETWORK_LOSES = (0.85, 0.3)  # powers of what the yardsticks lose by which a network gets slower

Floors = dict[tuple[str, int], NDArray]  # (session, threads) -> (2,) ms


@cache
def session_floors(journal: Journal) -> Floors:
    """The lowest of the windows' floors."""
    windows: dict[tuple, dict[int, list]] = {}
    for line in journal.with_readings():
        window = int(seconds_since_epoch(line.started) // WINDOW_S)
        windows.setdefault((line.session, line.threads), {}).setdefault(window, []).extend(line.readings_ms)
    floors = {}
    for key, blocks in windows.items():
        full = [block for block in blocks.values() if len(block) >= FULL_WINDOW] or list(blocks.values())
        floors[key] = np.min([np.quantile(block, FLOOR_QUANTILE, axis=0) for block in full], axis=0)
    return floors


def estimate(visits: list[Visit], floors: Floors) -> dict:
    """Latency and interval in ms of one case, and which samples they are from."""
    quiet, losses, scaled, per_visit = [], [], [], []
    for visit in visits:
        samples, readings = np.array(visit.samples_ms), np.array(visit.readings_ms)
        over = readings / floors[visit.session, visit.case.threads]
        good = (over <= QUIET).all(axis=1)
        quiet.append(samples[good[:-1] & good[1:]])
        lost = np.log(np.maximum((over[:-1] + over[1:]) / 2, 1))
        losses.append(lost.max(axis=1))
        scaled.append(samples * np.exp(-lost @ NETWORK_LOSES))
    samples = np.concatenate([visit.samples_ms for visit in visits])
    if samples.min() > stats.LONG_MS:
        name, latency, per_visit = "fastest", samples.min(), [min(visit.samples_ms) for visit in visits]
    elif sum(map(len, quiet)) >= MIN_QUIET:
        name, latency = "quiet", np.median(np.concatenate(quiet))
        per_visit = [np.median(some) for some in quiet if len(some)]
    else:
        name, latency = "scaled", calmest(np.concatenate(losses), np.concatenate(scaled))
        per_visit = [calmest(*pair) for pair in zip(losses, scaled, strict=True)]
    low, high = stats.interval(per_visit)
    width = np.hypot(np.log(high / low) / 2, 1.959964 * DRIFT)
    low, high = stats.around(latency, width)
    share = sum(map(len, quiet)) / len(samples)
    return {"latency_ms": float(latency), "low_ms": low, "high_ms": high, "estimator": name, "quiet_share": share}


def calmest(losses: NDArray, scaled_ms: NDArray) -> float:
    """Median of the twentieth of the samples that lost least, of three at least."""
    order = np.argsort(losses, kind="stable")[: max(MIN_QUIET, len(losses) // 20)]
    return float(np.median(scaled_ms[order]))
