"""One picture of where the time goes on the way to labels, stock and with the fused argmax: an image through a 2D
network (benchmarks/labels/parts.py), and whole CTs through 3D networks (benchmarks/whole_ct)."""

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks import catalogue
from benchmarks.whole_ct import report
from segbench import modes
from segbench.analysis import plots
from segbench.cases import DECODERS
from segbench.modes import BASELINES

# Purpose -> parts of labels/parts.py and of whole_ct's runs, in the order of the work.
PURPOSES = {
    "encoder": ("encoder",),
    "decoder": ("decoder",),
    "3D network": ("network",),
    "logits of every pixel or voxel": ("logits", "stitching", "logits_resampled"),
    "labels": ("argmax", "labels", "labels_merged"),
    "CT and labels resampled": ("resampling_in", "labels_resampled"),
    "files and processes": ("other",),
}
OUTPUTS = {"argmax": "argmax", "labels": "fused argmax"}
CTS = ("stunet_s", "totalsegmentator")  # one panel each


def images(folder: Path) -> pd.DataFrame:
    """machine, cpu, panel, bar, part, seconds and the seconds of the whole bar, of an image."""
    frame = catalogue.evidence(folder / "parts")
    if frame.empty:
        return frame
    frame = frame[~frame["mode"].isin(BASELINES) | (frame.output == "argmax")]
    bars = frame.decoder.map(DECODERS) + ", " + frame["mode"].map(runtime) + ", " + frame.output.map(OUTPUTS)
    panels = "an image of 512x512, 117 classes, " + frame.model
    seconds = frame.ms / 1e3
    whole = seconds.groupby([frame.machine, bars]).transform("sum")
    columns = {"machine": frame.machine, "cpu": frame.cpu, "panel": panels, "bar": bars, "part": frame.part}
    return pd.DataFrame(columns | {"seconds": seconds, "whole_s": whole})


def cts(folder: Path) -> pd.DataFrame:
    """The same of whole CTs that were measured stock and optimised."""
    frame, rows = report.summary(report.evidence(folder)), []
    frame = frame[frame.model.isin(CTS) & frame.ratio.notna()] if len(frame) else frame
    for row in frame.to_dict("records"):
        bar = {"machine": row["machine"], "cpu": row["cpu"], "whole_s": row["whole_s"]}
        bar |= {"panel": f"a CT of {row['voxels']} voxels, {row['model']}"}
        bar |= {"bar": f"{report.NAMES[row['way']]}, {runtime(row['mode'])}"}
        parts = {part: row.get(f"{part}_s") for part in report.PARTS}
        rows += [bar | {"part": part, "seconds": seconds} for part, seconds in parts.items() if pd.notna(seconds)]
    return pd.DataFrame(rows)


def runtime(mode: str) -> str:
    """`eager`, `eager (retained)`, `OpenVINO BF16`"""
    eager = dict(zip(BASELINES, ("eager", "eager (allocator retained)"), strict=True))
    return eager.get(mode) or f"OpenVINO {modes.find(mode).precision.upper()}"


def picture(root: Path) -> plots.Picture:
    """A panel for the image and one per CT, of the machine that measured both; None where none did."""
    frames = [images(root / "benchmarks" / "labels"), cts(root / "benchmarks" / "whole_ct")]
    if any(frame.empty for frame in frames):
        return None
    machines = [name for name in frames[0].machine.unique() if name in set(frames[1].machine)]
    if not machines:
        return None
    frame = pd.concat(frames, ignore_index=True)
    frame = frame[frame.machine == machines[0]]
    return frame, partial(draw, frame)


def draw(frame: pd.DataFrame) -> Figure:
    of_panel = dict(iter(frame.groupby("panel", sort=False)))
    figure, axes = plots.panels([0.34 * rows.bar.nunique() + 0.75 for rows in of_panel.values()])
    for panel, (name, rows) in zip(axes[:, 0], of_panel.items(), strict=True):
        draw_panel(panel, rows)
        panel.set_title(name, loc="left", fontsize=9)
    figure.suptitle(f"{frame.cpu.iloc[0]} ({frame.machine.iloc[0]})", fontsize=9, x=0.01, ha="left")
    patches = [Patch(color=colour, label=name) for name, colour in zip(PURPOSES, plots.COLOURS, strict=False)]
    plots.key(figure, patches, 6)
    return figure


def draw_panel(panel: Axes, frame: pd.DataFrame) -> None:
    """A bar per way to labels with its parts, in ms or s."""
    unit, per_second = ("ms", 1e3) if frame.seconds.max() < 1 else ("s", 1)
    bars = []
    for name, rows in frame.groupby("bar", sort=False):
        seconds = [rows[rows.part.isin(parts)].seconds.sum() for parts in PURPOSES.values()]
        lengths = [per_second * max(part_s, 0) for part_s in seconds]
        text = f"{per_second * rows.whole_s.iloc[0]:.0f}"
        bars.append((name, dict(zip(plots.COLOURS, lengths, strict=False)), text))
    report.draw_bars(panel, bars)
    panel.set_xlim(0, 1.05 * per_second * frame.whole_s.max())
    panel.set_xlabel(unit, fontsize=8)
