"""The README tables of encoders alone and of what a visit costs."""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import pandas as pd

from segbench import figures, modes, stats, tables, zoo
from segbench.cases import Visit
from segbench.journal import Journal, read_all
from segbench.tables import per_machine

ENCODERS = Path(__file__).resolve().parents[1] / "benchmarks" / "encoder_only"
REPEATS = {"main journal": "", "repeat 1": "repeat-1", "repeat 2": "repeat-2"}  # studies by what the table calls them


def journals(of_study: str = "") -> list[Journal]:
    return read_all((ENCODERS / "studies" / of_study if of_study else ENCODERS) / "journals")


def families() -> str:
    """The zoo."""
    rows = []
    for family in zoo.FAMILIES:
        members = [encoder for encoder in zoo.ENCODERS if encoder.family == family]
        sizes = [encoder.params_m for encoder in members]
        names = ", ".join(f"`{encoder.model}`" for encoder in members)
        rows.append({"family": family, "models": names, "params, M": f"{min(sizes):.1f} to {max(sizes):.1f}"})
    return tables.markdown(pd.DataFrame(rows))


def fastest(rows: pd.DataFrame) -> str:
    """Each encoder of the rows at its fastest right mode, in the order of their speed."""
    digits = {"img/s": 1, "over baseline": 2, "autocast+compile over baseline": 2, "MB/img": 1, "params, M": 2}

    def table(of_machine: pd.DataFrame) -> pd.DataFrame:
        top = tables.results(of_machine)
        return pd.DataFrame(
            {
                "rank": tables.marked(top),
                "encoder": top.model,
                "fastest right mode": top.best_mode,
                "img/s": top.throughput_img_s,
                "95 % interval": tables.spans(top.throughput_low, top.throughput_high),
                "over baseline": top.speedup_best,
                "autocast+compile over baseline": top.speedup_autocast_compile,
                "MB/img": top.memory_mb_img,
                "params, M": top.params_m,
                "img/s per M": top.efficiency_img_s_m,
                "top-1, %": top.top1,
            }
        )

    return per_machine(table, rows, digits | {"img/s per M": 1, "top-1, %": 1})


def of_headline(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.model.isin(zoo.HEADLINE)]


def by_mode(frame: pd.DataFrame) -> str:
    """Throughput of each encoder under every mode that was measured."""
    right = frame[frame.status == "ok"]

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        wide = rows.pivot_table(index="model", columns="mode", values="throughput_img_s", sort=False)
        wide = wide.reindex(columns=[mode for mode in modes.MODES if mode in wide])
        return wide.reset_index().rename(columns={"model": "encoder"})

    return per_machine(table, right, {mode: 1 for mode in modes.MODES if (right["mode"] == mode).any()})


def gains() -> str:
    """What each mode brings over baseline, over all encoders that ran under it."""

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        found = []
        for mode in modes.MODES:
            ratios = rows[(rows["mode"] == mode) & (rows.status == "ok")].speedup.dropna()
            if mode != tables.BASELINE and len(ratios):
                low, mid, high = np.quantile(ratios, (0, 0.5, 1))
                found.append({"mode": mode, "encoders": len(ratios), "lowest": low, "median": mid, "highest": high})
        return pd.DataFrame(found)

    return per_machine(table, tables.rows(journals()), {"encoders": 0, "lowest": 2, "median": 2, "highest": 2})


def three_sweeps() -> str:
    """The same sweep three times at different moments, as far as the repeats go."""
    keys = ["machine", "cpu", "model", "mode"]
    found = {name: journals(of_study) for name, of_study in REPEATS.items()}
    names = [name for name, of_study in found.items() if of_study]
    runs = [tables.rows(found[name]).set_index(keys) for name in names]
    runs[0] = runs[0].loc[runs[1].index]
    frame = pd.concat([run.throughput_img_s for run in runs], axis=1, keys=names)
    as_met = pd.concat([run.throughput_as_met for run in runs], axis=1)
    frame["max/min"] = frame.max(axis=1) / frame.min(axis=1)
    frame["as met, max/min"] = as_met.max(axis=1) / as_met.min(axis=1)
    frame["quiet, %"] = pd.concat([run.quiet_share for run in runs], axis=1).mean(axis=1) * 100
    figured = pd.concat([run.figure for run in runs], axis=1)
    frame["figured"] = [", ".join(dict.fromkeys(how)) for how in figured.to_numpy()]
    digits = dict.fromkeys(names, 1) | {"max/min": 3, "as met, max/min": 3, "quiet, %": 0}
    return per_machine(lambda rows: rows.drop(columns=["machine", "cpu"]), frame.reset_index(), digits)


def allocators() -> str:
    """The allocator pinned against plain glibc, in the same rounds; as met on both sides, for page faults are no matter
    of the machine's state."""
    rows = tables.rows(journals("allocators"))
    ratios = {}
    for journal in journals("allocators"):
        floors = figures.session_floors(journal)
        found = {case: figures.of_visits(visits, floors) for case, visits in journal.by_case().items()}
        for case, plain in found.items():
            if case.allocator == "plain":
                pinned = found[msgspec.structs.replace(case, allocator="pinned")]
                met = [plain[key].as_met_ms / pinned[key].as_met_ms for key in sorted(plain.keys() & pinned.keys())]
                ratios[journal.header.name, case.model] = met

    def table(of_machine: pd.DataFrame) -> pd.DataFrame:
        found = []
        for model, both in of_machine.groupby("model", sort=False):
            pinned, plain = (both[both.allocator == name].iloc[0] for name in ("pinned", "plain"))
            of_model = ratios[pinned.machine, model]
            found.append(
                {
                    "encoder": model,
                    "pinned, ms": 1e3 / pinned.throughput_as_met,
                    "faults, pinned": pinned.page_faults,
                    "plain, ms": 1e3 / plain.throughput_as_met,
                    "faults, plain": plain.page_faults,
                    "plain over pinned": median(of_model),
                    "95 % interval": "{:.2f} to {:.2f}".format(*stats.interval(of_model)),
                }
            )
        return pd.DataFrame(found)

    digits = {"pinned, ms": 1, "faults, pinned": 0, "plain, ms": 1, "faults, plain": 0, "plain over pinned": 2}
    return per_machine(table, rows, digits)


def phases() -> str:
    """What a visit costs, by its parts, in seconds."""
    network = ("build", "prepare", "inference", "check")  # building, compiling and running it
    parts = ("build", "prepare", "yardsticks", "measure", "memory", "check")
    kinds = {"": "eager", "warm": "compiled, warm", "cold": "compiled, cold"}
    found = []
    for journal in journals():
        for compiled, kind in kinds.items():
            visits = [visit for visit in journal.visits if visit.phases_s and visit.compiled == compiled]
            if not visits:
                continue

            def middle(of: Callable[[Visit], float], visits: list[Visit] = visits) -> float:
                return median(of(visit) for visit in visits)

            besides = [visit.seconds - sum(visit.phases_s[name] for name in network) for visit in visits]
            row = {"machine": journal.header.name, "visit": kind, "visits": len(visits)}
            row["fork, exit"] = middle(lambda visit: visit.seconds - sum(visit.phases_s[name] for name in parts))
            for name in ("build", "prepare", "yardsticks", "inference", "readings", "memory", "check"):
                row[name] = middle(lambda visit, name=name: visit.phases_s[name])
            found.append(row | {"besides the network": median(besides), "90 %": float(np.quantile(besides, 0.9))})
    digits = {"visits": 0} | {column: 2 for column in found[0] if column not in ("machine", "visit", "visits")}
    return tables.markdown(pd.DataFrame(found), digits)


def limits() -> str:
    """The worst of all rows, for what a journal must hold."""
    found = []
    for name, rows in tables.rows(journals()).groupby("machine", sort=False):
        rows = rows[rows.model.isin(zoo.BY_MODEL) & rows.params_m.notna()]
        known = [zoo.BY_MODEL[model] for model in rows.model]
        checks = {
            "parameters, difference from the zoo's table (M)": (rows.params_m - [e.params_m for e in known]).abs(),
            "GMACs, difference from the zoo's table": (rows.gmacs - [e.gmacs for e in known]).abs(),
            "feature map's standard deviation, smallest": -rows.output_std,
            "feature map's standard deviation, largest": rows.output_std,
            "page faults per inference, baseline": rows.page_faults[rows["mode"] == tables.BASELINE],
        }
        for mode in modes.MODES:
            if mode != tables.BASELINE:
                checks[f"relative error, {mode}"] = rows.rel_error[rows["mode"] == mode]
        for what, values in checks.items():
            if values.notna().any():
                worst = values.idxmax()
                value = f"{abs(values[worst]):.2g}"
                found.append({"machine": name, "what": what, "worst": value, "encoder": rows.model[worst]})
    return tables.markdown(pd.DataFrame(found))


TABLES = {
    "families": families,
    "headline": lambda: fastest(of_headline(tables.rows(journals()))),
    "ranking": lambda: fastest(tables.rows(journals())),
    "every-mode": lambda: by_mode(of_headline(tables.rows(journals()))),
    "gains": gains,
    "repeats": three_sweeps,
    "allocators": allocators,
    "phases": phases,
    "limits": limits,
}
