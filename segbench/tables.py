"""Journals in, data frames and CSV out. Nothing here measures, and nothing is asked of the machine it runs on."""

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from . import estimates, modes, zoo
from .cases import DECODERS, FEATURES, OUTPUTS, Case, Visit, sides
from .estimates import NAN, CaseEstimate
from .journal import Journal, replacing
from .modes import BASELINE

Other = Callable[[Case], Case]  # a case -> the one that it is set against
NETWORK = ["machine", "model", "decoder"]  # what names a network of a machine
LENDER = "fpn_decoder"  # the benchmark whose feature maps those of other decoders need not time again


class Results:
    """What the journals of one benchmark say, computed once: everything that tables, pages and pictures are made of."""

    def __init__(
        self,
        journals: list[Journal],
        computed: dict[Path, dict[Case, CaseEstimate]] | None = None,
        first_host: str = "",
        only_host: str = "",
    ):
        """`first_host`: whose figures are shown where it measured a case; by default the host with most visits.
        `only_host`: cases that it did not measure are left out."""
        self.journals = [journal for journal in journals if journal.visits]
        self.computed, self.first_host, self.only_host = {} if computed is None else computed, first_host, only_host

    def estimates(self, journal: Journal) -> dict[Case, CaseEstimate]:
        """Case -> its estimate."""
        if journal.folder not in self.computed:
            self.computed[journal.folder] = estimates.of_journal(journal, self.first_host)
        return self.computed[journal.folder]

    def feature_maps(self, journal: Journal) -> dict[Case, CaseEstimate]:
        """Estimates that hold the encoders' feature maps alone: the journal's own, or those of LENDER's journal of the
        same machine, settings and versions, beside it."""
        own = self.estimates(journal)
        if not any(case.classes for case in own) or any(case.decoder == FEATURES for case in own):
            return own
        lent = Journal.read(journal.folder / f"../../../{LENDER}/journals/{journal.name}")
        if not lent.headers:
            return own
        alike = msgspec.structs.replace(journal.header, benchmark=LENDER)
        return own if lent.difference(alike) else self.estimates(lent)

    def machines(self) -> list[str]:
        """Their names without labels, that with the most visits first: it is shown where there is room for one."""
        visits = {journal.header.machine.name: 0 for journal in self.journals}
        for journal in self.journals:
            visits[journal.header.machine.name] += len(journal.visits)
        return sorted(visits, key=lambda name: (-visits[name], name))

    def of_machine(self, name: str) -> "Results":
        """The journals of one machine, whatever their labels."""
        return self.of(*(journal for journal in self.journals if journal.header.machine.name == name))

    def of(self, *journals: Journal) -> "Results":
        """Some of the journals."""
        return Results([*journals], self.computed, self.first_host, self.only_host)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Everything: a row per machine and case, machines by name, cases by zoo, model, decoder and mode; `speedup` is
        over baseline. The index is that of `cases`."""
        peaks = {journal.folder: peak_gflops(journal) for journal in self.journals}
        alone = {journal.folder: self.feature_maps(journal) for journal in self.journals}
        rows = [
            row(journal, case, self.estimates(journal), alone[journal.folder], peaks[journal.folder])
            for journal, case in self.cases
        ]
        frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else None)
        return frame.assign(tied=self.tied(frame)) if rows else frame

    def tied(self, frame: pd.DataFrame) -> list[bool]:
        """Per row whether its mode is the fastest right one of its network and ranking, or one that the interval of the
        ratio of the two does not exclude."""
        networks: dict[tuple, list[int]] = {}
        for place in np.flatnonzero(competes(frame)):
            journal, case = self.cases[place]
            network = msgspec.structs.replace(case, mode="")
            networks.setdefault((journal.folder, network, modes.ranking(frame.precision[place])), []).append(place)
        tied = [False] * len(frame)
        for places in networks.values():
            found = [self.estimates(self.cases[place][0])[self.cases[place][1]] for place in places]
            fastest = min(found, key=lambda estimate: estimate.latency_ms)
            for place, estimate in zip(places, found, strict=True):
                tied[place] = estimate is fastest or not estimates.slower(estimate, fastest)
        return tied

    @cached_property
    def cases(self) -> list[tuple[Journal, Case]]:
        pairs = [(journal, case) for journal in self.journals for case in self.estimates(journal)]
        if self.only_host:
            pairs = [(journal, case) for journal, case in pairs if self.measured(journal, case)]
        return sorted(pairs, key=lambda pair: (pair[0].name, *place(pair[1])))

    def measured(self, journal: Journal, case: Case) -> bool:
        """Whether `only_host` visited a case."""
        sessions = journal.hosts().get(self.only_host, [])
        return any(visit.session in sessions for visit in self.estimates(journal)[case].raw)

    def ratios(self, column: str, other: Other) -> pd.DataFrame:
        """For every row throughput over that of another case, with its interval: `column`, `column`_low and _high."""
        ratios = []
        for journal, case in self.cases:
            of_journal = self.estimates(journal)
            ratios.append(estimates.speedup(of_journal.get(other(case), estimates.NOTHING), of_journal[case])[:3])
        return pd.DataFrame(ratios, columns=[column, f"{column}_low", f"{column}_high"])

    def dates(self) -> dict[str, str]:
        """Machine -> the days of its first and last visit."""
        return {journal.name: days(journal.visits) for journal in self.journals}


def days(visits: list[Visit]) -> str:
    """`2026-11-24 to 2026-11-26`"""
    first, last = (pick(visit.started for visit in visits)[:10] for pick in (min, max))
    return first if first == last else f"{first} to {last}"


def place(case: Case) -> tuple:
    """Where a case stands in tables; what the code does not know comes last."""
    models = [*zoo.BY_MODEL, *zoo.VOLUMES, case.model]
    decoders = [*DECODERS, case.decoder]
    return (
        models.index(case.model),
        case.model,
        decoders.index(case.decoder),
        sides(case.size),
        case.classes,
        [*OUTPUTS, case.output].index(case.output),
        modes.order(case.mode),
        case.mode,
        case.batch_size,
        case.allocator,
    )


def peak_gflops(journal: Journal) -> dict[tuple[str, str], float]:
    """Host and precision -> the highest rate that any of its sessions reached."""
    peaks: dict[tuple[str, str], float] = {}
    for floor in journal.floors:
        for precision, rate in floor.peak_gflops.items():
            key = journal.host(floor.session), precision
            peaks[key] = max(rate, peaks.get(key, 0))
    return peaks


def row(
    journal: Journal,
    case: Case,
    of_journal: dict[Case, CaseEstimate],
    alone: dict[Case, CaseEstimate],
    peaks: dict[tuple[str, str], float],
) -> dict:
    """One row; `alone` holds the estimates of feature maps. Columns end in their unit; what was not seen is empty."""
    estimate, mode = of_journal[case], modes.find(case.mode)
    visits = estimate.raw
    measured = [visit for visit in visits if visit.samples_ms]
    seen = measured[0] if measured else Visit(case=case)
    low, high = estimate.interval_ms
    latency, throughput = estimate.latency_ms, case.batch_size / estimate.latency_ms * 1e3
    gmacs = seen.gmacs or NAN  # where it could not be counted
    gflops = 2 * gmacs / latency * 1e3
    params = seen.params or NAN
    known = zoo.BY_MODEL.get(case.model)
    before = of_journal.get(msgspec.structs.replace(case, mode=BASELINE), estimates.NOTHING)
    speedup = estimates.speedup(before, estimate)
    return {
        "machine": journal.name,
        "cpu": journal.header.machine.label,
        "family": zoo.family(case.model),
        "model": case.model,
        "decoder": case.decoder,
        "classes": case.classes or NAN,
        "output": case.output,
        "mode": case.mode,
        "runtime": mode.runtime,
        "precision": mode.precision,
        "size": sides(case.size),
        "in_chans": case.channels,
        "batch_size": case.batch_size,
        "threads": case.threads,
        "allocator": case.allocator,
        **ending(visits, measured),
        "params_m": params / 1e6,
        "decoder_params_m": (seen.decoder_params or NAN) / 1e6,
        "gmacs": gmacs / case.batch_size,
        "decoder_gmacs": (seen.decoder_gmacs or NAN) / case.batch_size,
        "latency_ms": latency,
        "throughput_img_s": throughput,
        "throughput_low": case.batch_size / high * 1e3,
        "throughput_high": case.batch_size / low * 1e3 if low else math.inf,
        "throughput_all": case.batch_size / estimate.all_samples_ms * 1e3,
        "quality": estimate.quality,
        "half_width": estimate.apart,
        **dict(zip(("speedup", "speedup_low", "speedup_high", "pairs"), speedup[:4], strict=True)),
        "decoder_share": decoder_share(case, estimate, alone),
        "quiet_share": estimate.quiet_share,
        "host": estimate.host,
        "hosts": len(estimate.hosts),
        "carried": bool(estimate.carried),
        "rounds": len(estimate.of_host),
        "samples": estimate.samples,
        **costs(case, [visit for visit in measured if visit.status == "ok"]),
        "gflop_s": gflops,
        "peak_share": gflops
        / peaks.get((estimate.first_host if estimate.carried else estimate.host, mode.precision), NAN),
        "rel_error": max((v.rel_error for v in measured if v.rel_error is not None), default=NAN),
        "argmax_agreement": min((v.argmax_agreement for v in measured if v.argmax_agreement is not None), default=NAN),
        "output_std": NAN if seen.output_std is None else seen.output_std,
        "efficiency_img_s_m": throughput / (params / 1e6),
        "top1": known.top1 if known and known.top1 else NAN,
        "torch": journal.header.versions.get("torch", ""),
    }


def ending(visits: list[Visit], measured: list[Visit]) -> dict[str, str]:
    """How a case ended: well where any visit did and none computed something else; and why visits failed."""
    worst = next((visit for visit in visits if visit.status == "wrong"), visits[-1])
    failures = [visit for visit in visits if visit.status != "ok"]
    well = any(visit.status == "ok" for visit in measured) and worst.status != "wrong"
    reason = f"{len(failures)} of {len(visits)} visits: {failures[-1].reason}" if failures else ""
    return {"status": "ok" if well else worst.status, "reason": reason}


def decoder_share(case: Case, estimate: CaseEstimate, alone: dict[Case, CaseEstimate]) -> float:
    """Of the latency, by the estimates on one host: they may have been measured in sessions of their own."""
    maps = alone.get(msgspec.structs.replace(case, decoder=FEATURES, classes=0, output="logits"), estimates.NOTHING)
    alike = case.classes and maps and estimate and maps.host == estimate.host
    return 1 - maps.latency_ms / estimate.latency_ms if alike else NAN


def costs(case: Case, visits: list[Visit]) -> dict[str, float]:
    """What visits that went well needed beside time."""
    memory = [visit.memory_mb for visit in visits if visit.memory_mb is not None]
    return {
        "page_faults": mean(visit.page_faults for visit in visits),
        "memory_mb_img": min(memory, default=NAN) / case.batch_size,  # a heap's fragments only ever add
        # Of visits that found on disk what they needed: exporting and compiling leave much behind.
        "loaded_mb": min((v.loaded_mb for v in visits if v.loaded_mb is not None and v.cache != "cold"), default=NAN),
        "prepare_s": mean(v.phases_s["prepare"] + v.saved_s for v in visits if v.cache != "warm" or v.saved_s),
        "prepare_warm_s": mean(visit.phases_s["prepare"] for visit in visits if visit.cache == "warm"),
    }


def mean(values: Iterable[float]) -> float:
    values = [*values]
    return float(np.mean(values)) if values else NAN


def pinned(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the allocator pinned, or, where there are none, with the other."""
    return frame[frame.allocator == min(frame.allocator, default="")]


def competes(frame: pd.DataFrame) -> pd.Series:
    """Which rows do: right, of a mode that the code knows, with the allocator pinned."""
    return (frame.status == "ok") & (frame.allocator == "pinned") & (frame.precision.map(modes.ranking) != "")


def best(frame: pd.DataFrame, by: str = "throughput_img_s", keys: list[str] = NETWORK) -> pd.DataFrame:
    """The row of the fastest right mode per network and ranking, with `tied_modes`: the others that are not
    significantly slower."""
    right = frame[competes(frame) & frame[by].notna()].assign(ranking=lambda rows: rows.precision.map(modes.ranking))
    keys = [*keys, "ranking"]
    top = right.loc[right.groupby(keys, sort=False)[by].idxmax()]
    right = right if "tied" in right else right.assign(tied=False)  # what is made of rows has lost it
    tied = right[right.tied & ~right.index.isin(top.index)].groupby(keys, sort=False)["mode"].agg(", ".join)
    return top.join(tied.rename("tied_modes"), on=keys).fillna({"tied_modes": ""})


def ranking(frame: pd.DataFrame, **of_best) -> pd.DataFrame:
    """`best` per machine and ranking in the order of speed, with `rank`: rows that do not differ significantly from the
    first of their group share its rank. The one function that ranks."""
    by = of_best.get("by", "throughput_img_s")
    top = best(frame, **of_best).assign(place=lambda rows: rows.machine.map([*dict.fromkeys(frame.machine)].index))
    top = top.sort_values(["place", "ranking", by], ascending=[True, True, False], kind="stable").drop(columns="place")
    groups = top.groupby(["machine", "ranking"], sort=False)
    return top.assign(rank=[rank for _, rows in groups for rank in shared_ranks(rows, by)])


def shared_ranks(rows: pd.DataFrame, by: str) -> list[int]:
    """Of rows in falling order of `by`: a rank is that of the first row that a row is not told apart from."""
    apart = told_apart(rows, by)
    ranks, first = [], 0
    for place in range(len(apart)):
        if apart[first, place]:
            first = place
        ranks.append(first + 1)
    return ranks


def told_apart(rows: pd.DataFrame, by: str) -> np.ndarray:
    """(n, n) of bool: which two differ by more than the 95 % interval of their ratio. A row that is only known to be at
    least so fast may be as fast as any faster one."""
    logs, below = np.log(rows[by].to_numpy()), rows.half_width.to_numpy()
    above = np.where(rows.quality == "at least", np.inf, below)
    faster = np.subtract.outer(logs, logs) > np.hypot.outer(below, above)
    return faster | faster.T


def floating_point(top: pd.DataFrame) -> pd.DataFrame:
    """The ranking that FP32 competes in."""
    return top[top.ranking == modes.ranking("fp32")]


def fastest(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine and network at its fastest right mode, with what autocast+compile and that mode bring; the
    fastest first."""
    both = frame[(frame["mode"] == "autocast+compile") & (frame.allocator == "pinned")].set_index(NETWORK).speedup
    both = both.rename("speedup_autocast_compile")
    top = (
        floating_point(ranking(frame))
        .join(both, on=NETWORK)
        .rename(columns={"mode": "best_mode", "speedup": "speedup_best"})
    )
    columns = ["machine", "rank", "family", "model", "best_mode", "tied_modes", "params_m", "throughput_img_s"]
    columns += ["throughput_low", "throughput_high", "memory_mb_img", "speedup_autocast_compile", "speedup_best"]
    columns += ["efficiency_img_s_m", "top1", "quality", "host", "carried"]
    if frame.decoder.any():
        columns += ["decoder", "decoder_params_m", "gmacs", "decoder_gmacs", "decoder_share"]
    return top[columns]


def has_speedup(frame: pd.DataFrame) -> pd.Series:
    """Which rows have one of which both ends of the interval are known."""
    return (frame.speedup_low > 0) & (frame.speedup_high < math.inf)


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per mode: the lowest, median and highest speedup over baseline, of all networks that ran under it."""
    summary = []
    for mode in modes.in_order(frame["mode"]):
        ratios = frame[(frame["mode"] == mode) & (frame.status == "ok") & has_speedup(frame)].speedup
        if mode != BASELINE and len(ratios):
            low, median, high = ratios.quantile((0, 0.5, 1))
            summary.append({"mode": mode, "encoders": len(ratios), "lowest": low, "median": median, "highest": high})
    return pd.DataFrame(summary, columns=["mode", "encoders", "lowest", "median", "highest"])


def csv(frame: pd.DataFrame) -> str:
    """The text of a CSV: six significant digits, the same on every machine."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    with replacing(path) as draft:
        draft.write_text(csv(frame))
