"""Tables over several benchmarks: the fastest networks and modes, what was measured, and how finely it ranks."""

from collections import Counter
from collections.abc import Iterable
from itertools import product
from statistics import median

import numpy as np
import pandas as pd

from benchmarks import catalogue
from benchmarks.catalogue import NOTHING, AllResults
from benchmarks.runtimes import report as runtimes
from segbench import modes as segbench_modes
from segbench import zoo
from segbench.analysis import markdown, rankings, tables
from segbench.cases import DECODERS, FEATURES

NEIGHBOURS = 1.05  # throughputs of neighbours in a ranking that ought to be significantly different
SWEEPS = ("encoder_only", "fpn_decoder", "unet_decoder")
WANTED = ("", "fpn", "unet")  # of DECODERS
DIGITS = {"images/s": 1, "all samples": 1, "rounds": 0, "tied networks": 0, "networks measured": 0}


def pick(results_of: AllResults) -> str:
    """On the machine with the most cases: the fastest network with each decoder, in FP32 and BF16."""
    machine = next(iter(catalogue.machines(results_of)), "")
    frame = fastest_networks(results_of, [machine], ("fp32", "bf16")) if machine else pd.DataFrame()
    if frame.empty:
        return ""
    shown = frame.drop(columns=["CPU", "all samples", "runtimes", *([] if frame.note.any() else ["note"])])
    basis = catalogue.basis(results_of, [*SWEEPS, "runtimes"], machine)
    return f"On {catalogue.cpus(results_of)[machine]}; {basis}:\n\n{markdown.table(shown, DIGITS)}"


def answers(results_of: AllResults) -> str:
    """The same on every machine and in every precision, with what was compared."""
    frame = fastest_networks(results_of, catalogue.machines(results_of), segbench_modes.PRECISIONS)
    return markdown.table(frame, DIGITS)


def fastest_networks(results_of: AllResults, machines: Iterable[str], precisions: Iterable[str]) -> pd.DataFrame:
    """A row per machine, decoder and precision."""
    rows = []
    for machine in machines:
        frame = measured(results_of, machine)
        for decoder in WANTED:
            for precision in precisions:
                alike = frame[(frame.decoder == decoder) & (frame.precision == precision)]
                top = rankings.ranking(alike)
                if len(top):
                    row = {"CPU": catalogue.cpus(results_of)[machine], "network for": DECODERS[decoder]}
                    row |= {"precision": precision.upper()} | fastest_network(top)
                    rows.append(row | {"runtimes": ", ".join(dict.fromkeys(alike[alike.status == "ok"].runtime))})
    return pd.DataFrame(rows)


def fastest_network(top: pd.DataFrame) -> dict:
    """The first of a ranking."""
    first = top.iloc[0]
    return {
        "network": first.model,
        "mode": first["mode"],
        "images/s": first.throughput_img_s,
        "95 % interval": markdown.span(first.throughput_low, first.throughput_high, 1),
        "all samples": first.throughput_all,
        "rounds": first.rounds,
        "tied networks": int((top["rank"] == 1).sum()) - 1,
        "networks measured": len(top),
        "note": "by its speedup on another host" if first.carried else "",
    }


def best_modes(results_of: AllResults) -> str:
    """Per machine, decoder and precision the mode with the highest median speedup over the same networks as others:
    over baseline where there are enough pairs, or else over baseline with the allocator retained."""
    rows = []
    for machine in catalogue.machines(results_of):
        frame = measured(results_of, machine)
        for decoder, precision in product(WANTED, segbench_modes.PRECISIONS):
            alike = frame[(frame.decoder == decoder) & frame.precision.isin(["fp32", precision])]
            gains_over = {over: rankings.gains(alike, over) for over in rankings.OVER}
            enough = [over for over, gains in gains_over.items() if len(gains) and gains.pairs.min() >= rankings.PAIRS]
            over = enough[0] if enough else rankings.over_what(alike)
            gains = gains_over[over]
            gains = gains[gains["mode"].map(lambda name: segbench_modes.find(name).precision) == precision]
            if len(gains):
                best = gains.loc[gains["median"].idxmax()]
                row = {"CPU": catalogue.cpus(results_of)[machine], "network for": DECODERS[decoder]}
                row |= {"precision": precision.upper(), "mode": best["mode"], "median speedup": best["median"]}
                row |= {"lowest": best.lowest, "highest": best.highest, "over": rankings.OVER[over].mode}
                rows.append(row | {"networks": best.networks, "pairs, at least": best.pairs})
    digits = {"median speedup": 2, "lowest": 2, "highest": 2, "networks": 0, "pairs, at least": 0}
    return markdown.table(pd.DataFrame(rows), digits)


def modes(results_of: AllResults) -> str:
    """A row per mode: mean speedup over eager FP32 with nothing set, as the mode comes and with the allocator retained,
    on the machine where the benchmark of runtimes made the most runs."""
    results = catalogue.largest(results_of, "runtimes")
    means = runtimes.means(results) if results.run_logs else pd.DataFrame()
    if means.empty:
        return ""
    names = [segbench_modes.BASELINES[1], *runtimes.LADDER[1:]]
    by_mode, rows = means.set_index(["mode", "kind"]), []
    for name in (name for name in names if name in {*means["mode"]}):
        row = {"mode": name, "precision": segbench_modes.find(name).precision.upper()}
        for suffix, heading in ("", ""), ("+retained", ", retained"):
            for kind in (kind for kind in WANTED if (name + suffix, kind) in by_mode.index):
                row[DECODERS[kind] + heading] = by_mode["mean"][name + suffix, kind]
        of_mode = means[means["mode"] == name]
        known = np.minimum(of_mode.high / of_mode["mean"], of_mode["mean"] / of_mode.low)  # one end may be open
        row["interval, at most"] = f"± {100 * (known.max() - 1):.0f} %"
        rows.append(row | {"pairs": of_mode.pairs.min(), "undisturbed": of_mode.valid_pairs.min()})
    kinds = [DECODERS[kind] + heading for heading in ("", ", retained") for kind in WANTED]
    frame = pd.DataFrame(rows)
    columns = [
        "mode",
        "precision",
        *(name for name in kinds if name in frame),
        "interval, at most",
        "pairs",
        "undisturbed",
    ]
    machine = results.machines()[0]
    where = f"On {catalogue.cpus(results_of)[machine]}; the same {means.networks.min()} encoders in every column"
    text = markdown.table(frame[columns], dict.fromkeys(kinds, 2) | {"pairs": 0, "undisturbed": 0})
    return f"{where}; {catalogue.basis(results_of, ['runtimes'], machine)}:\n\n{text}"


def measured(results_of: AllResults, machine: str) -> pd.DataFrame:
    """The rows of a machine's encoders, alone and with decoders, from all benchmarks; of a case that several measured
    the row with the most runs, for the fastest would be luck."""
    frames = [catalogue.of_machine(results_of, name, machine).rows for name in (*SWEEPS, "runtimes")]
    frames = [frame.assign(machine=machine) for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=["decoder", "precision", *rankings.NETWORK])
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[frame.decoder.isin(WANTED) & ~frame.model.isin(zoo.VOLUMES)]
    frame = frame.sort_values("rounds", ascending=False, kind="stable")
    return frame.drop_duplicates(["model", "decoder", "mode"])


def sweeps(results_of: AllResults) -> str:
    """What was measured where and when: a row per run log without a label."""
    rows = []
    for benchmark, results in results_of.items():
        for run_log in results.run_logs:
            if run_log.name == run_log.header.machine.name:
                counts = Counter(run.case for run in run_log.runs)
                row = {"benchmark": benchmark, "CPU": catalogue.cpu(run_log.header.machine)}
                row |= {"networks": len({case.network for case in counts})}
                row |= {"modes": len({case.mode for case in counts}), "cases": len(counts)}
                row |= {"runs a case, median": median(counts.values())}
                row |= {"hours": sum(run.seconds for run in run_log.runs) / 3600, "when": tables.days(run_log.runs)}
                rows.append(row)
    digits = {"networks": 0, "modes": 0, "cases": 0, "runs a case, median": 0, "hours": 1}
    return markdown.table(pd.DataFrame(rows), digits)


def significantly_different(results_of: AllResults) -> str:
    """Neighbours in rankings of networks at their fastest valid modes: how many of those whose throughputs differ by
    NEIGHBOURS or more are significantly different, by the 95 % interval of the ratio."""
    rows = []
    for benchmark in SWEEPS:
        frame = results_of.get(benchmark, NOTHING).rows
        top = rankings.ranking(frame[frame.decoder != FEATURES]) if len(frame) else frame
        for (machine, ranking), group in top.groupby(["machine", "ranking"]) if len(top) else ():
            values = group.throughput_img_s
            different = rankings.significantly_different(group, "throughput_img_s").diagonal(1)
            different = different[(values / values.shift(-1) >= NEIGHBOURS).to_numpy()[:-1]]
            row = {"benchmark": benchmark, "CPU": f"{group.cpu.iloc[0]} ({machine})", "ranking": ranking}
            row |= {"networks": len(group), "runs a case, median": group.rounds.median()}
            row |= {f"neighbours {100 * (NEIGHBOURS - 1):.0f} % or more apart": len(different)}
            row |= {"significantly different": different.sum()}
            rows.append(row | {"share": different.mean() if len(different) else float("nan")})
    frame = pd.DataFrame(rows)
    return markdown.table(frame, dict.fromkeys(frame.columns[3:-1], 0) | {"share": 2})


README_TABLES = {
    "pick": pick,
    "modes": modes,
    "answers": answers,
    "best-modes": best_modes,
    "significantly-different": significantly_different,
    "sweeps": sweeps,
}
