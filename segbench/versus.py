"""Two journals against each other: per case by how much the second is faster, and whether the rounds can tell."""

import numpy as np
import pandas as pd
from scipy import stats as tests

from . import figures, stats
from .cases import Case, Visit
from .journal import Journal

ALIKE = ("size", "batch_size", "threads", "pretrained", "seed")  # or two cases are not comparable
COLUMNS = (
    "model",
    "decoder",
    "mode",
    "allocator",
    "figure",
    "first_ms",
    "second_ms",
    "ratio",
    "low",
    "high",
    "verdict",
)
NAN = float("nan")


def compare(first: Journal, second: Journal, modes: tuple[str, str] = ("", "")) -> pd.DataFrame:
    """A row per case that both hold: the ratio of the latencies, first over second (above 1: the second is faster), its
    95 % interval, and a verdict on the second: faster, slower, not separable, or refused with the reason.

    With `modes` the first's cases under one mode are set against the second's under the other.
    """
    sides = []
    for journal, mode in zip((first, second), modes, strict=True):
        floors = figures.session_floors(journal)
        sides.append(
            {
                (case.model, case.decoder, case.allocator, mode or case.mode): (case, visits, floors)
                for case, visits in journal.by_case().items()
                if case.mode == (mode or case.mode) and case.protocol == "quiet"
            }
        )
    if any(modes):  # two modes under one name
        sides = [{key[:-1]: side[key] for key in side} for side in sides]
    same = first.path == second.path
    return pd.DataFrame(
        [row(sides[0][key], sides[1][key], same) for key in sides[0] if key in sides[1]], columns=COLUMNS
    )


Side = tuple[Case, dict[int, Visit], dict]


def row(first: Side, second: Side, same: bool) -> dict:
    """One pair of cases: the interval of Welch's t-test on the logarithms of the rounds; between two journals, other
    than between two modes of the `same`, with what sessions differ by beyond their rounds."""
    (case, before, floors), (other, after, other_floors) = first, second
    mode = case.mode if case.mode == other.mode else f"{case.mode} / {other.mode}"
    found = dict.fromkeys(COLUMNS, NAN) | {"model": case.model, "decoder": case.decoder, "mode": mode}
    found |= {"allocator": case.allocator, "figure": ""}
    if reason := difference(case, before, other, after):
        return found | {"verdict": f"refused: {reason}"}
    one, two = figures.of_visits(before, floors), figures.of_visits(after, other_floors)
    how = max(figures.per_round(one)[0], figures.per_round(two)[0])  # scaled, unless neither is
    of_visit = f"{how}_ms"
    logs = [np.log(figures.present(getattr(visit, of_visit) for visit in of.values())) for of in (one, two)]
    if min(map(len, logs)) < 2:
        return found | {"verdict": "refused: fewer than two rounds"}
    first_ms, second_ms = (getattr(figures, of_visit)(of) for of in (one, two))
    low, high = tests.ttest_ind(*logs, equal_var=False).confidence_interval()
    width = np.hypot((high - low) / 2, 0 if same else stats.normal_width(2**0.5 * stats.DRIFT))
    low, high = stats.around(first_ms / second_ms, width)
    found |= {"first_ms": first_ms, "second_ms": second_ms, "ratio": first_ms / second_ms, "low": low, "high": high}
    verdict = "faster" if low > 1 else "slower" if high < 1 else "not separable"
    return found | {"figure": how, "verdict": verdict}


def difference(case: Case, visits: dict[int, Visit], other: Case, others: dict[int, Visit]) -> str:
    """Why two cases cannot be compared, "" where they can."""
    for field in ALIKE:
        if getattr(case, field) != getattr(other, field):
            return f"{field} {getattr(case, field)} against {getattr(other, field)}"
    good, others_good = ([v for v in of.values() if v.samples_ms and v.status == "ok"] for of in (visits, others))
    if not good or not others_good:
        return "no figure"
    for field in ("params", "gmacs"):
        here, there = getattr(good[0], field), getattr(others_good[0], field)
        if abs(here - there) > 1e-3 * here:
            return f"{field} {here:g} against {there:g}: another network"
    return ""
