"""The README tables of 2D networks against the official 3D models."""

from collections import defaultdict
from pathlib import Path
from statistics import median

import pandas as pd

from segbench import costs, figures, modes, study, tables, zoo
from segbench.journal import Journal, read_all
from segbench.tables import BASELINE, best, per_machine, spans

NAMES = {
    "stunet_s": "STU-Net-S",
    "stunet_b": "STU-Net-B",
    "stunet_l": "STU-Net-L",
    "stunet_h": "STU-Net-H",
    "totalsegmentator": "TotalSegmentator (PlainConvUNet)",
    "resenc": "nnU-Net ResEnc",
    "segresnet": "MONAI SegResNet",
}
REPEATED = 3  # sessions that a spread is told of
DECODERS = {"fpn": " + FPN", "unet": " + UNet", "": ""}


def journals() -> list[Journal]:
    return read_all(Path(__file__).resolve().parents[1] / "journals" / "benchmark_official")


def equivalents() -> str:
    """Each network at its fastest right mode and its baseline: slices per second, GMACs, memory."""
    frame = costs.equivalents(journals())
    frame = frame[frame.eq_s.notna() | (frame.status != "ok")]
    slow = frame[frame["mode"] == BASELINE].set_index(["machine", "model", "decoder"])[["eq_s", "peak_gb"]]
    digits = {"eq/s": 2, "eq/s, baseline": 2, "latency, ms": 0, "GMACs": 1, "GMACs/slice": 1, "params, M": 2, "GB": 2}
    digits |= {"GB, baseline": 2}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        top = best(rows).join(slow.add_suffix("_baseline"), on=["machine", "model", "decoder"])
        top = top.sort_values("eq_s", ascending=False)
        return pd.DataFrame(
            {
                "network": top.model.replace(NAMES) + top.decoder.map(DECODERS),
                "input": top["size"],
                "fastest right mode": top["mode"],
                "eq/s": top.eq_s,
                "95 % interval": spans(top.eq_s_low, top.eq_s_high, 2),
                "eq/s, baseline": top.eq_s_baseline,
                "latency, ms": top.latency_ms,
                "figured": top.figure,
                "GMACs": top.gmacs,
                "GMACs/slice": top.gmacs_slice,
                "params, M": top.params_m,
                "GB": top.peak_gb,
                "GB, baseline": top.peak_gb_baseline,
            }
        )

    return per_machine(table, frame, digits)


def whole_cts() -> str:
    """Each way to segment the reference volume at its fastest right mode, the fastest first."""
    frame = costs.whole_cts(journals())
    slow = frame[frame["mode"] == BASELINE].set_index(["machine", "way"])[["ct_s", "peak_gb"]]
    digits = {"inferences": 0, "s each": 2, "s per CT": 0, "as met, s": 0, "baseline, s": 0, "TMAC": 1}
    digits |= {"s per CT, step 0.5": 0, "TMAC, step 0.5": 1, "GB": 2, "GB, baseline": 2}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        top = rows.loc[rows.groupby("way", sort=False).ct_s.idxmin()].sort_values("ct_s")
        top = top.join(slow.add_suffix("_baseline"), on=["machine", "way"])
        return pd.DataFrame(
            {
                "network": top.way,
                "fastest right mode": top["mode"],
                "inferences": top.inferences,
                "s each": top.latency_s,
                "s per CT": top.ct_s,
                "95 % interval": spans(top.ct_low_s, top.ct_high_s, 0),
                "as met, s": top.ct_as_met_s,
                "baseline, s": top.ct_s_baseline,
                "TMAC": top.ct_tmac,
                "s per CT, step 0.5": top.ct_half_s,
                "TMAC, step 0.5": top.ct_half_tmac,
                "GB": top.peak_gb,
                "GB, baseline": top.peak_gb_baseline,
            }
        )

    return per_machine(table, frame, digits)


def by_mode() -> str:
    """Latency in ms of each 3D case under every mode."""
    frame = costs.equivalents(journals())
    frame = frame[(frame.decoder == "") & (frame.status == "ok")]
    seen = [mode for mode in modes.MODES if (frame["mode"] == mode).any()]

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        keys = ["model", "size", "classes"]
        wide = rows.pivot_table(index=keys, columns="mode", values="latency_ms", sort=False)
        wide = wide.reindex(columns=seen).reset_index().rename(columns={"model": "network", "classes": "outputs"})
        return wide.assign(network=wide.network.map(NAMES))

    return per_machine(table, frame, dict.fromkeys(("outputs", *seen), 0))


def twice() -> str:
    """How much a 3D network costs over the reference project's 2D one, by each measure."""
    frame, whole = costs.equivalents(journals()), costs.whole_cts(journals())
    digits = {"eq/s, baseline": 1, "eq/s, fastest modes": 1, "GMACs per slice": 1, "s per CT": 1}
    digits |= {"s per CT, as met": 1, "TMAC per CT": 1}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        good = rows[(rows.status == "ok") & rows.eq_s.notna()]
        flat = good[(good.model == "mobileone_s0") & (good.decoder == "unet")]
        ways = whole[whole.machine == rows.machine.iloc[0]]
        flat_way = ways[ways.way == "mobileone_s0 + unet"]
        found = []
        for run in zoo.RUNS:
            deep, way = good[(good.model == run.model) & (good.decoder == "")], ways[ways.way == run.name]
            slow, slow_flat = (of[of["mode"] == BASELINE].eq_s.max() for of in (deep, flat))
            row = {"network": run.name, "eq/s, baseline": slow_flat / slow}
            row |= {"eq/s, fastest modes": flat.eq_s.max() / deep.eq_s.max()}
            row |= {"GMACs per slice": deep.gmacs_slice.max() / flat.gmacs_slice.max()}
            row |= {"s per CT": way.ct_s.min() / flat_way.ct_s.min()}
            row |= {"s per CT, as met": way.ct_as_met_s.min() / flat_way.ct_as_met_s.min()}
            found.append(row | {"TMAC per CT": way.ct_tmac.max() / flat_way.ct_tmac.max()})
        return pd.DataFrame(found)

    return per_machine(table, frame, digits)


def spreads() -> str:
    """Max/min over repetitions of what the networks' latencies would be published as, where there are enough."""
    frame = costs.spreads(journals())
    frame = frame[(frame.decoder == "") & (frame.repetitions >= REPEATED)]
    digits = {"repetitions": 0, "latency_ms": 0, "spread": 3, "as_met_spread": 3}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[["network", "classes", "size", "mode", *digits]]

    return per_machine(table, frame, digits)


def estimators() -> str:
    """What each estimator would have published in every repetition: max/min, over the 3D cases that have several."""
    found = []
    for journal in journals():
        floors, spread, low = figures.session_floors(journal), defaultdict(list), defaultdict(list)
        for case, visits in journal.by_case().items():
            sessions = defaultdict(list)
            for visit in visits.values():
                if len(case.size) == 3 and visit.status == "ok" and visit.readings_ms:
                    sessions[visit.session].append(study.seen(visit, floors))
            if len(sessions) >= REPEATED:
                for name, estimate in study.ESTIMATORS.items():
                    alone = [estimate(of) for of in sessions.values()]
                    spread[name].append(max(alone) / min(alone))
                    low[name].append(median(alone) / median(map(study.over_rounds, sessions.values())))
        for name, of in spread.items():
            row = {"machine": journal.header.name, "estimator": name, "cases": len(of), "spread, worst": max(of)}
            found.append(row | {"spread, median": median(of), "figure over the median as met": median(low[name])})
    digits = {"cases": 0, "spread, worst": 3, "spread, median": 3, "figure over the median as met": 2}
    return tables.markdown(pd.DataFrame(found), digits)


TABLES = {
    "official": equivalents,
    "whole-ct": whole_cts,
    "official-modes": by_mode,
    "twice": twice,
    "official-spread": spreads,
    "official-estimators": estimators,
}
