"""What benchmark.py shows: Dice per class and mode, and its difference from FP32. Evidence in, tables out."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from scipy.stats import t

from benchmarks import catalogue
from benchmarks.precision import task
from segbench import modes
from segbench.analysis import markdown, plots, tables
from segbench.cases import DECODERS
from segbench.modes import BASELINE

PAIR = ["machine", "model", "decoder", "image", "class"]  # what is compared between modes
CLASSES = ("mean", *task.CLASSES[1:])
MARKERS = {"fp32": "o", "bf16": "s", "int8": "^"}

HERE = Path(__file__).resolve().parent


def evidence(folder: Path) -> pd.DataFrame:
    """Of all machines; empty where there is none."""
    frames = [pd.read_csv(path) for path in sorted((folder / "images").glob("*.csv"))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """A row per machine, network, mode and class, and one for the mean over the classes of an image: mean Dice over the
    images that have the class, its difference from eager FP32 and the 95 % interval of that (Student's t over the
    differences of the images)."""
    means = images.groupby([*PAIR[:4], "cpu", "mode"], sort=False).dice.mean().reset_index().assign(**{"class": "mean"})
    images = pd.concat([images, means], ignore_index=True).dropna(subset="dice")
    eager = images[images["mode"] == BASELINE].set_index(PAIR).dice.rename("eager")
    images = images.join(eager, on=PAIR).assign(change=lambda frame: frame.dice - frame.eager)
    rows = []
    for key, group in images.groupby(["machine", "cpu", "model", "decoder", "mode", "class"], sort=False):
        half = interval(group.change.to_numpy())
        about = dict(zip(("machine", "cpu", "model", "decoder", "mode", "class"), key, strict=True))
        about |= {"precision": modes.find(about["mode"]).precision, "images": len(group), "dice": group.dice.mean()}
        change = group.change.mean()
        rows.append(about | {"difference": change, "difference_low": change - half, "difference_high": change + half})
    rows.sort(key=lambda row: (row["machine"], row["decoder"], modes.order(row["mode"]), CLASSES.index(row["class"])))
    return pd.DataFrame(rows)


def interval(changes: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean."""
    count = len(changes)
    if count < 2:
        return float("nan")
    return float(t.ppf(0.975, count - 1) * changes.std(ddof=1) / np.sqrt(count))


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """For a page: a row per decoder and mode; mean Dice, the difference of the mean with its interval, and those of the
    classes."""
    lines = []
    for (machine, decoder, mode), group in rows.groupby(["machine", "decoder", "mode"], sort=False):
        by_class = group.set_index("class")
        mean = by_class.loc["mean"]
        line = {"machine": machine, "decoder": DECODERS[decoder], "mode": mode, "precision": mean.precision.upper()}
        line |= {"mean Dice": f"{mean.dice:.3f}"}
        line |= {"difference (95 % interval)": signed(mean) if mode != BASELINE else ""}
        for name, row in by_class.drop("mean").iterrows():
            line[name] = f"{row.dice:.3f}" if mode == BASELINE else f"{row.difference:+.4f}"
        lines.append(line)
    return pd.DataFrame(lines)


def signed(row: pd.Series) -> str:
    return f"{row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f})"


def draw(rows: pd.DataFrame) -> Figure:
    """Per decoder: the difference from eager FP32 by class, a point with its interval for every mode."""
    decoders = [*dict.fromkeys(rows.decoder)]
    names = [mode for mode in modes.in_order(rows["mode"]) if mode != BASELINE]
    shape = {"figsize": (plots.WIDTH, 4.2), "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(decoders), **shape)
    for ax, decoder in zip(axes[0], decoders, strict=True):
        own = rows[rows.decoder == decoder]
        for place, mode in enumerate(names):
            of_mode = own[own["mode"] == mode].set_index("class").reindex(CLASSES)
            x = np.arange(len(CLASSES)) + (place - (len(names) - 1) / 2) * 0.8 / len(names)
            ax.errorbar(
                x,
                of_mode.difference,
                of_mode.difference_high - of_mode.difference,
                fmt=MARKERS[modes.find(mode).precision],
                markersize=4,
                color=plots.COLOURS[place % len(plots.COLOURS)],
                label=mode,
            )
        ax.axhline(0, color="0.5", linewidth=0.8)
        ax.set_xticks(range(len(CLASSES)), CLASSES, rotation=30, ha="right", fontsize=8)
        ax.set_title(f"{own.model.iloc[0]} + {DECODERS[decoder]}, {own.images.max()} slices", loc="left", fontsize=9)
        ax.grid(axis="y", color="0.92")
    axes[0][0].set_ylabel("Dice minus that of eager FP32\n(95 % interval over the slices)")
    figure.suptitle(f"{rows.machine.iloc[0]}: {rows.cpu.iloc[0]}", fontsize=9, x=0.01, ha="left")
    axes[0][-1].legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def write(folder: Path, out: Path, draw_pictures: bool = True) -> list[Path]:
    """CSV and picture of the evidence below `folder`, into `out`. Returns the paths, none where there is none."""
    images = evidence(folder)
    if images.empty:
        return []
    rows = summary(images)
    tables.write_csv(out / "benchmark_results.csv", rows)
    first = rows[rows.machine == rows.machine.iloc[0]]
    plots.save((first, partial(draw, first)), out / "benchmark_plot.png", draw_pictures)
    return [out / "benchmark_results.csv", out / "benchmark_plot.png"]


def terminal(folder: Path) -> str:
    return markdown.aligned(shown(summary(evidence(folder))), {})


def precision(results_of: catalogue.AllResults) -> str:
    """Dice in lower precision, all machines."""
    rows = evidence(HERE)
    return markdown.table(shown(summary(rows))) if len(rows) else ""


README_TABLES = {"precision": precision}
