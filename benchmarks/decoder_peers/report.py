"""Decoders against those of segmentation-models-pytorch: tables and picture."""

from functools import partial
from itertools import cycle

import msgspec
import pandas as pd
from matplotlib.figure import Figure

from benchmarks import catalogue
from segbench.analysis import markdown, plots
from segbench.analysis.markdown import Shown
from segbench.analysis.plots import COLOURS, Picture
from segbench.analysis.reports import Report
from segbench.analysis.tables import Results
from segbench.cases import DECODERS

COLUMNS = ["img_s", "params_m", "gmacs", "memory_mb_img", "gflop_s", "status"]


def side_by_side(results: Results) -> pd.DataFrame:
    """A row per machine, model, decoder and mode: this project's decoder and the library's of the same name."""
    ratios = results.ratios("over_peer", lambda case: msgspec.structs.replace(case, decoder=f"smp-{case.decoder}"))
    frame = results.rows.join(ratios).rename(columns={"throughput_img_s": "img_s"})
    keys = ["machine", "cpu", "family", "model", "decoder", "mode"]
    peers = frame.decoder.str.startswith("smp-")
    theirs, ours = frame[peers].assign(decoder=frame.decoder.str.removeprefix("smp-")), frame[~peers]
    return ours[[*keys, *COLUMNS, *ratios]].join(theirs.set_index(keys)[COLUMNS].add_prefix("smp_"), on=keys)


def by_encoder(results: Results) -> Shown:
    """This project's decoders and those of segmentation-models-pytorch, side by side."""
    rows = side_by_side(results).sort_values(["mode", "decoder"], kind="stable")
    return catalogue.shown(
        {
            "encoder": rows.model,
            "decoder": rows.decoder.map(DECODERS),
            "mode": rows["mode"],
            "img/s": (rows.img_s, 1),
            "theirs": (rows.smp_img_s, 1),
            "over theirs": (rows.over_peer, 2),
            "95 % interval": markdown.spans(rows.over_peer_low, rows.over_peer_high, 2),
            "params, M": (rows.params_m, 2),
            "theirs, M": (rows.smp_params_m, 2),
            "GMACs": (rows.gmacs, 2),
            "their GMACs": (rows.smp_gmacs, 2),
            "GFLOP/s": (rows.gflop_s, 0),
            "their GFLOP/s": (rows.smp_gflop_s, 0),
            "GFLOP/s over theirs": (rows.gflop_s / rows.smp_gflop_s, 2),
        }
    )


def picture(results: Results) -> Picture:
    """A panel per run log: this project's decoder over the library's of the same name, with the interval."""
    frame = side_by_side(results)
    return frame, partial(draw, frame, results.dates())


def draw(frame: pd.DataFrame, dates: dict[str, str]) -> Figure:
    machines = plots.by_machine(frame)
    modes = dict(zip(dict.fromkeys(frame["mode"]), zip(COLOURS, cycle("os^D"), strict=False), strict=False))
    heights = [1.2 + 0.26 * len(rows[["model", "decoder"]].drop_duplicates()) for rows in machines.values()]
    figure, axes = plots.panels(heights, sharex=True)
    for panel, (machine, rows) in zip(axes[:, 0], machines.items(), strict=True):
        networks = [*dict.fromkeys(zip(rows.model, rows.decoder, strict=True))]
        for place, (mode, shade) in enumerate(modes.items()):
            of_mode = rows[rows["mode"] == mode]
            shift = 0.2 * (place - (len(modes) - 1) / 2)
            spots = [networks.index(pair) + shift for pair in zip(of_mode.model, of_mode.decoder, strict=True)]
            plots.dots(panel, of_mode.over_peer, of_mode.over_peer_low, of_mode.over_peer_high, spots, shade)
        names = [f"{model} + {DECODERS[decoder]}" for model, decoder in networks]
        panel.set_yticks(range(len(networks)), names, fontsize=8)
        panel.invert_yaxis()
        plots.line_at_1(panel)
        panel.grid(color="0.92", axis="x")
        plots.title(panel, rows, dates[machine])
    axes[-1, 0].set_xlabel("throughput over segmentation-models-pytorch's decoder of that name")
    plots.key(figure, [plots.point(mode, *shade) for mode, shade in modes.items()])
    return figure


REPORT = Report(
    csvs={"benchmark_results.csv": side_by_side},
    pictures={"benchmark_plot.png": picture},
    show=lambda results: markdown.aligned(*by_encoder(results)[:2]),
    pages=(by_encoder,),
)
