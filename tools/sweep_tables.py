"""Tables of the sweeps themselves: what was measured, what more would cost, and how finely it ranks."""

from collections import Counter
from statistics import mean, median

import pandas as pd
from all_journals import NOTHING, AllResults

from segbench import markdown, tables
from segbench.cases import FEATURES
from segbench.journal import Journal
from segbench.tables import Results

APART = 1.05  # throughputs of neighbours in a ranking that ought to be told apart
TIMM, MODES, ROUNDS = 1300, 8, 4  # timm's encoders with published weights, about


def unlabelled(results: Results) -> list[Journal]:
    return [journal for journal in results.journals if journal.name == journal.header.machine.name]


def sweeps(results_of: AllResults) -> str:
    """What was measured where and when: a row per journal without a label."""
    pairs = [(name, journal) for name, results in results_of.items() for journal in unlabelled(results)]
    rows = []
    for name, journal in pairs:
        counts = Counter(visit.case for visit in journal.visits)
        row = {"benchmark": name, "machine": journal.name, "networks": len({case.network for case in counts})}
        row |= {"modes": len({case.mode for case in counts}), "cases": len(counts)}
        row |= {"visits a case, median": median(counts.values())}
        row |= {"hours": sum(visit.seconds for visit in journal.visits) / 3600, "when": tables.days(journal.visits)}
        rows.append(row)
    digits = {"networks": 0, "modes": 0, "cases": 0, "visits a case, median": 0, "hours": 1}
    return markdown.table(pd.DataFrame(rows), digits)


def all_of_timm(results_of: AllResults) -> str:
    """What TIMM encoders under MODES modes in ROUNDS rounds would take, by what visits of encoder_only took: a row per
    machine."""
    rows = []
    for journal in unlabelled(results_of.get("encoder_only", NOTHING)):
        first = [visit.seconds for visit in journal.visits if visit.round == 1 and visit.seconds]
        later = [visit.seconds for visit in journal.visits if visit.round > 1 and visit.seconds]
        if not first or not later:
            continue
        size = sum(path.stat().st_size for path in journal.folder.glob("*.jsonl")) / len(journal.visits)
        row = {"machine": journal.name, "s a visit, first round": mean(first), "later rounds": mean(later)}
        row |= {"node-hours": TIMM * MODES * (mean(first) + (ROUNDS - 1) * mean(later)) / 3600}
        rows.append(row | {"kB a visit": size / 1e3, "journal, MB": TIMM * MODES * ROUNDS * size / 1e6})
    digits = {"s a visit, first round": 1, "later rounds": 1, "node-hours": 0, "kB a visit": 1, "journal, MB": 0}
    return markdown.table(pd.DataFrame(rows), digits)


def told_apart(results_of: AllResults) -> str:
    """Neighbours in the rankings of each network at its fastest right mode, whose throughputs differ by APART or more:
    how many are told apart by the 95 % interval of the ratio."""
    rows = []
    for name in ("encoder_only", "fpn_decoder", "unet_decoder"):
        frame = results_of.get(name, NOTHING).rows
        if frame.empty:
            continue
        top = tables.ranking(frame[frame.decoder != FEATURES])
        for (machine, ranking), group in top.groupby(["machine", "ranking"]):
            values = group.throughput_img_s
            apart = tables.told_apart(group, "throughput_img_s").diagonal(1)
            told = apart[(values / values.shift(-1) >= APART).to_numpy()[:-1]]  # of those that differ by so much
            row = {"benchmark": name, "machine": machine, "ranking": ranking, "networks": len(group)}
            row |= {"visits a case, median": group.rounds.median()}
            row |= {f"neighbours {APART - 1:.0%} or more apart": len(told), "told apart": int(told.sum())}
            rows.append(row | {"share": told.mean() if len(told) else float("nan")})
    frame = pd.DataFrame(rows)
    return markdown.table(frame, dict.fromkeys([*frame.columns[3:-1]], 0) | {"share": 2})
