"""Which network and which mode is fastest, and what modes bring: data frames in, data frames out."""

import math

import numpy as np
import pandas as pd

from .. import modes
from ..modes import BASELINE

NETWORK = ["machine", "model", "decoder"]  # these columns name a network of a machine


def one_allocator(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the allocator retained, or, where there are none, with the other."""
    retained = frame[frame.allocator == "retained"]
    return retained if len(retained) else frame


def competes(frame: pd.DataFrame) -> pd.Series:
    """Whether a row may be ranked: a valid result, a mode that the code knows, the allocator retained."""
    return (frame.status == "ok") & (frame.allocator == "retained") & (frame.precision.map(modes.ranking) != "")


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
    """A row per machine and network at its fastest valid mode, with the speedups of autocast+compile and of that mode;
    the fastest first."""
    compiled = frame[(frame["mode"] == "autocast+compile") & (frame.allocator == "retained")].set_index(NETWORK)
    top = floating_point(ranking(frame)).join(compiled.speedup.rename("speedup_autocast_compile"), on=NETWORK)
    top = top.rename(columns={"mode": "best_mode", "speedup": "speedup_best"})
    columns = ["machine", "rank", "family", "model", "best_mode", "tied_modes", "params_m", "throughput_img_s"]
    columns += ["throughput_low", "throughput_high", "memory_mb_img", "speedup_autocast_compile", "speedup_best"]
    columns += ["efficiency_img_s_m", "top1", "quality", "host", "carried"]
    if frame.decoder.any():
        columns += ["decoder", "decoder_params_m", "gmacs", "decoder_gmacs", "decoder_share"]
    return top[columns]


def has_speedup(frame: pd.DataFrame) -> pd.Series:
    """Whether both ends of a row's speedup are known."""
    return (frame.speedup_low > 0) & (frame.speedup_high < math.inf)


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """A row per mode: number of networks, lowest, median and highest speedup over baseline."""
    known = frame[(frame["mode"] != BASELINE) & (frame.status == "ok") & has_speedup(frame)]
    by_mode = known.groupby("mode").speedup.agg(encoders="count", lowest="min", median="median", highest="max")
    return by_mode.reindex(modes.in_order(known["mode"])).rename_axis("mode").reset_index()
