"""Tables of the sweeps themselves: what was measured, what more would cost, and how finely it ranks."""

from collections import Counter
from statistics import median

import pandas as pd

from benchmarks import catalogue
from benchmarks.catalogue import NOTHING, AllResults
from segbench import modes, zoo
from segbench.analysis import markdown, tables
from segbench.analysis.tables import Results
from segbench.cases import DECODERS, FEATURES
from segbench.run_log import RunLog

APART = 1.05  # throughputs of neighbours in a ranking that ought to be significantly different


def unlabelled(results: Results) -> list[RunLog]:
    return [run_log for run_log in results.run_logs if run_log.name == run_log.header.machine.name]


def sweeps(results_of: AllResults) -> str:
    """What was measured where and when: a row per run log without a label."""
    pairs = [(name, run_log) for name, results in results_of.items() for run_log in unlabelled(results)]
    rows = []
    for name, run_log in pairs:
        counts = Counter(run.case for run in run_log.runs)
        row = {"benchmark": name, "machine": run_log.name, "networks": len({case.network for case in counts})}
        row |= {"modes": len({case.mode for case in counts}), "cases": len(counts)}
        row |= {"runs a case, median": median(counts.values())}
        row |= {"hours": sum(run.seconds for run in run_log.runs) / 3600, "when": tables.days(run_log.runs)}
        rows.append(row)
    digits = {"networks": 0, "modes": 0, "cases": 0, "runs a case, median": 0, "hours": 1}
    return markdown.table(pd.DataFrame(rows), digits)


def significantly_different(results_of: AllResults) -> str:
    """Neighbours in the rankings of each network at its fastest valid mode, whose throughputs differ by APART or more:
    how many are significantly different by the 95 % interval of the ratio."""
    rows = []
    for name in ("encoder_only", "fpn_decoder", "unet_decoder"):
        frame = results_of.get(name, NOTHING).rows
        if frame.empty:
            continue
        top = tables.ranking(frame[frame.decoder != FEATURES])
        for (machine, ranking), group in top.groupby(["machine", "ranking"]):
            values = group.throughput_img_s
            apart = tables.significantly_different(group, "throughput_img_s").diagonal(1)
            told = apart[(values / values.shift(-1) >= APART).to_numpy()[:-1]]  # of those that differ by so much
            row = {"benchmark": name, "machine": machine, "ranking": ranking, "networks": len(group)}
            row |= {"runs a case, median": group.rounds.median()}
            row |= {f"neighbours {APART - 1:.0%} or more apart": len(told), "significantly different": int(told.sum())}
            rows.append(row | {"share": told.mean() if len(told) else float("nan")})
    frame = pd.DataFrame(rows)
    return markdown.table(frame, dict.fromkeys([*frame.columns[3:-1]], 0) | {"share": 2})


def answers(results_of: AllResults) -> str:
    """A row per machine and precision: the fastest ways that any benchmark of encoders found."""
    rows = []
    for machine in catalogue.machines(results_of):
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
    frames = [catalogue.of_machine(results_of, name, machine).rows for name in names]
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


README_TABLES = {"answers": answers, "significantly-different": significantly_different, "sweeps": sweeps}
