"""Two journals against each other: per case by how much the second is faster, and whether the rounds can tell."""

import numpy as np
import pandas as pd
from scipy import stats as tests

from . import figures
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
    """One pair of cases. Rounds that both share (`same` journal, two modes) are paired: a paired t-test on logarithms;
    others are not: Welch's."""
    (case, before, floors), (other, after, other_floors) = first, second
    mode = case.mode if case.mode == other.mode else f"{case.mode} / {other.mode}"
    found = dict.fromkeys(COLUMNS, NAN) | {"model": case.model, "decoder": case.decoder, "mode": mode}
    found |= {"allocator": case.allocator, "figure": ""}
    if reason := difference(case, before, other, after):
        return found | {"verdict": f"refused: {reason}"}
    one, two = figures.of_visits(before, floors), figures.of_visits(after, other_floors)
    (how, _), (other_how, _) = figures.per_round(one), figures.per_round(two)
    quiet = how == other_how == "quiet"

    def latencies(of: dict) -> dict:
        return {key: figure.quiet_ms if quiet else figure.as_met_ms for key, figure in of.items()}

    left, right = ({key: ms for key, ms in latencies(of).items() if ms == ms} for of in (one, two))
    if same:
        left, right = ({key: of[key] for key in of if key in left and key in right} for of in (left, right))
    logs = [np.log([*of.values()]) for of in (left, right)]
    if min(map(len, logs)) < 2:
        return found | {"verdict": "refused: fewer than two rounds"}
    low, high = (tests.ttest_rel if same else welch)(*logs).confidence_interval()
    first_ms, second_ms = (float(np.exp(of.mean())) for of in logs)
    found |= {"first_ms": first_ms, "second_ms": second_ms, "ratio": first_ms / second_ms}
    found |= {"low": float(np.exp(low)), "high": float(np.exp(high)), "figure": "quiet" if quiet else "as met"}
    verdict = "faster" if low > 0 else "slower" if high < 0 else "not separable"
    return found | {"verdict": verdict}


def welch(one: np.ndarray, two: np.ndarray):
    return tests.ttest_ind(one, two, equal_var=False)


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
