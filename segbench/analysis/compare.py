"""Two run logs against each other: by how much each case of the second is faster, and whether that is significant."""

from collections.abc import Iterable

import msgspec
import pandas as pd

from ..cases import Case, sides
from ..records import Run
from ..run_log import RunLog
from . import estimates
from .estimates import NAN, CaseEstimate

NAMES = ["model", "decoder", "output", "classes", "size", "batch_size", "mode", "quality"]
WHAT = ("model", "decoder", "output", "mode")  # cases that differ in other fields are refused in a row
COLUMNS = [*NAMES, "first_ms", "second_ms", "ratio", "low", "high", "verdict"]


def compare(first: RunLog, second: RunLog, modes: tuple[str, str] = ("", "")) -> pd.DataFrame:
    """A row per case of both: the ratio of the latencies, first over second (above 1: the second is faster), its 95 %
    interval, and a verdict on the second: faster, slower, tied, or refused with the reason. `attrs["without_partner"]`
    has how many cases of the first, and of the second, are in no row.

    `modes` sets the first's cases under one mode against the second's under the other. Drift is corrected over both
    run logs of a host together.
    """
    together = of_both(first, second)
    before, after = (of_one(run_log, together, mode) for run_log, mode in zip((first, second), modes, strict=True))
    partners = partners_of(before, after)
    rows = pd.DataFrame([row(*before[key], *after[other]) for key, other in partners.items()], columns=COLUMNS)
    rows.attrs["without_partner"] = (len(before) - len(rows), len(after) - len(rows))
    return rows


def of_one(run_log: RunLog, together: dict[Case, CaseEstimate], mode: str) -> dict[Case, tuple[Case, CaseEstimate]]:
    """A case, without its mode where `mode` chooses one, -> the case and its estimate by one run log's sessions."""
    sides, own = {}, {run.case for run in run_log.runs}
    for case, estimate in together.items():
        if case in own and case.protocol == "project" and case.mode == (mode or case.mode):
            estimate = estimate.only(lambda session, _: session in run_log.headers)
            if estimate.raw:
                sides[msgspec.structs.replace(case, mode="") if mode else case] = case, estimate
    return sides


def partners_of(before: Iterable[Case], after: Iterable[Case]) -> dict[Case, Case]:
    """Each case of the first that the second has, or else has in another form: with another size, say."""
    left: dict[tuple, list[Case]] = {}
    for case in after:
        if case not in before:
            left.setdefault(what(case), []).append(case)
    return {
        case: case if case in after else left[what(case)].pop(0)
        for case in before
        if case in after or left.get(what(case))
    }


def what(case: Case) -> tuple:
    return tuple(getattr(case, field) for field in WHAT)


def of_both(first: RunLog, second: RunLog) -> dict[Case, CaseEstimate]:
    """Case -> its estimate by both run logs together."""
    cases: dict[Case, list[Run]] = {}
    for run_log in (first, second) if second.headers.keys() - first.headers.keys() else (first,):
        for case, runs in run_log.by_case().items():
            cases.setdefault(case, []).extend(runs)
    host_of = second.host_of() | first.host_of()
    return estimates.of_cases(cases, lambda session: host_of.get(session, ""))


def row(case: Case, before: CaseEstimate, other: Case, after: CaseEstimate) -> dict:
    """One pair of cases."""
    mode = case.mode if case.mode == other.mode else f"{case.mode} / {other.mode}"
    columns = dict.fromkeys(COLUMNS, NAN)
    columns |= {name: getattr(case, name, "") for name in NAMES} | {"mode": mode, "size": sides(case.size)}
    if reason := difference(case, before, other, after):
        return columns | {"verdict": f"refused: {reason}"}
    ratio, low, high, *_ = estimates.speedup(before, after)
    columns |= {"first_ms": before.latency_ms, "second_ms": after.latency_ms, "ratio": ratio, "low": low, "high": high}
    verdict = "faster" if low > 1 else "slower" if high < 1 else "tied"
    return columns | {"quality": after.quality, "verdict": verdict}


def difference(case: Case, before: CaseEstimate, other: Case, after: CaseEstimate) -> str:
    """Why two cases cannot be compared, "" where they can."""
    for field in Case.__struct_fields__:
        if field != "mode" and getattr(case, field) != getattr(other, field):
            return f"{field} {getattr(case, field)} against {getattr(other, field)}"
    first, second = ([run for run in side.raw if run.samples_ms and run.status == "ok"] for side in (before, after))
    if not first or not second:
        return "no estimate"
    for field in ("params", "gmacs"):
        here, there = getattr(first[0], field), getattr(second[0], field)
        if abs(here - there) > 1e-3 * here:
            return f"{field} {here:g} against {there:g}: another network"
    return ""
