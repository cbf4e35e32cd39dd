"""Journals in, data frames and CSV out. Nothing here measures, and nothing is asked of the machine it runs on."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from . import figures, modes, zoo
from .cases import Case, Visit, sides
from .journal import Journal, replacing

BASELINE = "baseline"
Others = dict[str, Callable[[Case], Case]]  # column -> the case that a case is set against
SPEEDUP: Others = {"speedup": lambda case: msgspec.structs.replace(case, mode=BASELINE)}
DECODERS = ("", "features", "fpn", "smp-fpn", "unet", "smp-unet")
RIGHT = ("rank", "speedup", "as met", "quiet", "MB/img", "of peak")  # columns aligned to the right


def rows(journals: list[Journal], over: Others | None = None) -> pd.DataFrame:
    """Everything: a row per machine and case, machines by name, cases by zoo, model, decoder and mode.

    `over` names further columns like `speedup`: throughput over that of the case that its function gives.
    """
    found = [row for journal in journals for row in machine_rows(journal, SPEEDUP | (over or {}))]
    frame = pd.DataFrame(found, columns=list(found[0]) if found else None)
    if frame.empty:
        return frame
    models, names = [*zoo.BY_MODEL, *zoo.VOLUMES], [*modes.MODES]
    place = frame.model.map(lambda model: (models.index(model), "") if model in models else (len(models), model))
    keys = pd.DataFrame({"machine": frame.machine, "model": place, "decoder": frame.decoder.map(DECODERS.index)})
    keys = keys.assign(size=frame["size"], classes=frame.classes.fillna(0), mode=frame["mode"].map(names.index))
    keys = keys.assign(batch_size=frame.batch_size, allocator=frame.allocator)
    return frame.loc[keys.sort_values([*keys], kind="stable").index].reset_index(drop=True)


def machine_rows(journal: Journal, over: Others) -> list[dict]:
    cases = journal.by_case()
    floors = figures.session_floors(journal)
    latencies = {case: figures.of_visits(visits, floors) for case, visits in cases.items()}
    peaks: dict[str, float] = {}
    for floor in journal.floors:
        for dtype, rate in floor.peak_gflops.items():
            peaks[dtype] = max(rate, peaks.get(dtype, 0))
    found = []
    for case, visits in cases.items():
        ratios = {}
        for column, other in over.items():
            ratio = figures.speedup(latencies.get(other(case), {}), latencies[case])
            ratios |= dict(zip((column, f"{column}_low", f"{column}_high"), ratio, strict=True))
        alone = latencies.get(msgspec.structs.replace(case, decoder="features", classes=0)) if case.classes else None
        both = alone and latencies[case]  # their figures: they may have been measured in sessions of their own
        share = 1 - figures.figure(alone)[1] / figures.figure(latencies[case])[1] if both else float("nan")
        ratios["decoder_share"] = share
        found.append(row(journal, case, list(visits.values()), latencies[case], ratios, peaks))
    return found


def row(journal: Journal, case: Case, visits: list[Visit], of: dict, ratios: dict, peaks: dict) -> dict:
    """One row. Columns end in their unit; what was not seen is empty."""
    nan = float("nan")
    seen = [visit for visit in visits if visit.samples_ms]
    good = [visit for visit in seen if visit.status == "ok"]
    worst = next((visit for visit in visits if visit.status == "wrong"), visits[-1])
    failures = [visit for visit in visits if visit.status != "ok"]
    how, latency, (low, high) = figures.figure(of) if of else ("", nan, (nan, nan))
    params, gmacs = (seen[0].params, seen[0].gmacs) if seen else (0, nan)
    as_met = float(np.median([figure.as_met_ms for figure in of.values()])) if of else nan
    throughput = case.batch_size / latency * 1e3
    gflops = 2 * gmacs / latency * 1e3
    memory = [visit.memory_mb for visit in good if visit.memory_mb is not None]
    agreement = [visit.argmax_agreement for visit in seen if visit.argmax_agreement is not None]
    errors = [visit.rel_error for visit in seen if visit.rel_error is not None]
    known = zoo.BY_MODEL.get(case.model)
    return {
        "machine": journal.header.name,
        "cpu": journal.header.machine.label,
        "family": zoo.family(case.model),
        "model": case.model,
        "decoder": case.decoder,
        "classes": case.classes or nan,
        "mode": case.mode,
        "size": sides(case.size),
        "batch_size": case.batch_size,
        "threads": case.threads,
        "allocator": case.allocator,
        "status": "ok" if good and worst.status != "wrong" else worst.status,
        "reason": f"{len(failures)} of {len(visits)} visits: {failures[-1].reason}" if failures else "",
        "params_m": params / 1e6 if params else nan,
        "decoder_params_m": seen[0].decoder_params / 1e6 if seen and seen[0].decoder_params else nan,
        "gmacs": gmacs / case.batch_size,
        "decoder_gmacs": seen[0].decoder_gmacs / case.batch_size if seen and seen[0].decoder_gmacs else nan,
        "latency_ms": latency,
        "throughput_img_s": throughput,
        "throughput_low": case.batch_size / high * 1e3,
        "throughput_high": case.batch_size / low * 1e3,
        "throughput_as_met": case.batch_size / as_met * 1e3,
        "figure": how,
        **ratios,
        "quiet_share": sum(len(f.quiet) for f in of.values()) / sum(f.samples for f in of.values()) if of else nan,
        "rounds": len(figures.per_round(of)[1]) if of else 0,
        "samples": sum(len(f.quiet) if how == "quiet" else f.samples for f in of.values()),
        "page_faults": mean([visit.page_faults for visit in good]),
        "memory_mb_img": min(memory) / case.batch_size if memory else nan,  # a heap's fragments only ever add
        "prepare_s": mean([visit.phases_s["prepare"] for visit in good if visit.compiled != "warm"]),
        "prepare_warm_s": mean([visit.phases_s["prepare"] for visit in good if visit.compiled == "warm"]),
        "gflop_s": gflops,
        "peak_share": gflops / peaks.get("bfloat16" if modes.MODES[case.mode].autocast else "float32", nan),
        "rel_error": max(errors) if errors else nan,
        "argmax_agreement": min(agreement) if agreement else nan,
        "output_std": seen[0].output_std if seen else nan,
        "efficiency_img_s_m": throughput / (params / 1e6) if params else nan,
        "top1": known.top1 if known and known.top1 else nan,
    }


def mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """The row of the fastest right mode per machine and model, allocator pinned."""
    ranked = frame[(frame.status == "ok") & (frame.allocator == "pinned")].dropna(subset="throughput_img_s")
    return frame.loc[ranked.groupby(["machine", "model", "decoder"], sort=False).throughput_img_s.idxmax()]


def ranking(frame: pd.DataFrame) -> pd.DataFrame:
    """`best` per machine in the order of speed, with `rank`, and `separated`: whether the intervals tell a row from the
    one above it."""
    top = best(frame).assign(place=lambda rows: rows.machine.map([*dict.fromkeys(frame.machine)].index))
    top = top.sort_values(["place", "throughput_img_s"], ascending=[True, False], kind="stable").drop(columns="place")
    machines = top.groupby("machine", sort=False)
    top["rank"] = machines.cumcount() + 1
    top["separated"] = (top["rank"] == 1) | (top.throughput_high < machines.throughput_low.shift())
    return top


def results(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine and model at its fastest right mode, with what autocast+compile and that mode bring; the
    fastest first."""
    keys = ["machine", "model", "decoder"]
    both = frame[(frame["mode"] == "autocast+compile") & (frame.allocator == "pinned")].set_index(keys).speedup
    both = both.rename("speedup_autocast_compile")
    top = ranking(frame).join(both, on=keys).rename(columns={"mode": "best_mode", "speedup": "speedup_best"})
    columns = ["machine", "rank", "separated", "family", "model", "best_mode", "params_m", "throughput_img_s"]
    columns += ["throughput_low", "throughput_high", "memory_mb_img", "speedup_autocast_compile", "speedup_best"]
    columns += ["efficiency_img_s_m", "top1"]
    if frame.decoder.any():
        columns += ["decoder", "decoder_params_m", "gmacs", "decoder_gmacs", "decoder_share"]
    return top[columns]


def comparison(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine and model: throughput per mode, speedups over baseline with intervals, the best mode."""
    keys = ["machine", "family", "model"]
    frame = frame[frame.allocator == "pinned"]
    present = [mode for mode in modes.MODES if (frame["mode"] == mode).any()]
    table = frame[keys].drop_duplicates().set_index(keys)
    for mode in present:
        of_mode = frame[frame["mode"] == mode].set_index(keys)
        table[f"{mode}_img_s"] = of_mode.throughput_img_s
        if mode != BASELINE:
            for column in ("speedup", "speedup_low", "speedup_high"):
                table[f"{mode}_{column}"] = of_mode[column]
    table["best_mode"] = best(frame).set_index(keys)["mode"]
    return table.reset_index()


def pinned(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the allocator pinned, or, where there are none, with the other."""
    return frame[frame.allocator == min(frame.allocator)]


def decoders(journals: list[Journal]) -> pd.DataFrame:
    """A row per machine, model and mode: the encoder's feature maps, FPN and UNet side by side, FPN over UNet."""
    frame = pinned(rows(journals, {"over_unet": lambda case: msgspec.structs.replace(case, decoder="unet")}))
    keys = ["machine", "cpu", "family", "model", "mode"]
    columns = {"throughput_img_s": "img_s", "throughput_low": "low", "throughput_high": "high", "params_m": "params_m"}
    columns |= {"gmacs": "gmacs", "memory_mb_img": "memory_mb_img", "gflop_s": "gflop_s", "status": "status"}
    table = frame[keys].drop_duplicates().set_index(keys)
    for decoder in ("features", "fpn", "unet"):
        of_decoder = frame[frame.decoder == decoder].set_index(keys)
        for column, name in columns.items():
            table[f"{decoder}_{name}"] = of_decoder[column]
        if decoder == "fpn":
            for column in ("over_unet", "over_unet_low", "over_unet_high"):
                table[f"fpn_{column}"] = of_decoder[column]
    return table.reset_index()


def peers(journals: list[Journal]) -> pd.DataFrame:
    """A row per machine, model, decoder and mode: this project's decoder and the library's of the same name."""
    smp = {"over_peer": lambda case: msgspec.structs.replace(case, decoder=f"smp-{case.decoder}")}
    frame = pinned(rows(journals, smp))
    keys = ["machine", "cpu", "family", "model", "decoder", "mode"]
    columns = ["img_s", "params_m", "gmacs", "memory_mb_img", "gflop_s", "status"]
    frame = frame.rename(columns={"throughput_img_s": "img_s"})
    their = frame.decoder.str.startswith("smp-")
    theirs, ours = frame[their].assign(decoder=frame.decoder.str.removeprefix("smp-")), frame[~their]
    table = ours[[*keys, *columns, "over_peer", "over_peer_low", "over_peer_high"]]
    return table.join(theirs.set_index(keys)[columns].add_prefix("smp_"), on=keys)


def batches(journals: list[Journal]) -> pd.DataFrame:
    """All rows with `over_batch_1`, throughput over that of a single image, and `enough`: the smallest batch whose
    throughput is within 5 % of the best."""
    keys = ["machine", "model", "decoder", "mode"]
    frame = pinned(rows(journals))
    single = frame[frame.batch_size == 1].set_index(keys).throughput_img_s.rename("single")
    frame["over_batch_1"] = frame.throughput_img_s / frame.join(single, on=keys).single
    good = frame.throughput_img_s >= 0.95 * frame.groupby(keys).throughput_img_s.transform("max")
    smallest = frame.batch_size.where(good & (frame.status == "ok")).groupby([frame[key] for key in keys])
    frame["enough"] = frame.batch_size == smallest.transform("min")
    return frame


def dates(journals: list[Journal]) -> dict[str, str]:
    """Machine -> the days of its first and last visit."""
    found = {}
    for journal in journals:
        days = sorted({visit.started[:10] for visit in journal.visits})
        found[journal.header.name] = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}" if days else ""
    return found


def spans(low: pd.Series, high: pd.Series, digits: int = 1) -> list[str]:
    """Intervals as text, empty where there is none."""
    pairs = zip(low, high, strict=True)
    return [f"{one:.{digits}f} to {two:.{digits}f}" if one == one else "" for one, two in pairs]


def marked(top: pd.DataFrame) -> list[str]:
    """Ranks, with a sign where the intervals do not tell a row from the one above it."""
    return [f"{rank}" if apart else f"≈ {rank}" for rank, apart in zip(top["rank"], top.separated, strict=True)]


def terminal(frame: pd.DataFrame) -> str:
    """For the terminal: all rows, then each model at its fastest right mode, ranked."""
    from tabulate import tabulate

    everything = {
        "model": frame.model,
        "mode": frame["mode"] + frame.allocator.map(lambda name: "" if name == "pinned" else f" ({name})"),
        "img/s": frame.throughput_img_s.map("{:.2f}".format),
        "95 % interval": spans(frame.throughput_low, frame.throughput_high, 2),
        "speedup": frame.speedup.map("{:.2f}".format),
        "as met": frame.throughput_as_met.map("{:.2f}".format),
        "quiet": frame.quiet_share.map("{:.0%}".format),
        "MB/img": frame.memory_mb_img.map("{:.1f}".format),
        "of peak": frame.peak_share.map("{:.0%}".format),
        "status": frame.status.where(frame.status != "ok", frame.figure),
    }
    top = ranking(frame)
    fastest = {
        "rank": marked(top),
        "model": top.model,
        "fastest right mode": top["mode"],
        "img/s": top.throughput_img_s.map("{:.2f}".format),
        "95 % interval": spans(top.throughput_low, top.throughput_high, 2),
    }
    told = []
    for columns, machines in ((everything, frame.machine), (fastest, top.machine)):
        shown = pd.DataFrame(columns).replace(["nan", "nan%"], "")
        if frame.machine.nunique() > 1:
            shown.insert(0, "machine", machines)
        align = ["right" if "g/s" in c or c in RIGHT else "left" for c in shown]
        told.append(tabulate(shown, headers="keys", showindex=False, colalign=align, disable_numparse=True))
    if not top.separated.all():
        told.append("≈: not told from the row above by their 95 % intervals; more --rounds, or --until 2%")
    return "\n\n".join(told)


def csv(frame: pd.DataFrame) -> str:
    """The text of a CSV: six significant digits, the same on every machine."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    with replacing(path) as draft:
        draft.write_text(csv(frame))


def digest(frame: pd.DataFrame) -> str:
    """Of the data that a picture shows."""
    return hashlib.sha256(csv(frame).encode()).hexdigest()[:16]


def markdown(frame: pd.DataFrame, digits: dict[str, int] | None = None) -> str:
    """A table for a README: numbers right, `digits` decimals per column, empty where nothing was seen."""
    from tabulate import tabulate

    shown = frame.copy().astype(object)
    for column, places in (digits or {}).items():
        shown[column] = [f"{value:.{places}f}" if value == value else "" for value in frame[column]]
    align = ["left" if column not in (digits or {}) else "right" for column in frame]
    return tabulate(
        shown.fillna(""), headers="keys", tablefmt="github", showindex=False, colalign=align, disable_numparse=True
    )


def per_machine(table: Callable[[pd.DataFrame], pd.DataFrame], frame: pd.DataFrame, digits: dict[str, int]) -> str:
    """One table a machine, each under the machine's name."""
    return "\n\n".join(
        f"**{name}**: {rows.cpu.iloc[0]}\n\n{markdown(table(rows), digits)}"
        for name, rows in frame.groupby("machine", sort=False)
    )
