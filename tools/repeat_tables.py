"""The README tables of the repeatability benchmark."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from segbench import repeats, study, tables, versus
from segbench.journal import Journal, read_all
from segbench.tables import per_machine

REPEATABILITY = Path(__file__).resolve().parents[1] / "benchmarks" / "repeatability"


def repeated(of_study: str = "") -> list[Journal]:
    return read_all((REPEATABILITY / "studies" / of_study if of_study else REPEATABILITY) / "journals")


def protocols() -> str:
    """The repeatability benchmark's rows."""
    rows = repeats.protocols(repeated())
    digits = {name: places for name, places in repeats.DIGITS.items() if name in rows}
    names = {"throughput_img_s": "img/s", "speedup_spread": "speedup's spread", "seconds": "s"}
    names |= {"prepare_s": "preparing, s", "quiet_share": "quiet, %"}
    rows["quiet_share"] *= 100
    digits |= {"quiet_share": 0}
    rows = rows.rename(columns=names)
    digits = {names.get(name, name): places for name, places in digits.items()}
    return per_machine(lambda of: of.drop(columns=["machine", "cpu"]), rows, digits)


def promises() -> pd.DataFrame:
    """What each protocol keeps, per machine: worst and middle over all cases."""
    found = []
    for journal in repeated():
        rows = repeats.protocols([journal])
        single = repeats.repetitions([journal])
        for protocol, of in rows.groupby("protocol", sort=False):
            eager = single[(single.protocol == protocol) & (single["mode"] == tables.BASELINE)]
            found.append(
                {
                    "machine": journal.header.name,
                    "protocol": protocol,
                    "cases": len(of),
                    "spread, worst": of.spread.max(),
                    "spread, median": of.spread.median(),
                    "speedup's spread, worst": of.speedup_spread.max(),
                    "coverage": np.average(of.coverage, weights=of.repetitions),
                    "eager models together, s": eager.groupby("repetition").seconds.sum().median(),
                }
            )
    return pd.DataFrame(found)


def claims() -> str:
    digits = {"cases": 0, "spread, worst": 3, "spread, median": 3, "speedup's spread, worst": 3, "coverage": 2}
    return tables.markdown(promises(), digits | {"eager models together, s": 0})


def targets() -> str:
    """What was asked of the quiet protocol beside what it keeps."""
    rows = promises().set_index(["machine", "protocol"])
    found = []
    for machine in dict.fromkeys(machine for machine, _ in rows.index):
        quiet, usual = rows.loc[machine, "quiet"], rows.loc[machine, "usual"]
        seconds = "eager models together, s"
        for what, limit, held in (
            ("spread, worst", 1.08, quiet["spread, worst"] <= 1.08),
            ("speedup's spread, worst", 1.06, quiet["speedup's spread, worst"] <= 1.06),
            ("coverage", 0.9, quiet["coverage"] >= 0.9),
            (seconds, usual[seconds], quiet[seconds] <= usual[seconds]),
        ):
            if quiet[what] == quiet[what]:
                row = {"machine": machine, "what": what, "asked for": limit, "quiet protocol": quiet[what]}
                found.append(row | {"usual protocol": usual[what], "": "held" if held else "missed"})
    return tables.markdown(pd.DataFrame(found), {"asked for": 2, "quiet protocol": 3, "usual protocol": 3})


def verdicts() -> str:
    """tools/compare.py on repetitions of the same, and on compile against baseline."""
    found = []
    for journal in repeated():
        parts = repeats.parts(journal)
        same = [versus.compare(one, two) for one, two in pairwise(parts)]
        modes_apart = [versus.compare(part, part, (tables.BASELINE, "compile")) for part in parts]
        for what, of in (("a repetition against the next", same), ("compile against baseline", modes_apart)):
            verdicts = pd.concat(of).verdict if of else pd.Series(dtype=str)
            counts = {name: int((verdicts == name).sum()) for name in ("faster", "slower", "not separable")}
            if len(verdicts):
                found.append({"machine": journal.header.name, "what": what, "pairs": len(verdicts), **counts})
    return tables.markdown(pd.DataFrame(found), {"pairs": 0, "faster": 0, "slower": 0, "not separable": 0})


def of_runs(judge: Callable[[list[Journal]], pd.DataFrame], digits: dict[str, int]) -> str:
    """One table for the run that choices were made on, and the runs that came after them."""
    first, after = judge(repeated("first")), judge(repeated())
    first["machine"] += ", first run"
    return tables.markdown(pd.concat([first, after]), digits)


def estimators() -> str:
    digits = {"spread, worst": 3, "spread, median": 3, "bias, % (median)": 1, "bias, % (largest)": 1, "coverage": 2}
    return of_runs(study.estimators, digits)


def settings() -> str:
    digits = {"spread, worst": 3, "spread, median": 3, "quiet, %": 0, "visits without, %": 0, "s a visit": 2}
    return of_runs(study.settings, digits)


def stopping() -> str:
    return of_runs(study.stopping, {"until, %": 0, "coverage": 2, "rounds": 1})


def slopes() -> str:
    return of_runs(study.slopes, {"samples": 0, "convolution": 2, "GEMM": 2})


def drift() -> str:
    return of_runs(
        study.drift, {"cases": 0, "repetitions": 0, "in common, %": 1, "the rest, %": 1, "within, per process, %": 1}
    )


TABLES = {
    "protocols": protocols,
    "claims": claims,
    "targets": targets,
    "verdicts": verdicts,
    "estimators": estimators,
    "settings": settings,
    "stopping": stopping,
    "slopes": slopes,
    "drift": drift,
}
