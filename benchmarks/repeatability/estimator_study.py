"""Which estimator, which settings: what else could have been made of the raw samples of repetitions. Results of this
benchmark in, data frames out.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from repetitions import by_repetition

from segbench import estimates, stats
from segbench.cases import Case, Visit
from segbench.journal import Journal, read_all
from segbench.tables import Results

HERE = Path(__file__).resolve().parent
REPEATED = 3  # sessions that a spread of long inferences needs
ANY = float("inf")
Bounds = tuple[float, float]
QUIET: Bounds = (stats.QUIET, stats.QUIET)


class Seen(NamedTuple):
    """One visit as arrays."""

    samples_ms: np.ndarray  # (N,)
    readings: np.ndarray  # (N + 1, 2), over the floors
    sample_s: np.ndarray  # (N,): what each sample cost, with the reading after it


def seen(visit: Visit, floors: dict) -> Seen:
    readings_ms = np.array(visit.readings_ms)
    samples_ms = np.array(visit.samples_ms)
    cost = (samples_ms * visit.per_sample + 2 * readings_ms[1:].sum(axis=1)) / 1e3  # a reading is the better of two
    return Seen(samples_ms, readings_ms / floors[visit.session, visit.case.threads].lowest(), cost)


def pooled(visits: list[Seen]) -> tuple[np.ndarray, np.ndarray]:
    """All samples (N,) and what the yardsticks took beside each, over their floors, (N, 2)."""
    beside = [(visit.readings[:-1] + visit.readings[1:]) / 2 for visit in visits]
    return np.concatenate([visit.samples_ms for visit in visits]), np.concatenate(beside)


def quiet_samples(visit: Seen, bounds: Bounds = QUIET) -> np.ndarray:
    return visit.samples_ms[stats.quiet(visit.readings, (1, 1), bounds)]


def quiet_rounds(visits: list[Seen]) -> list[float]:
    """Medians of the quiet samples of visits that have any, as the tables' intervals take them; scaled where none."""
    kept = [samples for visit in visits if len(samples := quiet_samples(visit))]
    if sum(map(len, kept)) < stats.MIN_QUIET:
        return [scaled([visit]) for visit in visits]
    return [float(np.median(samples)) for samples in kept]


def quiet_pooled(visits: list[Seen]) -> float:
    """Median of the quiet samples of all visits; of all samples where there are too few."""
    samples = np.concatenate([quiet_samples(visit) for visit in visits])
    return float(np.median(samples)) if len(samples) >= stats.MIN_QUIET else over_rounds(visits)


def quiet_or_scaled(visits: list[Seen], bounds: Bounds = QUIET) -> float:
    """Median of the quiet samples of all visits, scaled where there are too few: what the tables have of inferences
    below 0.3 s."""
    samples = np.concatenate([quiet_samples(visit, bounds) for visit in visits])
    return float(np.median(samples)) if len(samples) >= stats.MIN_QUIET else scaled(visits)


def quiet_mean(visits: list[Seen]) -> float:
    return stats.geometric_mean(quiet_rounds(visits))


def quiet_median(visits: list[Seen]) -> float:
    return float(np.median(quiet_rounds(visits)))


def over_rounds(visits: list[Seen]) -> float:
    return float(np.median([np.median(visit.samples_ms) for visit in visits]))


def calmest(visits: list[Seen]) -> float:
    """Median of the tenth of the samples beside which the yardsticks were fastest."""
    samples, beside = pooled(visits)
    order = np.argsort(beside.max(axis=1), kind="stable")
    return float(np.median(samples[order[: max(stats.MIN_QUIET, len(order) // 10)]]))


def regressed(visits: list[Seen]) -> float:
    """Log latency on the logs of both yardsticks by least squares, at their floors."""
    samples, beside = pooled(visits)
    logs = np.column_stack([np.ones(len(samples)), np.log(beside)])
    return float(np.exp(np.linalg.lstsq(logs, np.log(samples), rcond=None)[0][0]))


def scaled(visits: list[Seen]) -> float:
    """Of the calmest twentieth of the samples, without what the yardsticks say that they lost."""
    parts = [stats.scaled(visit.samples_ms, visit.readings, (1, 1)) for visit in visits]
    return stats.calmest(*(np.concatenate(part) for part in zip(*parts, strict=True)))


ESTIMATORS: dict[str, Callable[[list[Seen]], float]] = {
    "mean": lambda visits: float(np.mean(pooled(visits)[0])),
    "median": lambda visits: float(np.median(pooled(visits)[0])),
    "minimum": lambda visits: float(np.min(pooled(visits)[0])),
    "median of the rounds' fastest": lambda visits: float(np.median([visit.samples_ms.min() for visit in visits])),
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


Run = tuple[str, Journal]  # what its rows are called, and the journal


def runs(results: Results) -> list[Run]:
    """The journals, and before those that are committed here the first run, on which choices were made."""
    named = [(journal.name, journal) for journal in results.journals]
    if any(journal.folder.resolve().is_relative_to(HERE) for _, journal in named):
        first = read_all(HERE / "studies" / "first" / "journals")
        named = [(f"{journal.name}, first run", journal) for journal in first] + named
    return named


def of_quiet_protocol(journal: Journal) -> Iterator[tuple[Case, dict[int, list[Seen]]]]:
    """Case -> repetition -> its visits."""
    floors = estimates.session_floors(journal)
    for case, repetitions in by_repetition(journal).items():
        if case.protocol == "quiet" and repetitions:
            yield case, {number: [seen(v, floors) for v in visits] for number, visits in repetitions.items()}


def with_drift(rounds: list[float]) -> float:
    """Half width of the tables' interval."""
    return float(np.hypot(stats.half_width(rounds), stats.normal_width(stats.DRIFT)))


def judged(cases: list[dict[int, list[Seen]]], estimate: Callable[[list[Seen]], float]) -> dict[str, float]:
    """An estimator's spread over the repetitions, worst and middle case; bias in % against the machine's best state,
    which is the quiet estimate of all repetitions together; coverage of its t-interval over the rounds."""
    spreads, biases, hits = [], [], []
    for repetitions in cases:
        latencies = np.array([estimate(visits) for visits in repetitions.values()])
        best = quiet_pooled([visit for visits in repetitions.values() for visit in visits])
        spreads.append(latencies.max() / latencies.min())
        biases.append((np.median(latencies) / best - 1) * 100)
        for index, visits in enumerate(repetitions.values()):
            rounds = quiet_rounds(visits) if estimate in BY_QUIET_SAMPLES else [estimate([visit]) for visit in visits]
            low, high = stats.around(estimate(visits), with_drift(rounds))
            hits.append(low <= np.median(np.delete(latencies, index)) <= high if len(latencies) > 1 else np.nan)
    return {
        "spread, worst": max(spreads),
        "spread, median": float(np.median(spreads)),
        "bias, % (median)": float(np.median(biases)),
        "bias, % (largest)": max(biases, key=abs),
        "coverage": float(np.mean(hits)),
    }


def estimators(results: Results) -> pd.DataFrame:
    """A row per machine and estimator, over all cases."""
    rows = []
    for name, journal in runs(results):
        if cases := [repetitions for _, repetitions in of_quiet_protocol(journal)]:
            rows += [{"machine": name, "estimator": e, **judged(cases, estimate)} for e, estimate in ESTIMATORS.items()]
    return pd.DataFrame(rows)


def shortened(visits: list[Seen], rounds: int, wanted: int, budget_s: float, bounds: Bounds) -> list[Seen]:
    """The visits as they would have been with fewer rounds, quiet samples or seconds."""
    cut = []
    for visit in visits[:rounds]:
        quiet = stats.quiet(visit.readings, (1, 1), bounds)
        enough = (np.cumsum(quiet) >= wanted) | (np.cumsum(visit.sample_s) > budget_s)
        last = int(np.argmax(enough)) + 1 if enough.any() else len(enough)
        cut.append(Seen(visit.samples_ms[:last], visit.readings[: last + 1], visit.sample_s[:last]))
    return cut


SETTINGS = {  # (rounds, quiet samples per visit, budget in s, bounds of both yardsticks): one thing changed at a time
    "as measured": (9, 99, 99.0, QUIET),
    "both within 2 %": (9, 99, 99.0, (1.02, 1.02)),
    "both within 3 %": (9, 99, 99.0, (1.03, 1.03)),
    "both within 10 %": (9, 99, 99.0, (1.10, 1.10)),
    "both within 25 %": (9, 99, 99.0, (1.25, 1.25)),
    "convolution alone, 5 %": (9, 99, 99.0, (stats.QUIET, ANY)),
    "GEMM alone, 5 %": (9, 99, 99.0, (ANY, stats.QUIET)),
    "10 quiet samples a visit": (9, 10, 99.0, QUIET),
    "5 quiet samples a visit": (9, 5, 99.0, QUIET),
    "2 s a visit": (9, 99, 2.0, QUIET),
    "1 s a visit": (9, 99, 1.0, QUIET),
    "2 rounds": (2, 99, 99.0, QUIET),
    "1 round": (1, 99, 99.0, QUIET),
}


def settings(results: Results) -> pd.DataFrame:
    """A row per machine and setting: what the quiet estimate would have been, and what the visits would have cost."""
    rows = []
    for name, journal in runs(results):
        cases = [repetitions for _, repetitions in of_quiet_protocol(journal)]
        for setting, (rounds, wanted, budget_s, bounds) in SETTINGS.items() if cases else ():
            cut = [[shortened(v, rounds, wanted, budget_s, bounds) for v in of_case.values()] for of_case in cases]
            spreads = []
            for repetitions in cut:
                latencies = [quiet_or_scaled(visits, bounds) for visits in repetitions]
                spreads.append(max(latencies) / min(latencies))
            single = [visit for repetitions in cut for visits in repetitions for visit in visits]
            kept = [len(quiet_samples(visit, bounds)) for visit in single]
            rows.append(
                {
                    "machine": name,
                    "setting": setting,
                    "spread, worst": max(spreads),
                    "spread, median": float(np.median(spreads)),
                    "quiet, %": sum(kept) / sum(len(visit.samples_ms) for visit in single) * 100,
                    "visits without, %": float(np.mean(np.array(kept) < stats.MIN_QUIET)) * 100,
                    "s a visit": float(np.mean([visit.sample_s.sum() for visit in single])),
                }
            )
    return pd.DataFrame(rows)


def stopping(
    results: Results, widths: tuple[float, ...] = (0.02, 0.05), least: int = 5, orders: int = 200
) -> pd.DataFrame:
    """What --until does to coverage: rounds of all repetitions in random orders, stopped after `least` or more as soon
    as the interval is narrow enough; how often it then contains the median of all rounds."""
    random = np.random.default_rng(0)
    rows = []
    for name, journal in runs(results):
        cases = [repetitions for _, repetitions in of_quiet_protocol(journal)]
        for until in widths if cases else ():
            hits, used = [], []
            for repetitions in cases:
                latencies = np.array(quiet_rounds([visit for visits in repetitions.values() for visit in visits]))
                for _ in range(orders):
                    taken, count = random.permutation(latencies), least
                    while count < len(taken) and stats.half_width(taken[:count]) > until:
                        count += 1
                    low, high = stats.around(stats.geometric_mean(taken[:count]), with_drift(taken[:count]))
                    hits.append(low <= np.median(latencies) <= high)
                    used.append(count)
            rows.append({"machine": name, "until, %": until * 100, "coverage": np.mean(hits), "rounds": np.mean(used)})
    return pd.DataFrame(rows)


def slopes(results: Results, bound: float = 1.12) -> pd.DataFrame:
    """By which powers of what the yardsticks lose each case gets slower: least squares on the logarithms of the samples
    beside which both stay within `bound`."""
    rows = []
    for name, journal in runs(results):
        for case, repetitions in of_quiet_protocol(journal):
            samples, beside = pooled([visit for visits in repetitions.values() for visit in visits])
            near = (beside <= bound).all(axis=1)
            logs = np.column_stack([np.ones(near.sum()), np.log(beside[near])])
            _, convolution, gemm = np.linalg.lstsq(logs, np.log(samples[near]), rcond=None)[0]
            row = {"machine": name, "model": case.model, "mode": case.mode, "samples": near.sum()}
            rows.append(row | {"convolution": convolution, "GEMM": gemm})
    return pd.DataFrame(rows)


def drift(results: Results) -> pd.DataFrame:
    """How far quiet estimates of repetitions lie apart (standard deviation of logarithms, %): what all cases of a
    repetition have in common, and the rest; and how far the processes of a repetition lie from their mean."""
    rows = []
    for name, journal in runs(results):
        cases = [repetitions for _, repetitions in of_quiet_protocol(journal)]
        numbers = sorted(set.intersection(*(set(repetitions) for repetitions in cases))) if cases else []
        if len(numbers) < 2:
            continue
        logs = np.log([[quiet_or_scaled(repetitions[number]) for number in numbers] for repetitions in cases])
        apart = logs - logs.mean(axis=1, keepdims=True)
        common = apart.mean(axis=0)
        row = {"machine": name, "cases": len(cases), "repetitions": len(numbers)}
        row |= {"in common, %": common.std(ddof=1) * 100, "the rest, %": (apart - common).std(ddof=1) * 100}
        rounds = [np.log(quiet_rounds(visits)) for repetitions in cases for visits in repetitions.values()]
        rounds = [latencies for latencies in rounds if len(latencies) > 1]
        freedom = sum(len(latencies) - 1 for latencies in rounds)
        variance = sum(((latencies - latencies.mean()) ** 2).sum() for latencies in rounds) / max(1, freedom)
        row["within, per process, %"] = variance**0.5 * 100
        rows.append(row)
    return pd.DataFrame(rows)


def long_inferences(results: Results) -> pd.DataFrame:
    """What each estimator makes of inferences of seconds: max/min over the sessions of every 3D case of
    benchmark_official that has REPEATED of them, and the estimate over the median of all samples. Of the committed
    journals alone."""
    rows, committed = [], len(runs(results)) > len(results.journals)
    for journal in read_all(HERE.parents[1] / "journals" / "benchmark_official") if committed else ():
        floors, spreads, levels = estimates.session_floors(journal), defaultdict(list), defaultdict(list)
        for case, visits in journal.by_case().items():
            sessions = defaultdict(list)
            for visit in visits:
                if len(case.size) == 3 and visit.status == "ok" and visit.readings_ms:
                    sessions[visit.session].append(seen(visit, floors))
            if len(sessions) >= REPEATED:
                for name, estimate in ESTIMATORS.items():
                    alone = [estimate(of_session) for of_session in sessions.values()]
                    spreads[name].append(max(alone) / min(alone))
                    levels[name].append(np.median(alone) / np.median([*map(over_rounds, sessions.values())]))
        for name, spread in spreads.items():
            row = {"machine": journal.name, "estimator": name, "cases": len(spread), "spread, worst": max(spread)}
            row |= {"spread, median": np.median(spread), "over the median of all samples": np.median(levels[name])}
            rows.append(row)
    return pd.DataFrame(rows)


TABLES = (estimators, settings, stopping, slopes, drift, long_inferences)
