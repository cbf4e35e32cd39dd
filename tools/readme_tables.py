"""The tables of README.md: a row per machine, or the machine that has most cases."""

import re

import pandas as pd

from benchmarks import overview
from benchmarks.catalogue import NOTHING, ROOT, AllResults, machines, of_machine
from segbench import modes, zoo
from segbench.analysis import markdown, tables
from segbench.analysis.tables import Results
from segbench.cases import DECODERS
from segbench.modes import BASELINE

LABELLED = re.compile("-(long|hours|background_load)$")  # repetitions over hours, or beside a background load
PROTOCOLS = {
    "drift-corrected": "this protocol",
    "alone": "a session by itself",
    "all_samples": "all its samples",
    "fixed-iteration": "the fixed-iteration protocol",
}
# Of the ways to segment a whole CT: the reference project's 2D network, and all 3D ones.
WAYS = ("mobileone_s0 + UNet", *(run.name for run in zoo.RELEASED))


def largest(results_of: AllResults, benchmark: str) -> Results:
    """Of the machine with the most cases."""
    machines = results_of.get(benchmark, NOTHING).machines()
    return of_machine(results_of, benchmark, machines[0]) if machines else NOTHING


def answers(results_of: AllResults) -> str:
    """A row per machine and precision: the fastest ways that any benchmark of encoders found."""
    rows = []
    for machine in machines(results_of):
        cpu = next(r.of_machine(machine).run_logs[0] for r in results_of.values() if r.of_machine(machine).run_logs)
        frame = measured(results_of, machine)
        shown = f"[{machine}](results/{machine}.md): {cpu.header.machine.label}".rsplit(",", 1)[0]
        for precision in modes.PRECISIONS:
            own = frame[frame.precision == precision]
            if not own.empty and not tables.best(own).empty:
                row = {"machine": shown, "precision": precision.upper()}
                row |= {DECODERS[decoder]: winner(own[own.decoder == decoder]) for decoder in ("", "fpn", "unet")}
                rows.append(row | {"brings most, median": gain(own)})
                shown = ""
    return markdown.table(pd.DataFrame(rows))


def measured(results_of: AllResults, machine: str) -> pd.DataFrame:
    """The rows of a machine's encoders, alone and with decoders, whatever benchmark they are from; of what several
    measured the one with the most runs, not the fastest, which would be luck."""
    names = ("encoder_only", "fpn_decoder", "unet_decoder", "runtimes")
    frames = [of_machine(results_of, name, machine).rows for name in names]
    frames = [frame.assign(machine=machine) for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=["precision"])
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[frame.decoder.isin(("", "fpn", "unet"))].sort_values("rounds", ascending=False, kind="stable")
    return frame.drop_duplicates(["model", "decoder", "mode", "allocator"])


def winner(frame: pd.DataFrame) -> str:
    """The fastest, how many others share its rank, and of how many where it is less than half the zoo."""
    top = tables.ranking(frame)
    if top.empty:
        return ""
    first = next(top.itertuples())
    mode = first.mode + ", by its speedup on another host" * first.carried
    text = f"{first.model} {'at least ' * (first.quality == 'at least')}{first.throughput_img_s:.1f} ({mode})"
    level = int((top["rank"] == 1).sum()) - 1
    return text + f", level with {level}" * bool(level) + f", of {len(top)}" * (len(top) < len(zoo.ENCODERS) / 2)


def gain(frame: pd.DataFrame) -> str:
    """The mode that brings most in the median over the networks; at least half as many as another mode ran on."""
    gains = tables.gains(tables.one_allocator(frame))
    gains = gains[gains.encoders >= gains.encoders.max() / 2].sort_values("median")
    if gains.empty:
        return ""
    best = gains.iloc[-1]
    return f"{best['median']:.2f} ({best['mode']})"


def five_encoders(results_of: AllResults) -> str:
    """The five headline encoders on the machine with the most cases."""
    rows = largest(results_of, "encoder_only").rows
    top = tables.fastest(rows[rows.model.isin(zoo.FIVE)])
    spans = markdown.spans(top.throughput_low, top.throughput_high)
    columns = {
        "encoder": top.model,
        "params, M": top.params_m,
        "fastest valid mode": top.best_mode,
        "img/s (95 % interval)": [f"{v:.1f} ({s})" for v, s in zip(top.throughput_img_s, spans, strict=True)],
        "img/s per M": top.efficiency_img_s_m,
        "MB per image": top.memory_mb_img,
    }
    return markdown.table(pd.DataFrame(columns), {"params, M": 2, "img/s per M": 1, "MB per image": 1})


def families(results_of: AllResults) -> str:
    """The zoo."""
    rows = []
    for family in zoo.FAMILIES:
        members = [encoder for encoder in zoo.ENCODERS if encoder.family == family]
        sizes = [encoder.params_m for encoder in members]
        names = " to ".join(dict.fromkeys(f"`{member.model}`" for member in (members[0], members[-1])))
        rows.append(
            {
                "family": family,
                "encoders": len(members),
                "models": names,
                "params, M": f"{min(sizes):.1f} to {max(sizes):.1f}",
            }
        )
    return markdown.table(pd.DataFrame(rows))


def runtimes(results_of: AllResults) -> str:
    """By mode but the one they are over, on the machine with the most cases; of modes that ran on four fifths of the
    networks or more."""
    from benchmarks.runtimes import report

    results = largest(results_of, "runtimes")
    if not results.run_logs:
        return ""
    shown = report.gains(results)
    frame = shown.frame[shown.frame.networks >= 0.8 * shown.frame.networks.max()]
    frame = frame[frame["mode"] != modes.BASELINE]
    head = {"mode": f"mode, on {results.run_logs[0].name}"}
    frame = frame.drop(columns=["networks", "prepare, s", "from disk, s"]).rename(columns=head)
    return markdown.table(frame, shown.digits)


def shares(results_of: AllResults) -> str:
    """Of the peak, by mode, on the machine with the most cases."""
    from benchmarks.runtimes import report

    shown = report.shares(largest(results_of, "runtimes"))
    return markdown.table(shown.frame, shown.digits)


def background_load(results_of: AllResults) -> str:
    """What modes keep beside a busy process: means over the networks, a column per machine."""
    from benchmarks.runtimes import report

    kept = report.kept(results_of.get("runtimes", NOTHING))
    if kept.empty:
        return ""
    rows = []
    for mode in modes.in_order(kept["mode"]):
        of_mode = kept[kept["mode"] == mode]
        row = {"mode": mode}
        for machine, shares in of_mode.groupby("machine", sort=False).kept:
            row[f"share kept, {machine}"] = f"{shares.mean():.2f} ({shares.min():.2f} to {shares.max():.2f})"
        rows.append(row)
    return markdown.table(pd.DataFrame(rows))


def precision(results_of: AllResults) -> str:
    """Dice in lower precision, all machines."""
    from benchmarks.precision import report

    rows = report.evidence(ROOT / "benchmarks" / "precision")
    return markdown.table(report.shown(report.summary(rows))) if len(rows) else ""


def label_ways(results_of: AllResults) -> str:
    """From image to labels, on the machine with the most cases."""
    from benchmarks.labels import report

    results = largest(results_of, "labels")
    return markdown.table(*report.means(results)[:2]) if results.run_logs else ""


def label_kernels(results_of: AllResults) -> str:
    """The kernels on all machines."""
    from benchmarks.labels import report

    shown = report.shown_kernels(ROOT / "benchmarks" / "labels")
    return markdown.table(*shown[:2]) if len(shown.frame) else ""


def whole_ct_runs(results_of: AllResults) -> str:
    """Whole CTs that were run, all machines."""
    from benchmarks.whole_ct import report

    shown = report.shown(report.summary(report.evidence(ROOT / "benchmarks" / "whole_ct")))
    return markdown.table(*shown[:2]) if len(shown.frame) else ""


def whole_ct_short(results_of: AllResults) -> str:
    """The same in one line a network: seconds and peak memory stock, and fast at each precision."""
    from benchmarks.whole_ct import report

    frame = report.summary(report.evidence(ROOT / "benchmarks" / "whole_ct"))
    rows = []
    for (machine, model, _, voxels, _), group in frame.groupby(report.SETTING, sort=False) if len(frame) else []:
        came, fast = group[group.way != "fast"], group[group.way == "fast"]
        if came.empty:
            continue
        row = {f"network, on {machine}": model, "CT, voxels": voxels, "stock": seconds_and_memory(came)}
        for precision in ("fp32", "bf16"):
            row[f"fast, {precision.upper()}"] = seconds_and_memory(fast[fast.precision == precision])
        rows.append(row)
    return markdown.table(pd.DataFrame(rows)) if rows else ""


def seconds_and_memory(ways: pd.DataFrame) -> str:
    """`68 s, 16.6 GB` of the fastest."""
    if ways.empty:
        return ""
    best = ways.loc[ways.whole_s.idxmin()]
    return f"{best.whole_s:.0f} s, {best.peak_mb / 1e3:.1f} GB"


def fpn_against_unet(results_of: AllResults) -> str:
    """By mode, on the machine with the most cases."""
    from benchmarks.combined import report

    results = largest(results_of, "combined_benchmark")
    frame = report.over_all(results).frame
    spans = markdown.spans(frame["FPN over UNet, lowest"], frame.highest, 2)
    columns = {
        f"mode, on {', '.join(results.machines())}": frame["mode"],
        "FPN over UNet, median (range)": [f"{v:.2f} ({s})" for v, s in zip(frame["median"], spans, strict=True)],
        "beyond its interval": [
            f"{n} of {all}" for n, all in zip(frame["interval above 1"], frame.encoders, strict=True)
        ],
        "parameters": frame.parameters,
        "GMACs": frame.GMACs,
        "memory": frame.memory,
    }
    return markdown.table(pd.DataFrame(columns), {"parameters": 2, "GMACs": 2, "memory": 2})


def whole_cts(results_of: AllResults) -> str:
    """A whole CT, on the machine with the most cases."""
    from benchmarks.official import costs

    results = largest(results_of, "benchmark_official")
    frame = costs.costs(results)
    slow = frame[frame["mode"] == BASELINE].set_index("way").ct_s
    top = costs.ranked_costs(frame)
    fastest = top[top.kind == "2D"].way.head(1).tolist()
    top = top[top.way.isin([*WAYS, *fastest])]
    columns = {
        f"network, on {', '.join(results.machines())}": top.way,
        "fastest valid mode": top["mode"],
        "s per CT": top.ct_s,
        "eager FP32": top.way.map(slow),
        "TMAC": top.ct_tmac,
    }
    digits = {"s per CT": 0, "eager FP32": 0, "TMAC": 1}
    return markdown.table(pd.DataFrame(columns), digits)


def promises(results_of: AllResults, protocols: tuple[str, ...] = (*PROTOCOLS,), labelled: bool = True) -> str:
    """What each protocol keeps, worst and median case: a row per run log."""
    from benchmarks.repeatability import report

    frame, rows = report.promises(results_of.get("repeatability", NOTHING)).frame, []
    for machine, group in frame.groupby("machine", sort=False):
        found = group.set_index("protocol")
        row = {"machine": machine, "cases": found.cases["drift-corrected"]}
        for protocol in protocols:
            worst, median = (found[f"spread, {which}"][protocol] for which in ("worst", "median"))
            row[PROTOCOLS[protocol]] = f"{worst:.2f} / {median:.2f} / {found.coverage[protocol]:.2f}"
        rows += [row] * (labelled or not LABELLED.search(machine))
    return markdown.table(pd.DataFrame(rows), {"cases": 0})


def promises_short(results_of: AllResults) -> str:
    """This protocol and the usual one, on machines that nothing was run beside on purpose."""
    return promises(results_of, ("drift-corrected", "fixed-iteration"), labelled=False)


def agreement(results_of: AllResults) -> str:
    """How far orders carry over to other CPUs."""
    from studies import agreement

    return markdown.table(*agreement.shown(results_of)[:2])


def agreement_families(results_of: AllResults) -> str:
    """By family, against timm's tables."""
    from studies import agreement

    return markdown.table(*agreement.by_family(results_of)[:2])


TABLES = {
    "answers": answers,
    "five": five_encoders,
    "families": families,
    "runtimes": runtimes,
    "shares": shares,
    "background_load": background_load,
    "precision": precision,
    "label-ways": label_ways,
    "label-kernels": label_kernels,
    "whole-ct-runs": whole_ct_runs,
    "whole-ct-short": whole_ct_short,
    "fpn-against-unet": fpn_against_unet,
    "whole-cts": whole_cts,
    "agreement": agreement,
    "agreement-families": agreement_families,
    "told-apart": overview.significantly_different,
    "sweeps": overview.sweeps,
    "all-of-timm": overview.all_of_timm,
    "promises": promises,
    "promises-short": promises_short,
}
