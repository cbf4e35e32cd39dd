"""Run logs in, a data frame with a row per case out. Nothing here measures or asks anything of this machine."""

import math
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from .. import modes, zoo
from ..cases import DECODERS, FEATURES, OUTPUTS, Case, sides
from ..modes import BASELINES
from ..records import Run
from ..run_log import RunLog, replacing
from . import estimates
from .estimates import NAN, CaseEstimate
from .rankings import competes

OVER_RETAINED = ("over_retained", "over_retained_low", "over_retained_high")
# Sweeps with other decoders need not time the encoders' feature maps again: those of the sweep with FPN serve.
FEATURE_MAPS = Path(__file__).parents[2] / "benchmarks" / "fpn_decoder" / "run_logs"


class Results:
    """Run logs of one benchmark and their estimates, computed once: tables, pages and pictures are made of these."""

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
        """Estimates of the encoders' feature maps alone: the run log's, or where it has none those in FEATURE_MAPS, if
        they are of the same machine, settings and versions."""
        measured = self.estimates(run_log)
        if any(case.decoder == FEATURES for case in measured) or not any(case.classes for case in measured):
            return measured
        other = RunLog.read(FEATURE_MAPS / run_log.name)
        header = msgspec.structs.replace(run_log.header, benchmark=other.benchmark)
        return self.estimates(other) if other.headers and not other.difference(header) else measured

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
        over baseline, `over_retained` over baseline with the allocator retained. The index is that of `cases`."""
        peaks = {run_log.folder: peak_gflops(run_log) for run_log in self.run_logs}
        alone = {run_log.folder: self.feature_maps(run_log) for run_log in self.run_logs}
        rows = [
            row(run_log, case, self.estimates(run_log), alone[run_log.folder], peaks[run_log.folder])
            for run_log, case in self.cases
        ]
        frame = pd.DataFrame(rows, columns=list(rows[0]) if rows else None)
        return frame.assign(tied=self.tied(frame)) if rows else frame

    def tied(self, frame: pd.DataFrame) -> list[bool]:
        """Per row whether its mode is the fastest valid one of its network and ranking, or tied with it by the interval
        of the ratio of the two."""
        networks: dict[tuple, list[int]] = {}
        for place in np.flatnonzero(competes(frame)):
            run_log, case = self.cases[place]
            network = msgspec.structs.replace(case, mode="")
            networks.setdefault((run_log.folder, network, modes.ranking(frame.precision[place])), []).append(place)
        tied = [False] * len(frame)
        for places in networks.values():
            of_place = {place: self.estimates(self.cases[place][0])[self.cases[place][1]] for place in places}
            fastest = min(of_place.values(), key=lambda estimate: estimate.latency_ms)
            for place, estimate in of_place.items():
                tied[place] = estimate is fastest or not estimates.speedup(estimate, fastest).low > 1
        return tied

    @cached_property
    def cases(self) -> list[tuple[RunLog, Case]]:
        pairs = [(run_log, case) for run_log in self.run_logs for case in self.estimates(run_log)]
        if self.only_host:
            pairs = [(run_log, case) for run_log, case in pairs if self.measured(run_log, case)]
        return sorted(pairs, key=lambda pair: (pair[0].name, *order(pair[1])))

    def measured(self, run_log: RunLog, case: Case) -> bool:
        """Whether `only_host` measured a case."""
        sessions = run_log.hosts().get(self.only_host, [])
        return any(run.session in sessions for run in self.estimates(run_log)[case].raw)

    def ratios(self, column: str, other: Callable[[Case], Case]) -> pd.DataFrame:
        """For every row throughput over that of `other`(its case), with its interval and the pairs of runs that it is
        from: `column`, `column`_low, _high and _pairs."""
        ratios = []
        for run_log, case in self.cases:
            of_run_log = self.estimates(run_log)
            ratios.append(estimates.speedup(of_run_log.get(other(case), estimates.NOTHING), of_run_log[case])[:4])
        return pd.DataFrame(ratios, columns=[column, *(f"{column}_{name}" for name in ("low", "high", "pairs"))])

    def dates(self) -> dict[str, str]:
        """Machine -> the days of its first and last run."""
        return {run_log.name: days(run_log.runs) for run_log in self.run_logs}


def days(runs: list[Run]) -> str:
    """`2026-11-24 to 2026-11-26`"""
    first, last = (extreme(run.started for run in runs)[:10] for extreme in (min, max))
    return first if first == last else f"{first} to {last}"


def order(case: Case) -> tuple:
    """Sort key of a case in tables; what the code does not know comes last."""
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
    )


def peak_gflops(run_log: RunLog) -> dict[tuple[str, str], float]:
    """Host and precision -> the highest rate that any of its sessions reached."""
    peaks, host_of = {}, run_log.host_of()
    for machine_speed in run_log.machine_speeds:
        for precision, rate in machine_speed.peak_gflops.items():
            key = host_of[machine_speed.session], precision
            peaks[key] = max(rate, peaks.get(key, 0))
    return peaks


def row(
    run_log: RunLog,
    case: Case,
    of_run_log: dict[Case, CaseEstimate],
    alone: dict[Case, CaseEstimate],
    peaks: dict[tuple[str, str], float],
) -> dict:
    """One row; `alone` holds the estimates of feature maps. Columns end in their unit; an unknown value is empty."""
    estimate, mode = of_run_log[case], modes.find(case.mode)
    runs = estimate.raw
    measured = [run for run in runs if run.samples_ms]
    first_run = measured[0] if measured else Run(case=case)
    low, high = estimate.interval_ms
    latency, throughput = estimate.latency_ms, case.batch_size / estimate.latency_ms * 1e3
    gmacs = first_run.gmacs or NAN  # where it could not be counted
    gflops = 2 * gmacs / latency * 1e3
    params = first_run.params or NAN
    known = zoo.BY_MODEL.get(case.model)
    baselines = [of_run_log.get(case.under(mode), estimates.NOTHING) for mode in BASELINES]
    speedup, over_retained = (estimates.speedup(baseline, estimate)[:5] for baseline in baselines)
    host = estimate.first_host if estimate.carried else estimate.host  # whose figures these are
    return {
        "machine": run_log.name,
        "cpu": run_log.header.machine.title,
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
        "allocator": mode.allocator or "default",
        **ending(runs, measured),
        "params_m": params / 1e6,
        "decoder_params_m": (first_run.decoder_params or NAN) / 1e6,
        "gmacs": gmacs / case.batch_size,
        "decoder_gmacs": (first_run.decoder_gmacs or NAN) / case.batch_size,
        "latency_ms": latency,
        "throughput_img_s": throughput,
        "throughput_low": case.batch_size / high * 1e3,
        "throughput_high": case.batch_size / low * 1e3 if low else math.inf,
        "throughput_all": case.batch_size / estimate.all_samples_ms * 1e3,
        "quality": estimate.quality,
        "half_width": estimate.half_width_on_host,
        **dict(zip(("speedup", "speedup_low", "speedup_high", "pairs", "valid_pairs"), speedup, strict=True)),
        **dict(zip((*OVER_RETAINED, "retained_pairs", "retained_valid_pairs"), over_retained, strict=True)),
        "decoder_share": decoder_share(case, estimate, alone),
        "valid_share": estimate.valid_share,
        "host": estimate.host,
        "hosts": len(estimate.hosts),
        "carried": bool(estimate.carried),
        "rounds": len(estimate.host_runs),
        "samples": estimate.samples,
        **costs(case, [run for run in measured if run.status == "ok"]),
        "gflop_s": gflops,
        "peak_share": gflops / peaks.get((host, mode.precision), NAN),
        "rel_error": max((run.rel_error for run in measured if run.rel_error is not None), default=NAN),
        "argmax_agreement": min(
            (run.argmax_agreement for run in measured if run.argmax_agreement is not None), default=NAN
        ),
        "output_is": next((run.ran["output"] for run in measured if "output" in run.ran), ""),
        "output_std": NAN if first_run.output_std is None else first_run.output_std,
        "efficiency_img_s_m": throughput / (params / 1e6),
        "top1": known.top1 if known and known.top1 else NAN,
        "torch": run_log.header.versions.get("torch", ""),
    }


def ending(runs: list[Run], measured: list[Run]) -> dict[str, str]:
    """`ok` where a run was and none was wrong; and why runs failed."""
    worst = next((run for run in runs if run.status == "wrong"), runs[-1])
    failures = [run for run in runs if run.status != "ok"]
    succeeded = any(run.status == "ok" for run in measured) and worst.status != "wrong"
    reason = f"{len(failures)} of {len(runs)} runs: {failures[-1].reason}" if failures else ""
    return {"status": "ok" if succeeded else worst.status, "reason": reason}


def decoder_share(case: Case, estimate: CaseEstimate, alone: dict[Case, CaseEstimate]) -> float:
    """The decoder's share of the latency, where feature maps and network were estimated on one host."""
    maps = alone.get(msgspec.structs.replace(case, decoder=FEATURES, classes=0, output="logits"), estimates.NOTHING)
    comparable = case.classes and maps and estimate and maps.host == estimate.host
    return 1 - maps.latency_ms / estimate.latency_ms if comparable else NAN


def costs(case: Case, runs: list[Run]) -> dict[str, float]:
    """What successful runs needed beside time."""
    memory = [run.memory_mb for run in runs if run.memory_mb is not None]
    timed = [run for run in runs if "prepare" in run.phases_s]
    warm = [run for run in runs if run.cache != "cold"]  # exporting and compiling leave much in memory
    return {
        "page_faults": mean(run.page_faults for run in runs),
        "memory_mb_img": min(memory, default=NAN) / case.batch_size,  # a heap's fragments only ever add
        "unpack_ms": min((run.unpack_ms for run in runs if run.unpack_ms is not None), default=NAN),
        "loaded_mb": min((run.loaded_mb for run in warm if run.loaded_mb is not None), default=NAN),
        "prepare_s": mean(run.phases_s["prepare"] + run.saved_s for run in timed if run.cache != "warm" or run.saved_s),
        "prepare_warm_s": mean(run.phases_s["prepare"] for run in timed if run.cache == "warm"),
    }


def mean(values: Iterable[float]) -> float:
    values = [*values]
    return float(np.mean(values)) if values else NAN


def csv(frame: pd.DataFrame) -> str:
    """The text of a CSV: six significant digits, the same on every machine."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    with replacing(path) as draft:
        draft.write_text(csv(frame))
