"""Tables of the sweeps themselves: what was measured, what more would cost, and how finely it ranks."""

from collections import Counter
from statistics import mean, median

import pandas as pd

from benchmarks.catalogue import NOTHING, AllResults
from segbench.analysis import markdown, tables
from segbench.analysis.tables import Results
from segbench.cases import FEATURES
from segbench.run_log import RunLog

APART = 1.05  # throughputs of neighbours in a ranking that ought to be significantly different
TIMM, MODES, ROUNDS = 1300, 8, 4  # timm's encoders with published weights, about


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


def all_of_timm(results_of: AllResults) -> str:
    """What TIMM encoders under MODES modes in ROUNDS rounds would take, by what runs of encoder_only took: a row per
    machine."""
    rows = []
    for run_log in unlabelled(results_of.get("encoder_only", NOTHING)):
        first = [run.seconds for run in run_log.runs if run.round == 1 and run.seconds]
        later = [run.seconds for run in run_log.runs if run.round > 1 and run.seconds]
        if not first or not later:
            continue
        size = sum(path.stat().st_size for path in run_log.folder.glob("*.jsonl")) / len(run_log.runs)
        row = {"machine": run_log.name, "s a run, first round": mean(first), "later rounds": mean(later)}
        row |= {"node-hours": TIMM * MODES * (mean(first) + (ROUNDS - 1) * mean(later)) / 3600}
        rows.append(row | {"kB a run": size / 1e3, "run log, MB": TIMM * MODES * ROUNDS * size / 1e6})
    digits = {"s a run, first round": 1, "later rounds": 1, "node-hours": 0, "kB a run": 1, "run log, MB": 0}
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
