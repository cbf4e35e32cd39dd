"""What benchmark.py shows of its runs: seconds and memory by part, and the optimised way against the stock one."""

import statistics
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks import catalogue
from benchmarks.whole_ct.scan import SYNTHETIC
from segbench import modes
from segbench.analysis import markdown, plots, stats, tables
from segbench.analysis.markdown import Shown
from segbench.problem import Problem

SETTING = ["machine", "model", "ct", "voxels", "step"]  # what is compared within
WAY = ["way", "mode", "export"]
PARTS = {  # in the order of the work, as columns call them
    "resampling_in": "resampling in",
    "network": "network",
    "stitching": "stitching",
    "argmax": "argmax",
    "labels_merged": "labels merged",
    "logits_resampled": "logits resampled",
    "labels": "resampled to labels",
    "labels_resampled": "labels resampled",
    "other": "files and processes",  # of TotalSegmentator, between its steps
}
APART = pd.Timedelta(hours=2)
NUMBERS = ["threads", "repeat", "step", "classes", "tiles", "whole_s", "prepare_s", "preparing_mb", "same_labels"]
NAMES = {"nnunet": "nnU-Net", "official": "TotalSegmentator", "optimised": "optimised"}

HERE = Path(__file__).resolve().parent


def evidence(folder: Path) -> pd.DataFrame:
    """Of all machines; empty where there is none."""
    frames = [checked(path) for path in sorted((folder / "runs").glob("*.csv"))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def read(path: Path) -> pd.DataFrame:
    frame = catalogue.read_table(path)
    ct = frame.ct.fillna(SYNTHETIC) if "ct" in frame else SYNTHETIC
    started = frame.started if "started" in frame else ""
    return frame.assign(export=frame.export.astype(object).fillna(""), ct=ct, started=started)


def checked(path: Path) -> pd.DataFrame:
    """Runs that can be compared. Raises Problem where a column is missing or holds something else, as where two files
    were joined with the header of both."""
    frame = read(path)
    missing = {*SETTING, *WAY, "cpu", *NUMBERS} - {*frame}
    numbers = [name for name in frame if name in NUMBERS or name.endswith(("_s", "_mb"))]
    words = [] if frame.empty else [name for name in numbers if not pd.api.types.is_numeric_dtype(frame[name])]
    unknown = set() if missing else {*frame.way} - {*NAMES}
    for problem, names in {"no column": missing, "text in the column": words, "no way called": unknown}.items():
        if names:
            raise Problem(f"{path} is no table of whole CTs: {problem} {', '.join(map(str, names))}; mend or move it")
    return frame


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per machine, model, CT and way: mean seconds of every part and their sum over the whole, peak memory, the
    smallest share of equal labels; and its speedup over the stock way, run by run, with the interval; where
    nnU-Net exports in two ways, the faster counts."""
    if runs.empty:
        return runs
    rows = []
    for setting, group in runs.groupby(SETTING, sort=False):
        came = group[group.way != "optimised"]
        means = came.groupby("export").whole_s.mean()
        fixed_iterations = came[came.export == means.idxmin()].set_index("repeat") if len(means) else None
        for way, own in group.groupby(WAY, sort=False):
            parts = [f"{part}_s" for part in PARTS if f"{part}_s" in own and own[f"{part}_s"].notna().any()]
            row = dict(zip([*SETTING, *WAY], [*setting, *way], strict=True))
            row |= {"cpu": own.cpu.iloc[0], "threads": own.threads.iloc[0], "classes": own.classes.iloc[0]}
            row |= {"precision": modes.find(row["mode"]).precision, "runs": len(own), "tiles": own.tiles.iloc[0]}
            row["occasions"] = occasions(own.get("started", pd.Series(dtype=object)))
            row |= {part: own[part].mean() for part in parts}
            row |= {"whole_s": own.whole_s.mean(), "parts_over_whole": (own[parts].sum(axis=1) / own.whole_s).mean()}
            worked = [f"{part}_mb" for part in ("sliding_window", *PARTS) if f"{part}_mb" in own]
            peaks = own[worked].max(axis=1)
            row |= {"prepare_again_s": own.prepare_s.min()}
            row |= {"prepare_s": own.prepare_s.max(), "prepare_peak_mb": own.preparing_mb.max(), "peak_mb": peaks.max()}
            row |= {"same_labels": own.same_labels.min()}
            row |= dict.fromkeys(("ratio", "ratio_low", "ratio_high", "memory_ratio"), np.nan)
            if fixed_iterations is not None:
                pairs = own.set_index("repeat").join(fixed_iterations[["whole_s"]].add_suffix("_usual"), how="inner")
                ratios = pairs.whole_s_usual / pairs.whole_s
                row |= {"ratio": statistics.geometric_mean(ratios) if len(ratios) else np.nan}
                row["ratio_low"], row["ratio_high"] = stats.interval(ratios)
                row["memory_ratio"] = peaks.max() / fixed_iterations[
                    [name for name in worked if name in fixed_iterations]
                ].max(axis=None)
            rows.append(row)
    return pd.DataFrame(rows)


def occasions(started: pd.Series) -> int:
    """How often runs were made with two hours or more between them."""
    times = pd.to_datetime(started, errors="coerce", utc=True).sort_values()
    return 1 + int((times.diff() >= APART).sum())


def shown(frame: pd.DataFrame) -> Shown:
    """For a page."""
    if frame.empty:
        return Shown(frame, {})
    columns = {
        "network": frame.model,
        "CT, voxels": frame.voxels.where(frame.ct == SYNTHETIC, frame.ct + ", " + frame.voxels),
        "way": way_names(frame),
        "whole, s": (frame.whole_s, 1),
    }
    columns |= {f"{name}, s": (frame[f"{part}_s"], 1) for part, name in PARTS.items() if f"{part}_s" in frame}
    return catalogue.shown(
        columns
        | {
            "turns": (frame.runs, 0),
            "occasions": (frame.occasions, 0),
            "speedup": (frame.ratio, 2),
            "95 % interval": markdown.spans(frame.ratio_low, frame.ratio_high, 2),
            "peak GB": (frame.peak_mb / 1e3, 1),
            "same labels": frame.same_labels.map("{:.3%}".format).replace("nan%", ""),
            "preparing once, s": (frame.prepare_s, 1),
            "again, s": (frame.prepare_again_s, 1),
            "its peak GB": (frame.prepare_peak_mb / 1e3, 1),
        }
    )


def way_names(frame: pd.DataFrame) -> pd.Series:
    """`nnU-Net (torch)`, `optimised, openvino-bf16`"""
    names = [
        f"optimised, {row.mode}"
        if row.way == "optimised"
        else NAMES[row.way] + (f" ({row.export})" if row.export else "")
        for row in frame.itertuples()
    ]
    return pd.Series(names, index=frame.index)


def terminal(folder: Path) -> str:
    table = shown(summary(evidence(folder)))
    return markdown.aligned(*table[:2])


def write(root: Path, out: Path, draw_pictures: bool = True) -> list[Path]:
    """CSV and picture in `out`, from the runs below `root`."""
    frame = summary(evidence(root))
    if frame.empty:
        return []
    tables.write_csv(out / "benchmark_results.csv", frame)
    plots.save((frame, partial(draw, frame)), out / "benchmark_plot.png", draw_pictures)
    return [out / "benchmark_results.csv", out / "benchmark_plot.png"]


def draw(frame: pd.DataFrame) -> Figure:
    """A panel per machine, network and CT: a bar per way, its parts one behind the other."""
    settings = [*frame.groupby(SETTING, sort=False)]
    figure, axes = plots.panels([0.7 + 0.36 * len(group) for _, group in settings])
    shades = dict(zip(PARTS, (*plots.COLOURS, "0.7"), strict=True))
    for panel, ((machine, model, ct, voxels, step), group) in zip(axes[:, 0], settings, strict=True):
        bars = []
        for name, row in zip(way_names(group), group.to_dict("records"), strict=True):
            text = f"{row['whole_s']:.0f} s, {row['peak_mb'] / 1e3:.1f} GB"
            bars.append((name, {shades[part]: np.nan_to_num(row.get(f"{part}_s", 0)) for part in PARTS}, text))
        draw_bars(panel, bars)
        title = f"{model}, {ct}, {voxels} voxels, step {step:g}, {group.cpu.iloc[0]} ({machine})"
        panel.set_title(title, loc="left", fontsize=8)
        panel.set_xlim(0, group.whole_s.max() * 1.18)
    axes[-1, 0].set_xlabel("s per CT")
    known = {part: name for part, name in PARTS.items() if f"{part}_s" in frame}
    plots.key(figure, [Patch(color=shades[part], label=name) for part, name in known.items()], 4)
    return figure


def draw_bars(panel: Axes, bars: Iterable[tuple[str, dict[str, float], str]]) -> None:
    """Bars below each other: name, length of the part of every colour, and the text at the end."""
    names = []
    for place, (name, lengths, text) in enumerate(bars):
        names.append(name)
        start = 0.0
        for colour, length in lengths.items():
            panel.barh(place, length, left=start, color=colour, edgecolor="white", lw=0.4)
            start += length
        panel.annotate(f" {text}", (start, place), va="center", fontsize=8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.invert_yaxis()
    panel.tick_params(axis="x", labelsize=7)


def whole_ct_runs(results_of: catalogue.AllResults) -> str:
    """Whole CTs that were run, all machines."""
    frame = summary(evidence(HERE))
    if frame.empty:
        return ""
    table = shown(frame)
    return f"On {cpu_of(frame)}:\n\n{markdown.table(*table[:2])}"


def whole_ct_short(results_of: catalogue.AllResults) -> str:
    """A row per network, way and precision, the fastest: seconds, peak memory, and speedup over the stock way."""
    frame, rows = summary(evidence(HERE)), []
    for (_, model, _, voxels, _), group in frame.groupby(SETTING, sort=False) if len(frame) else []:
        if (group.way == "optimised").all():
            continue
        fastest = group.loc[group.groupby([group.way == "optimised", "precision"]).whole_s.idxmin()]
        for row in fastest.itertuples():
            way = f"optimised, {row.precision.upper()}" if row.way == "optimised" else f"stock {NAMES[row.way]}"
            rows.append({"network": model, "CT, voxels": voxels, "way": way, "s": row.whole_s, "GB": row.peak_mb / 1e3})
            rows[-1] |= {"speedup": row.ratio, "95 % interval": markdown.span(row.ratio_low, row.ratio_high, 1)}
            rows[-1] |= {"turns": row.runs, "occasions": row.occasions}
    digits = {"s": 0, "GB": 1, "speedup": 1, "turns": 0, "occasions": 0}
    return f"On {cpu_of(frame)}:\n\n{markdown.table(pd.DataFrame(rows), digits)}" if rows else ""


def cpu_of(frame: pd.DataFrame) -> str:
    """The CPUs of the runs and the names of their machines."""
    names = dict(zip(frame.machine, frame.cpu, strict=True))
    return "; ".join(f"{cpu} ({machine})" for machine, cpu in names.items())


README_TABLES = {"whole-ct-runs": whole_ct_runs, "whole-ct-short": whole_ct_short}
