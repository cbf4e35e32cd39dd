"""Which network and which mode is fastest, and what modes bring: data frames in, data frames out."""

import math
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import modes
from ..modes import BASELINES

NETWORK = ["machine", "model", "decoder"]  # these columns name a network of a machine


class Over(NamedTuple):
    """What a column of speedups is over."""

    mode: str
    pairs: str  # the column with the number of pairs: rounds in which both were measured
    valid_pairs: str  # that with the number of these which nothing disturbed


OVER = {
    "speedup": Over(BASELINES[0], "pairs", "valid_pairs"),
    "over_retained": Over(BASELINES[1], "retained_pairs", "retained_valid_pairs"),
}
PAIRS = 4  # that a speedup in a table over several networks is from at least, where so many were measured


def competes(frame: pd.DataFrame) -> pd.Series:
    """Whether a row may be ranked: a valid result, and a mode that the code knows."""
    return (frame.status == "ok") & (frame.precision.map(modes.ranking) != "")


def eager(frame: pd.DataFrame, keys: list[str] = NETWORK) -> pd.DataFrame:
    """The row of each network under baseline, or else with the allocator retained; these are the index."""
    rows = frame[frame["mode"].isin(BASELINES)].sort_values("mode", kind="stable")
    return rows.drop_duplicates(keys).set_index(keys)


def best(frame: pd.DataFrame, by: str = "throughput_img_s", keys: list[str] = NETWORK) -> pd.DataFrame:
    """The fastest row per network and ranking, with `tied_modes`: the modes that are not significantly slower."""
    valid = frame[competes(frame) & frame[by].notna()].assign(ranking=lambda rows: rows.precision.map(modes.ranking))
    keys = [*keys, "ranking"]
    top = valid.loc[valid.groupby(keys, sort=False)[by].idxmax()]
    valid = valid if "tied" in valid else valid.assign(tied=False)  # frames made from rows may lack the column
    tied = valid[valid.tied & ~valid.index.isin(top.index)].groupby(keys, sort=False)["mode"].agg(", ".join)
    return top.join(tied.rename("tied_modes"), on=keys).fillna({"tied_modes": ""})


def ranking(frame: pd.DataFrame, by: str = "throughput_img_s", keys: list[str] = NETWORK) -> pd.DataFrame:
    """`best` per machine and ranking, the fastest first, with `rank`: rows that are not significantly different from
    the first of their group share its rank. The only function that ranks."""
    machines = [*dict.fromkeys(frame.machine)]
    top = best(frame, by, keys).assign(place=lambda rows: rows.machine.map(machines.index))
    top = top.sort_values(["place", "ranking", by], ascending=[True, True, False], kind="stable").drop(columns="place")
    groups = top.groupby(["machine", "ranking"], sort=False)
    return top.assign(rank=[rank for _, rows in groups for rank in shared_ranks(rows, by)])


def shared_ranks(rows: pd.DataFrame, by: str) -> list[int]:
    """Ranks of rows in falling order of `by`, from 1."""
    different = significantly_different(rows, by)
    ranks, first = [], 0
    for place in range(len(rows)):
        if different[first, place]:
            first = place
        ranks.append(first + 1)
    return ranks


def significantly_different(rows: pd.DataFrame, by: str) -> np.ndarray:
    """(n, n) of bool: which two rows differ by more than the 95 % interval of their ratio. Of a row that is only a
    lower limit the upper end is unknown."""
    logs, down = np.log(rows[by].to_numpy()), rows.half_width.to_numpy()
    up = np.where(rows.quality == "at least", np.inf, down)
    faster = np.subtract.outer(logs, logs) > np.hypot.outer(down, up)
    return faster | faster.T


def floating_point(top: pd.DataFrame) -> pd.DataFrame:
    """The ranking that FP32 competes in."""
    return top[top.ranking == modes.ranking("fp32")]


def fastest(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per machine and network at its fastest valid mode, with the speedups of that mode and, over a baseline with
    the same allocator, of autocast+compile; the fastest first."""
    compiled = frame[frame["mode"].isin(["autocast+compile", "autocast+compile+retained"])].drop_duplicates(NETWORK)
    over = compiled.speedup.where(compiled.allocator == "default", compiled.over_retained)
    over = over.set_axis(pd.MultiIndex.from_frame(compiled[NETWORK])).rename("speedup_autocast_compile")
    top = floating_point(ranking(frame)).join(over, on=NETWORK)
    top = top.rename(columns={"mode": "best_mode", "speedup": "speedup_best", "over_retained": "over_retained_best"})
    columns = ["machine", "rank", "family", "model", "best_mode", "tied_modes", "params_m", "throughput_img_s"]
    columns += ["throughput_low", "throughput_high", "memory_mb_img", "speedup_autocast_compile", "speedup_best"]
    columns += ["rounds", "pairs", "over_retained_best", "retained_pairs", "efficiency_img_s_m", "top1"]
    columns += ["quality", "host", "carried"]
    if frame.decoder.any():
        columns += ["decoder", "decoder_params_m", "gmacs", "decoder_gmacs", "decoder_share"]
    return top[columns]


def has_speedup(frame: pd.DataFrame, over: str = "speedup") -> pd.Series:
    """Whether both ends of a row's speedup are known."""
    return (frame[f"{over}_low"] > 0) & (frame[f"{over}_high"] < math.inf)


def over_what(frame: pd.DataFrame) -> str:
    """The column of speedups to show: over baseline, or where that is known of less, with the allocator retained."""
    known = {over: int((has_speedup(frame, over) & (frame.status == "ok")).sum()) for over in OVER}
    return max(known, key=known.get)


def comparable(frame: pd.DataFrame, over: str = "speedup") -> pd.DataFrame:
    """The rows of modes that can be compared over the same networks (`same_networks`): valid results with a speedup
    from PAIRS pairs; from fewer pairs where no row has so many. One end of its interval may be open."""
    valid = frame[(frame.status == "ok") & frame[over].notna() & (frame[OVER[over].pairs] > 0)]
    most = valid[valid["mode"] != OVER[over].mode][OVER[over].pairs].max()
    return same_networks(valid[valid[OVER[over].pairs] >= min(PAIRS, most)])


def same_networks(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of some modes over some networks, each of which has a row under each of the modes: those with the most
    comparisons of modes, networks times modes but one, among the sets of modes that a network or two networks have."""
    if rows.empty:
        return rows
    measured = rows.pivot_table(index=NETWORK, columns="mode", aggfunc="size").notna()
    of_network = [frozenset(measured.columns[has]) for has in measured.to_numpy()]
    shared = {one & other for one, other in combinations_with_replacement({*of_network}, 2)}
    chosen = max(shared, key=lambda modes: ((len(modes) - 1) * sum(modes <= has for has in of_network), sorted(modes)))
    networks = measured.index[[chosen <= has for has in of_network]]
    return rows[rows["mode"].isin(chosen) & rows.set_index(NETWORK).index.isin(networks)]


def gains(frame: pd.DataFrame, over: str = "speedup") -> pd.DataFrame:
    """A row per mode that can be compared: number of networks, the fewest pairs, and the lowest, median and highest
    speedup."""
    rows = comparable(frame, over)
    rows = rows[rows["mode"] != OVER[over].mode]
    by_mode = rows.groupby("mode")[over].agg(networks="count", lowest="min", median="median", highest="max")
    by_mode.insert(1, "pairs", rows.groupby("mode")[OVER[over].pairs].min())
    return by_mode.reindex(modes.in_order(rows["mode"])).rename_axis("mode").reset_index()
