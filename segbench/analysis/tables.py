"""Run logs in, data frames and CSV out. Nothing here measures, and nothing is asked of the machine it runs on."""

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from .. import modes, zoo
from ..cases import DECODERS, FEATURES, OUTPUTS, Case, sides
from ..modes import BASELINE
from ..records import Run
from ..run_log import RunLog, replacing
from . import estimates
from .estimates import NAN, CaseEstimate

Other = Callable[[Case], Case]  # a case -> the one that it is set against
NETWORK = ["machine", "model", "decoder"]  # what names a network of a machine
LENDER = "fpn_decoder"  # the benchmark whose feature maps those of other decoders need not time again


class Results:
    """What the run logs of one benchmark say, computed once: everything that tables, pages and pictures are made of."""

    def __init__(
        self,
        run_logs: list[RunLog],
        computed: dict[Path, dict[Case, CaseEstimate]] | None = None,
        first_host: str = "",
        only_host: str = "",
    ):
        """`first_host`: whose figures are shown where it measured a case; by default the host with most runs.
        `only_host`: cases that it did not measure are left out."""
        self.run_logs = [run_log for run_log in run_logs if run_log.runs]
        self.computed, self.first_host, self.only_host = {} if computed is None else computed, first_host, only_host

    def estimates(self, run_log: RunLog) -> dict[Case, CaseEstimate]:
        """Case -> its estimate."""
        if run_log.folder not in self.computed:
            self.computed[run_log.folder] = estimates.of_run_log(run_log, self.first_host)
        return self.computed[run_log.folder]

    def feature_maps(self, run_log: RunLog) -> dict[Case, CaseEstimate]:
        """Estimates that hold the encoders' feature maps alone: the run log's own, or those of LENDER's run log of the
        same machine, settings and versions, beside it."""
        own = self.estimates(run_log)
        if not any(case.classes for case in own) or any(case.decoder == FEATURES for case in own):
            return own
        lent = RunLog.read(run_log.folder / f"../../../{LENDER}/run_logs/{run_log.name}")
        if not lent.headers:
            return own
        alike = msgspec.structs.replace(run_log.header, benchmark=LENDER)
        return own if lent.difference(alike) else self.estimates(lent)

    def machines(self) -> list[str]:
        """Their names without labels, that with the most runs first: it is shown where there is room for one."""
        runs = {run_log.header.machine.name: 0 for run_log in self.run_logs}
        for run_log in self.run_logs:
            runs[run_log.header.machine.name] += len(run_log.runs)
        return sorted(runs, key=lambda name: (-runs[name], name))

    def of_machine(self, name: str) -> "Results":
        """The run logs of one machine, whatever their labels."""
        return self.of(*(run_log for run_log in self.run_logs if run_log.header.machine.name == name))

    def of(self, *run_logs: RunLog) -> "Results":
        """Some of the run logs."""
        return Results([*run_logs], self.computed, self.first_host, self.only_host)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Everything: a row per machine and case, machines by name, cases by zoo, model, decoder and mode; `speedup` is
        over baseline. The index is that of `cases`."""
        peaks = {run_log.folder: peak_gflops(run_log) for run_log in self.run_logs}
        alone = {run_log.folder: self.feature_maps(run_log) for run_log in self.run_logs}
        rows = [
            row(run_log, case, self.estimates(run_log), alone[run_log.folder], peaks[run_log.folder])
            for run_log, case in self.cases
        ]
        frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else None)
        return frame.assign(tied=self.tied(frame)) if rows else frame

    def tied(self, frame: pd.DataFrame) -> list[bool]:
        """Per row whether its mode is the fastest valid one of its network and ranking, or one that the interval of the
        ratio of the two does not exclude."""
        networks: dict[tuple, list[int]] = {}
        for place in np.flatnonzero(competes(frame)):
            run_log, case = self.cases[place]
            network = msgspec.structs.replace(case, mode="")
            networks.setdefault((run_log.folder, network, modes.ranking(frame.precision[place])), []).append(place)
        tied = [False] * len(frame)
        for places in networks.values():
            found = [self.estimates(self.cases[place][0])[self.cases[place][1]] for place in places]
            fastest = min(found, key=lambda estimate: estimate.latency_ms)
            for place, estimate in zip(places, found, strict=True):
                tied[place] = estimate is fastest or not estimates.slower(estimate, fastest)
        return tied

    @cached_property
    def cases(self) -> list[tuple[RunLog, Case]]:
        pairs = [(run_log, case) for run_log in self.run_logs for case in self.estimates(run_log)]
        if self.only_host:
            pairs = [(run_log, case) for run_log, case in pairs if self.measured(run_log, case)]
        return sorted(pairs, key=lambda pair: (pair[0].name, *place(pair[1])))

    def measured(self, run_log: RunLog, case: Case) -> bool:
        """Whether `only_host` measured a case."""
        sessions = run_log.hosts().get(self.only_host, [])
        return any(run.session in sessions for run in self.estimates(run_log)[case].raw)

    def ratios(self, column: str, other: Other) -> pd.DataFrame:
        """For every row throughput over that of another case, with its interval: `column`, `column`_low and _high."""
        ratios = []
        for run_log, case in self.cases:
            of_run_log = self.estimates(run_log)
            ratios.append(estimates.speedup(of_run_log.get(other(case), estimates.NOTHING), of_run_log[case])[:3])
        return pd.DataFrame(ratios, columns=[column, f"{column}_low", f"{column}_high"])

    def dates(self) -> dict[str, str]:
        """Machine -> the days of its first and last run."""
        return {run_log.name: days(run_log.runs) for run_log in self.run_logs}


def days(runs: list[Run]) -> str:
    """`2026-11-24 to 2026-11-26`"""
    first, last = (pick(run.started for run in runs)[:10] for pick in (min, max))
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


def peak_gflops(run_log: RunLog) -> dict[tuple[str, str], float]:
    """Host and precision -> the highest rate that any of its sessions reached."""
    peaks: dict[tuple[str, str], float] = {}
    for machine_speed in run_log.machine_speeds:
        for precision, rate in machine_speed.peak_gflops.items():
            key = run_log.host(machine_speed.session), precision
            peaks[key] = max(rate, peaks.get(key, 0))
    return peaks


def row(
    run_log: RunLog,
    case: Case,
    of_run_log: dict[Case, CaseEstimate],
    alone: dict[Case, CaseEstimate],
    peaks: dict[tuple[str, str], float],
) -> dict:
    """One row; `alone` holds the estimates of feature maps. Columns end in their unit; what was not seen is empty."""
    estimate, mode = of_run_log[case], modes.find(case.mode)
    runs = estimate.raw
    measured = [run for run in runs if run.samples_ms]
    seen = measured[0] if measured else Run(case=case)
    low, high = estimate.interval_ms
    latency, throughput = estimate.latency_ms, case.batch_size / estimate.latency_ms * 1e3
    gmacs = seen.gmacs or NAN  # where it could not be counted
    gflops = 2 * gmacs / latency * 1e3
    params = seen.params or NAN
    known = zoo.BY_MODEL.get(case.model)
    before = of_run_log.get(msgspec.structs.replace(case, mode=BASELINE), estimates.NOTHING)
    speedup = estimates.speedup(before, estimate)
    return {
        "machine": run_log.name,
        "cpu": run_log.header.machine.label,
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
        **ending(runs, measured),
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
        "valid_share": estimate.valid_share,
        "host": estimate.host,
        "hosts": len(estimate.hosts),
        "carried": bool(estimate.carried),
        "rounds": len(estimate.of_host),
        "samples": estimate.samples,
        **costs(case, [run for run in measured if run.status == "ok"]),
        "gflop_s": gflops,
        "peak_share": gflops
        / peaks.get((estimate.first_host if estimate.carried else estimate.host, mode.precision), NAN),
        "rel_error": max((v.rel_error for v in measured if v.rel_error is not None), default=NAN),
        "argmax_agreement": min((v.argmax_agreement for v in measured if v.argmax_agreement is not None), default=NAN),
        "output_std": NAN if seen.output_std is None else seen.output_std,
        "efficiency_img_s_m": throughput / (params / 1e6),
        "top1": known.top1 if known and known.top1 else NAN,
        "torch": run_log.header.versions.get("torch", ""),
    }


def ending(runs: list[Run], measured: list[Run]) -> dict[str, str]:
    """How a case ended: well where any run did and none computed something else; and why runs failed."""
    worst = next((run for run in runs if run.status == "wrong"), runs[-1])
    failures = [run for run in runs if run.status != "ok"]
    well = any(run.status == "ok" for run in measured) and worst.status != "wrong"
    reason = f"{len(failures)} of {len(runs)} runs: {failures[-1].reason}" if failures else ""
    return {"status": "ok" if well else worst.status, "reason": reason}


def decoder_share(case: Case, estimate: CaseEstimate, alone: dict[Case, CaseEstimate]) -> float:
    """Of the latency, by the estimates on one host: they may have been measured in sessions of their own."""
    maps = alone.get(msgspec.structs.replace(case, decoder=FEATURES, classes=0, output="logits"), estimates.NOTHING)
    alike = case.classes and maps and estimate and maps.host == estimate.host
    return 1 - maps.latency_ms / estimate.latency_ms if alike else NAN


def costs(case: Case, runs: list[Run]) -> dict[str, float]:
    """What runs that went well needed beside time."""
    memory = [run.memory_mb for run in runs if run.memory_mb is not None]
    return {
        "page_faults": mean(run.page_faults for run in runs),
        "memory_mb_img": min(memory, default=NAN) / case.batch_size,  # a heap's fragments only ever add
        # Of runs that found on disk what they needed: exporting and compiling leave much behind.
        "loaded_mb": min((v.loaded_mb for v in runs if v.loaded_mb is not None and v.cache != "cold"), default=NAN),
        "prepare_s": mean(v.phases_s["prepare"] + v.saved_s for v in runs if v.cache != "warm" or v.saved_s),
        "prepare_warm_s": mean(run.phases_s["prepare"] for run in runs if run.cache == "warm"),
    }


def mean(values: Iterable[float]) -> float:
    values = [*values]
    return float(np.mean(values)) if values else NAN


def one_allocator(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the allocator retained, or, where there are none, with the other."""
    return frame[frame.allocator == min(frame.allocator, default="")]


def competes(frame: pd.DataFrame) -> pd.Series:
    """Which rows do: right, of a mode that the code knows, with the allocator retained."""
    return (frame.status == "ok") & (frame.allocator == "retained") & (frame.precision.map(modes.ranking) != "")


def best(frame: pd.DataFrame, by: str = "throughput_img_s", keys: list[str] = NETWORK) -> pd.DataFrame:
    """The row of the fastest valid mode per network and ranking, with `tied_modes`: the others that are not
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
    """Of rows in falling order of `by`: a rank is that of the first row that a row is not significantly different from."""
    apart = significantly_different(rows, by)
    ranks, first = [], 0
    for place in range(len(apart)):
        if apart[first, place]:
            first = place
        ranks.append(first + 1)
    return ranks


def significantly_different(rows: pd.DataFrame, by: str) -> np.ndarray:
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
    """A row per machine and network at its fastest valid mode, with what autocast+compile and that mode bring; the
    fastest first."""
    both = frame[(frame["mode"] == "autocast+compile") & (frame.allocator == "retained")].set_index(NETWORK).speedup
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
