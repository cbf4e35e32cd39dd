"""Two journals against each other: per case by how much the second is faster, and whether the rounds can tell."""

import numpy as np
import pandas as pd
from scipy import stats as tests

from . import estimates, stats
from .cases import SHARED, Case
from .estimates import NAN, CaseEstimate
from .journal import Journal

COLUMNS = (
    "model",
    "decoder",
    "mode",
    "allocator",
    "estimator",
    "first_ms",
    "second_ms",
    "ratio",
    "low",
    "high",
    "verdict",
)


def compare(first: Journal, second: Journal, modes: tuple[str, str] = ("", "")) -> pd.DataFrame:
    """A row per case that both hold: the ratio of the latencies, first over second (above 1: the second is faster), its
    95 % interval, and a verdict on the second: faster, slower, not separable, or refused with the reason.

    With `modes` the first's cases under one mode are set against the second's under the other.
    """
    sides = []
    for journal, mode in zip((first, second), modes, strict=True):
        cases = {
            (case.model, case.decoder, case.allocator, mode or case.mode): (case, estimate)
            for case, estimate in estimates.of_journal(journal).items()
            if case.mode == (mode or case.mode) and case.protocol == "quiet"
        }
        # Under `modes` two names stand for one side each.
        sides.append({key[:-1]: side for key, side in cases.items()} if any(modes) else cases)
    same = first.folder == second.folder
    pairs = [(sides[0][key], sides[1][key]) for key in sides[0] if key in sides[1]]
    return pd.DataFrame([row(*before, *after, same) for before, after in pairs], columns=COLUMNS)


def row(case: Case, before: CaseEstimate, other: Case, after: CaseEstimate, same: bool) -> dict:
    """One pair of cases: the interval of Welch's t-test on the logarithms of the rounds; between two journals, other
    than between two modes of the `same`, with what sessions differ by beyond their rounds."""
    mode = case.mode if case.mode == other.mode else f"{case.mode} / {other.mode}"
    columns = dict.fromkeys(COLUMNS, NAN) | {"model": case.model, "decoder": case.decoder, "mode": mode}
    columns |= {"allocator": case.allocator, "estimator": ""}
    if reason := difference(case, before, other, after):
        return columns | {"verdict": f"refused: {reason}"}
    estimator = max(before.estimator, after.estimator)  # scaled, unless neither is
    latency = f"{estimator}_ms"  # of a visit, and of all together
    logs = [
        np.log(estimates.present(getattr(visit, latency) for visit in side.visits.values())) for side in (before, after)
    ]
    if min(map(len, logs)) < 2:
        return columns | {"verdict": "refused: fewer than two rounds"}
    first_ms, second_ms = (getattr(side, latency) for side in (before, after))
    low, high = tests.ttest_ind(*logs, equal_var=False).confidence_interval()
    width = np.hypot((high - low) / 2, 0 if same else stats.normal_width(2**0.5 * stats.DRIFT))
    low, high = stats.around(first_ms / second_ms, width)
    columns |= {"first_ms": first_ms, "second_ms": second_ms, "ratio": first_ms / second_ms, "low": low, "high": high}
    verdict = "faster" if low > 1 else "slower" if high < 1 else "not separable"
    return columns | {"estimator": estimator, "verdict": verdict}


def difference(case: Case, before: CaseEstimate, other: Case, after: CaseEstimate) -> str:
    """Why two cases cannot be compared, "" where they can."""
    for field in SHARED:
        if getattr(case, field) != getattr(other, field):
            return f"{field} {getattr(case, field)} against {getattr(other, field)}"
    first, second = ([v for v in side.raw if v.samples_ms and v.status == "ok"] for side in (before, after))
    if not first or not second:
        return "no estimate"
    for field in ("params", "gmacs"):
        here, there = getattr(first[0], field), getattr(second[0], field)
        if abs(here - there) > 1e-3 * here:
            return f"{field} {here:g} against {there:g}: another network"
    return ""
