"""Which estimator, which settings: what else could have been made of the raw samples of repetitions. Journals of
benchmarks/repeatability in, data frames out.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from . import figures, stats
from .cases import Case, Visit
from .journal import Journal
from .repeats import by_repetition


class Seen(NamedTuple):
    """One visit as arrays."""

    samples_ms: np.ndarray  # (N,)
    readings: np.ndarray  # (N + 1, 2), over the floors
    sample_s: np.ndarray  # (N,): what each sample cost, with the reading after it


def seen(visit: Visit, floors: dict) -> Seen:
    readings_ms = np.array(visit.readings_ms)
    samples_ms = np.array(visit.samples_ms)
    cost = (samples_ms * visit.per_sample + 2 * readings_ms[1:].sum(axis=1)) / 1e3  # a reading is the better of two
    return Seen(samples_ms, readings_ms / floors[visit.session, visit.case.threads], cost)


def pooled(visits: list[Seen]) -> tuple[np.ndarray, np.ndarray]:
    """All samples (N,) and what the yardsticks took beside each, over their floors, (N, 2)."""
    beside = [(of.readings[:-1] + of.readings[1:]) / 2 for of in visits]
    return np.concatenate([of.samples_ms for of in visits]), np.concatenate(beside)


def quiet_samples(of: Seen, bounds: tuple[float, float] = (stats.QUIET, stats.QUIET)) -> np.ndarray:
    good = (of.readings <= bounds).all(axis=1)
    return of.samples_ms[good[:-1] & good[1:]]


def quiet_rounds(visits: list[Seen], bounds: tuple[float, float] = (stats.QUIET, stats.QUIET)) -> list[float]:
    """Medians of the quiet samples of visits that have any, as the tables' intervals take them; scaled where none."""
    kept = [samples for of in visits if len(samples := quiet_samples(of, bounds))]
    if sum(map(len, kept)) < stats.MIN_QUIET:
        return [scaled([of]) for of in visits]
    return [float(np.median(samples)) for samples in kept]


def quiet_pooled(visits: list[Seen], bounds: tuple[float, float] = (stats.QUIET, stats.QUIET)) -> float:
    """Median of the quiet samples of all visits; as met where there are too few."""
    samples = np.concatenate([quiet_samples(of, bounds) for of in visits])
    return float(np.median(samples)) if len(samples) >= stats.MIN_QUIET else over_rounds(visits)


def quiet_or_scaled(visits: list[Seen], bounds: tuple[float, float] = (stats.QUIET, stats.QUIET)) -> float:
    """Median of the quiet samples of all visits, scaled where there are too few: what the tables have of
    inferences below 0.3 s."""
    samples = np.concatenate([quiet_samples(of, bounds) for of in visits])
    return float(np.median(samples)) if len(samples) >= stats.MIN_QUIET else scaled(visits)


def quiet_mean(visits: list[Seen]) -> float:
    return stats.geometric_mean(quiet_rounds(visits))


def quiet_median(visits: list[Seen]) -> float:
    return float(np.median(quiet_rounds(visits)))


def over_rounds(visits: list[Seen]) -> float:
    return float(np.median([np.median(of.samples_ms) for of in visits]))


def calmest(visits: list[Seen]) -> float:
    """Median of the tenth of the samples beside which the yardsticks were fastest."""
    samples, beside = pooled(visits)
    order = np.argsort(beside.max(axis=1), kind="stable")
    return float(np.median(samples[order[: max(stats.MIN_QUIET, len(order) // 10)]]))


def regressed(visits: list[Seen]) -> float:
    """Log latency on the logs of both yardsticks by least squares, told at their floors."""
    samples, beside = pooled(visits)
    logs = np.column_stack([np.ones(len(samples)), np.log(beside)])
    return float(np.exp(np.linalg.lstsq(logs, np.log(samples), rcond=None)[0][0]))


def scaled(visits: list[Seen]) -> float:
    """Of the calmest twentieth of the samples, without what the yardsticks say that they lost."""
    parts = [stats.scaled(of.samples_ms, of.readings, (1, 1)) for of in visits]
    return stats.calmest(*(np.concatenate(part) for part in zip(*parts, strict=True)))


ESTIMATORS: dict[str, Callable[[list[Seen]], float]] = {
    "mean": lambda visits: float(np.mean(pooled(visits)[0])),
    "median": lambda visits: float(np.median(pooled(visits)[0])),
    "minimum": lambda visits: float(np.min(pooled(visits)[0])),
    "median of the rounds' fastest": lambda visits: float(np.median([of.samples_ms.min() for of in visits])),
    "lower quartile": lambda visits: float(np.quantile(pooled(visits)[0], 0.25)),
    "median over rounds": over_rounds,
    "median of the calmest tenth": calmest,
    "regressed on the yardsticks": regressed,
    "calmest twentieth, scaled": scaled,
    "quiet medians, median over rounds": quiet_median,
    "quiet medians, mean over rounds": quiet_mean,
    "quiet samples of all rounds, median": quiet_pooled,
    "the same, scaled where there are none": quiet_or_scaled,
}


BY_QUIET_SAMPLES = (quiet_median, quiet_mean, quiet_pooled, quiet_or_scaled)


def of_quiet_protocol(journal: Journal) -> Iterator[tuple[Case, dict[int, list[Seen]]]]:
    """Case -> repetition -> its visits."""
    floors = figures.session_floors(journal)
    for case, of_case in by_repetition(journal).items():
        if case.protocol == "quiet" and of_case:
            yield case, {number: [seen(v, floors) for v in visits.values()] for number, visits in of_case.items()}


def with_drift(rounds: list[float]) -> float:
    """Half width of the tables' interval."""
    return float(np.hypot(stats.half_width(rounds), stats.normal_width(stats.DRIFT)))


def judged(journal: Journal, estimate: Callable[[list[Seen]], float]) -> dict[str, float]:
    """An estimator's spread over the repetitions, worst and middle case; bias in % against the machine's best state,
    which is the quiet figure of all repetitions together; coverage of its t-interval over the rounds."""
    spreads, biases, hits = [], [], []
    for _, of_case in of_quiet_protocol(journal):
        latencies = np.array([estimate(visits) for visits in of_case.values()])
        best = quiet_pooled([of for visits in of_case.values() for of in visits])
        spreads.append(latencies.max() / latencies.min())
        biases.append((np.median(latencies) / best - 1) * 100)
        for index, visits in enumerate(of_case.values()):
            rounds = quiet_rounds(visits) if estimate in BY_QUIET_SAMPLES else [estimate([of]) for of in visits]
            low, high = stats.around(estimate(visits), with_drift(rounds))
            hits.append(low <= np.median(np.delete(latencies, index)) <= high)
    return {
        "spread, worst": max(spreads),
        "spread, median": float(np.median(spreads)),
        "bias, % (median)": float(np.median(biases)),
        "bias, % (largest)": max(biases, key=abs),
        "coverage": float(np.mean(hits)),
    }


def estimators(journals: list[Journal]) -> pd.DataFrame:
    """A row per machine and estimator, over all cases."""
    return pd.DataFrame(
        {"machine": journal.header.name, "estimator": name, **judged(journal, estimate)}
        for journal in journals
        for name, estimate in ESTIMATORS.items()
    )


def shortened(visits: list[Seen], rounds: int, wanted: int, budget_s: float, bounds: tuple[float, float]) -> list[Seen]:
    """The visits as they would have been with fewer rounds, quiet samples or seconds."""
    found = []
    for of in visits[:rounds]:
        good = (of.readings <= bounds).all(axis=1)
        enough = (np.cumsum(good[:-1] & good[1:]) >= wanted) | (np.cumsum(of.sample_s) > budget_s)
        last = int(np.argmax(enough)) + 1 if enough.any() else len(enough)
        found.append(Seen(of.samples_ms[:last], of.readings[: last + 1], of.sample_s[:last]))
    return found


ANY = float("inf")
SETTINGS = {  # (rounds, quiet samples per visit, budget in s, bounds of both yardsticks): one thing changed at a time
    "as measured": (9, 99, 99.0, (stats.QUIET, stats.QUIET)),
    "both within 2 %": (9, 99, 99.0, (1.02, 1.02)),
    "both within 3 %": (9, 99, 99.0, (1.03, 1.03)),
    "both within 10 %": (9, 99, 99.0, (1.10, 1.10)),
    "both within 25 %": (9, 99, 99.0, (1.25, 1.25)),
    "convolution alone, 5 %": (9, 99, 99.0, (stats.QUIET, ANY)),
    "GEMM alone, 5 %": (9, 99, 99.0, (ANY, stats.QUIET)),
    "10 quiet samples a visit": (9, 10, 99.0, (stats.QUIET, stats.QUIET)),
    "5 quiet samples a visit": (9, 5, 99.0, (stats.QUIET, stats.QUIET)),
    "2 s a visit": (9, 99, 2.0, (stats.QUIET, stats.QUIET)),
    "1 s a visit": (9, 99, 1.0, (stats.QUIET, stats.QUIET)),
    "2 rounds": (2, 99, 99.0, (stats.QUIET, stats.QUIET)),
    "1 round": (1, 99, 99.0, (stats.QUIET, stats.QUIET)),
}


def settings(journals: list[Journal]) -> pd.DataFrame:
    """A row per machine and setting: what the quiet figure would have been, and what the visits would have cost."""
    rows = []
    for journal in journals:
        cases = [*of_quiet_protocol(journal)]
        for name, (rounds, wanted, budget_s, bounds) in SETTINGS.items():
            cut = [[shortened(v, rounds, wanted, budget_s, bounds) for v in of.values()] for _, of in cases]
            spreads = []
            for of_case in cut:
                latencies = [quiet_or_scaled(visits, bounds) for visits in of_case]
                spreads.append(max(latencies) / min(latencies))
            single = [of for of_case in cut for visits in of_case for of in visits]
            kept = [len(quiet_samples(of, bounds)) for of in single]
            rows.append(
                {
                    "machine": journal.header.name,
                    "setting": name,
                    "spread, worst": max(spreads),
                    "spread, median": float(np.median(spreads)),
                    "quiet, %": sum(kept) / sum(len(of.samples_ms) for of in single) * 100,
                    "visits without, %": float(np.mean(np.array(kept) < stats.MIN_QUIET)) * 100,
                    "s a visit": float(np.mean([of.sample_s.sum() for of in single])),
                }
            )
    return pd.DataFrame(rows)


def stopping(
    journals: list[Journal], widths: tuple[float, ...] = (0.02, 0.05), least: int = 5, orders: int = 200
) -> pd.DataFrame:
    """What --until does to coverage: rounds of all repetitions in random orders, stopped after `least` or more as soon
    as the interval is narrow enough; how often it then contains the median of all rounds."""
    random = np.random.default_rng(0)
    rows = []
    for journal in journals:
        for until in widths:
            hits, used = [], []
            for _, of_case in of_quiet_protocol(journal):
                latencies = np.array(quiet_rounds([of for visits in of_case.values() for of in visits]))
                for _ in range(orders):
                    taken, count = random.permutation(latencies), least
                    while count < len(taken) and stats.half_width(taken[:count]) > until:
                        count += 1
                    low, high = stats.around(stats.geometric_mean(taken[:count]), with_drift(taken[:count]))
                    hits.append(low <= np.median(latencies) <= high)
                    used.append(count)
            name = journal.header.name
            rows.append({"machine": name, "until, %": until * 100, "coverage": np.mean(hits), "rounds": np.mean(used)})
    return pd.DataFrame(rows)


def slopes(journals: list[Journal], bound: float = 1.12) -> pd.DataFrame:
    """By which powers of what the yardsticks lose each case gets slower: least squares on the logarithms of the samples
    beside which both stay within `bound`."""
    rows = []
    for journal in journals:
        for case, of_case in of_quiet_protocol(journal):
            samples, beside = pooled([of for visits in of_case.values() for of in visits])
            near = (beside <= bound).all(axis=1)
            logs = np.column_stack([np.ones(near.sum()), np.log(beside[near])])
            _, convolution, gemm = np.linalg.lstsq(logs, np.log(samples[near]), rcond=None)[0]
            row = {"machine": journal.header.name, "model": case.model, "mode": case.mode, "samples": near.sum()}
            rows.append(row | {"convolution": convolution, "GEMM": gemm})
    return pd.DataFrame(rows)


def drift(journals: list[Journal]) -> pd.DataFrame:
    """How far quiet figures of repetitions lie apart (standard deviation of logarithms, %): what all cases of a
    repetition have in common, and the rest; and how far the processes of a repetition lie from their mean."""
    rows = []
    for journal in journals:
        cases = [of_case for _, of_case in of_quiet_protocol(journal)]
        numbers = sorted(set.intersection(*(set(of_case) for of_case in cases)))
        logs = np.log([[quiet_or_scaled(of_case[number]) for number in numbers] for of_case in cases])
        apart = logs - logs.mean(axis=1, keepdims=True)
        common = apart.mean(axis=0)
        row = {"machine": journal.header.name, "cases": len(cases), "repetitions": len(numbers)}
        row |= {"in common, %": common.std(ddof=1) * 100, "the rest, %": (apart - common).std(ddof=1) * 100}
        rounds = [np.log(quiet_rounds(visits)) for of_case in cases for visits in of_case.values()]
        rounds = [of for of in rounds if len(of) > 1]
        variance = sum(((of - of.mean()) ** 2).sum() for of in rounds) / sum(len(of) - 1 for of in rounds)
        row["within, per process, %"] = variance**0.5 * 100
        rows.append(row)
    return pd.DataFrame(rows)
