"""Tables of a machine's page that several benchmarks have."""

import pandas as pd

from .. import modes
from . import markdown, rankings, tables
from .markdown import Shown


def ranking(results: tables.Results, decoder: str = "") -> Shown:
    """Each network at its fastest valid mode, the fastest first; rows that share a rank do not differ significantly
    from its first. MB/img is memory beyond the loaded model: 0 where the runtime reserves it when it loads. Where
    several hosts with this kind of CPU measured, a column names each figure's host; `speedup on` another host means
    the first host's figure in eager mode times the speedup on the other one. Speedups over baseline and over baseline
    with the allocator retained are blank where those were not measured; `pairs` are the rounds in which both were."""
    top = rankings.fastest(results.rows[results.rows.decoder == decoder])
    columns = {
        "rank": top["rank"],
        "encoder": top.model,
        "fastest valid mode": top.best_mode,
        "img/s": top.throughput_img_s,
        "95 % interval": markdown.spans(top.throughput_low, top.throughput_high),
        "rounds": top.rounds,
        "over baseline": top.speedup_best,
        "over baseline+retained": top.over_retained_best,
        "pairs": top[["pairs", "retained_pairs"]].max(axis=1),
        "MB/img": top.memory_mb_img,
        "params, M": top.params_m,
    }
    digits = {"img/s": 1, "rounds": 0, "over baseline": 2, "over baseline+retained": 2, "pairs": 0}
    digits |= {"MB/img": 1, "params, M": 2}
    if top.host.nunique() > 1:
        columns["host"] = top.host.where(~top.carried.astype(bool), "speedup on " + top.host)
    if decoder:
        columns |= {"decoder's share, %": 100 * top.decoder_share, "decoder's, M": top.decoder_params_m}
        columns |= {"GMACs": top.gmacs, "decoder's GMACs": top.decoder_gmacs}
        digits |= {"decoder's share, %": 0, "decoder's, M": 2, "GMACs": 2, "decoder's GMACs": 2}
    else:
        columns |= {"img/s per M": top.efficiency_img_s_m, "top-1, %": top.top1}
        digits |= {"img/s per M": 1, "top-1, %": 1}
    return Shown(pd.DataFrame(columns), digits)


def every_mode(results: tables.Results, decoder: str = "") -> Shown:
    """Throughput in img/s under every mode; blank where none was measured, or where the result was wrong."""
    rows = results.rows[(results.rows.decoder == decoder) & (results.rows.status == "ok")]
    wide = rows.pivot_table(index="model", columns="mode", values="throughput_img_s", sort=False)
    names = modes.in_order(wide.columns)
    return Shown(wide[names].reset_index().rename(columns={"model": "encoder"}), dict.fromkeys(names, 1))


def gains(results: tables.Results) -> Shown:
    """Speedup of each mode over the same encoders: those that were measured under all of these modes. `over`: over
    which mode. `pairs`: the fewest rounds in which both were measured."""
    frames = [rankings.gains(results.rows, over).assign(over=rankings.OVER[over].mode) for over in rankings.OVER]
    frame = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    return Shown(frame, {"networks": 0, "pairs": 0, "lowest": 2, "median": 2, "highest": 2})
