"""The tables of README.md: a row per machine, or the machine that has most cases."""

import pandas as pd

from segbench import markdown, tables, whole_ct, zoo
from segbench.cases import DECODERS
from segbench.modes import BASELINE
from segbench.tables import Results

Found = dict[str, Results]  # by the name of the benchmark
NOTHING = Results([])
# Of the ways to segment a whole CT: the reference project's 2D network, and all 3D ones.
WAYS = ("mobileone_s0 + unet", *(run.name for run in zoo.RUNS))


def of_machine(found: Found, benchmark: str, machine: str) -> Results:
    return found.get(benchmark, NOTHING).of_machine(machine)


def machines(found: Found) -> list[str]:
    """That with the most cases first."""
    cases: dict[str, int] = {}
    for results in found.values():
        for journal in results.journals:
            name = journal.header.machine.name
            cases[name] = cases.get(name, 0) + len(results.estimates(journal))
    return sorted(cases, key=lambda name: (-cases[name], name))


def answers(found: Found) -> str:
    """A row per machine."""
    rows = []
    for machine in machines(found):
        cpu = next(r.of_machine(machine).journals[0] for r in found.values() if r.of_machine(machine).journals)
        row = {"machine": f"[{machine}](results/{machine}.md): {cpu.header.machine.label}"}
        row["fastest encoder, img/s"] = winner(of_machine(found, "encoder_only", machine))
        for decoder in ("fpn", "unet"):
            column = f"with {DECODERS[decoder]}"
            row[column] = winner(of_machine(found, f"{decoder}_decoder", machine), decoder)
        row["whole CT, s"] = whole(of_machine(found, "benchmark_official", machine))
        row["what the modes bring"] = gain(of_machine(found, "encoder_only", machine))
        rows.append(row)
    return markdown.table(pd.DataFrame(rows))


def winner(results: Results, decoder: str = "") -> str:
    """The fastest, and how many others its interval does not tell from it."""
    if not results.journals:
        return ""
    top = tables.ranking(results.rows[results.rows.decoder == decoder])
    if top.empty:
        return ""
    first, *others = top.itertuples()
    text = f"{first.model} {first.throughput_img_s:.1f} ({first.mode})"
    near = sum(not other.throughput_high < first.throughput_low for other in others)
    return text + f", {near} others not told from it" * bool(near)


def gain(results: Results) -> str:
    """The mode that brings most, of those that ran on most encoders."""
    if not results.journals:
        return ""
    gains = tables.gains(results.rows)
    gains = gains[gains.encoders == gains.encoders.max()].sort_values("median")
    if gains.empty:
        return ""
    best = gains.iloc[-1]
    return f"{best['mode']}: {best['median']:.2f} times eager FP32 in the median of {best.encoders}"


def whole(results: Results) -> str:
    """The slowest 2D way and all 3D ones, in the order of their seconds."""
    if not results.journals:
        return ""
    top = whole_ct.ranked_costs(whole_ct.costs(results))
    flat = top[top.kind == "2D"]
    parts = [f"2D {flat.ct_s.min():.0f} to {flat.ct_s.max():.0f}"] * bool(len(flat))
    parts += [f"{row.way} {row.ct_s:.0f}" for row in top[top.kind == "3D"].itertuples()]
    return "; ".join(parts)


def headline(found: Found) -> str:
    """The five headline encoders on the machine with the most cases."""
    rows = of_machine(found, "encoder_only", found["encoder_only"].machines()[0]).rows
    top = tables.fastest(rows[rows.model.isin(zoo.HEADLINE)])
    spans = markdown.spans(top.throughput_low, top.throughput_high)
    columns = {
        "encoder": top.model,
        "params, M": top.params_m,
        "fastest right mode": top.best_mode,
        "img/s (95 % interval)": [f"{v:.1f} ({s})" for v, s in zip(top.throughput_img_s, spans, strict=True)],
        "img/s per M": top.efficiency_img_s_m,
        "MB per image": top.memory_mb_img,
    }
    return markdown.table(pd.DataFrame(columns), {"params, M": 2, "img/s per M": 1, "MB per image": 1})


def families(found: Found) -> str:
    """The zoo."""
    rows = []
    for family in zoo.FAMILIES:
        members = [encoder for encoder in zoo.ENCODERS if encoder.family == family]
        sizes = [encoder.params_m for encoder in members]
        names = f"`{members[0].model}`" + f" to `{members[-1].model}`" * (len(members) > 1)
        rows.append(
            {
                "family": family,
                "encoders": len(members),
                "models": names,
                "params, M": f"{min(sizes):.1f} to {max(sizes):.1f}",
            }
        )
    return markdown.table(pd.DataFrame(rows))


def fpn_against_unet(found: Found) -> str:
    """By mode, on the machine with the most cases."""
    import combined_report

    results = found["combined_benchmark"]
    frame, _ = combined_report.over_all(results.of_machine(results.machines()[0]))
    spans = markdown.spans(frame["FPN over UNet, lowest"], frame.highest, 2)
    columns = {
        "mode": frame["mode"],
        "FPN over UNet, median (range)": [f"{v:.2f} ({s})" for v, s in zip(frame["median"], spans, strict=True)],
        "beyond its interval": [
            f"{n} of {of}" for n, of in zip(frame["interval above 1"], frame.encoders, strict=True)
        ],
        "parameters": frame.parameters,
        "GMACs": frame.GMACs,
        "memory": frame.memory,
    }
    return markdown.table(pd.DataFrame(columns), {"parameters": 2, "GMACs": 2, "memory": 2})


def whole_cts(found: Found) -> str:
    """A whole CT, on the machine with the most cases."""
    results = found["benchmark_official"]
    frame = whole_ct.costs(results.of_machine(results.machines()[0]))
    slow = frame[frame["mode"] == BASELINE].set_index("way").ct_s
    top = whole_ct.ranked_costs(frame)
    fastest = top[top.kind == "2D"].way.head(1).tolist()
    top = top[top.way.isin([*WAYS, *fastest])]
    columns = {
        "network": top.way,
        "fastest right mode": top["mode"],
        "s per CT": top.ct_s,
        "from all samples": top.ct_all_s,
        "eager FP32": top.way.map(slow),
        "TMAC": top.ct_tmac,
    }
    digits = {"s per CT": 0, "from all samples": 0, "eager FP32": 0, "TMAC": 1}
    return markdown.table(pd.DataFrame(columns), digits)


def promises(found: Found) -> str:
    """What each protocol keeps, with and without a noisy neighbour."""
    import repetition_report

    frame, digits = repetition_report.promises(found["repeatability"])
    columns = ["machine", "protocol", "cases", "spread, worst", "spread, median", "coverage"]
    return markdown.table(frame[columns], digits)


TABLES = {
    "answers": answers,
    "headline": headline,
    "families": families,
    "fpn-against-unet": fpn_against_unet,
    "whole-cts": whole_cts,
    "promises": promises,
}
