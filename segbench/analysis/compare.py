"""Two run logs against each other: per case by how much the second is faster, and whether the runs can tell."""

import pandas as pd

from ..cases import SHARED, Case
from ..records import Run
from ..run_log import RunLog
from . import estimates
from .estimates import NAN, CaseEstimate

COLUMNS = (
    "model",
    "decoder",
    "mode",
    "allocator",
    "quality",
    "first_ms",
    "second_ms",
    "ratio",
    "low",
    "high",
    "verdict",
)


def compare(first: RunLog, second: RunLog, modes: tuple[str, str] = ("", "")) -> pd.DataFrame:
    """A row per case that both hold: the ratio of the latencies, first over second (above 1: the second is faster), its
    95 % interval, and a verdict on the second: faster, slower, not separable, or refused with the reason.

    With `modes` the first's cases under one mode are set against the second's under the other. Two run logs of one host
    are corrected to one level.
    """
    sides, together = [], of_both(first, second)
    for run_log, mode in zip((first, second), modes, strict=True):
        cases = {
            (case.model, case.decoder, case.allocator, mode or case.mode): (case, estimate)
            for case, whole in together.items()
            if case.mode == (mode or case.mode)
            and case.protocol == "project"
            and (estimate := whole.only(lambda session, _, own=run_log.headers: session in own)).raw
        }
        # Under `modes` two names stand for one side each.
        sides.append({key[:-1]: side for key, side in cases.items()} if any(modes) else cases)
    pairs = [(sides[0][key], sides[1][key]) for key in sides[0] if key in sides[1]]
    return pd.DataFrame([row(*before, *after) for before, after in pairs], columns=COLUMNS)


def of_both(first: RunLog, second: RunLog) -> dict[Case, CaseEstimate]:
    """Case -> what both run logs say of it together."""
    cases: dict[Case, list[Run]] = {}
    for run_log in (first, second) if second.headers.keys() - first.headers.keys() else (first,):
        for case, runs in run_log.by_case().items():
            cases.setdefault(case, []).extend(runs)
    host_of = second.host_of() | first.host_of()
    return estimates.of_cases(cases, lambda session: host_of.get(session, ""))


def row(case: Case, before: CaseEstimate, other: Case, after: CaseEstimate) -> dict:
    """One pair of cases."""
    mode = case.mode if case.mode == other.mode else f"{case.mode} / {other.mode}"
    columns = dict.fromkeys(COLUMNS, NAN) | {"model": case.model, "decoder": case.decoder, "mode": mode}
    columns |= {"allocator": case.allocator, "quality": ""}
    if reason := difference(case, before, other, after):
        return columns | {"verdict": f"refused: {reason}"}
    ratio, low, high, *_ = estimates.speedup(before, after)
    columns |= {"first_ms": before.latency_ms, "second_ms": after.latency_ms, "ratio": ratio, "low": low, "high": high}
    verdict = "faster" if low > 1 else "slower" if high < 1 else "not separable"
    return columns | {"quality": after.quality, "verdict": verdict}


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
