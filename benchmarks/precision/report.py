"""What benchmark.py shows: Dice per class and mode, and its difference from eager FP32."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import t

from benchmarks import catalogue
from benchmarks.precision import task
from segbench import modes
from segbench.analysis import markdown, plots, tables
from segbench.cases import DECODERS
from segbench.modes import BASELINE

PAIR = ["machine", "model", "decoder", "image", "class"]  # rows that agree in these are compared between modes
GROUP = ["machine", "cpu", "model", "decoder", "mode", "class"]
CLASSES = ("mean", *task.CLASSES[1:])
MARKERS = {"fp32": "o", "bf16": "s", "int8": "^"}

HERE = Path(__file__).resolve().parent


def summary(images: pd.DataFrame) -> pd.DataFrame:
    """A row per machine, network, mode and class, and one for the mean over the classes of an image: mean Dice over the
    images that have the class, its difference from eager FP32, and the 95 % interval of the difference over the images
    (Student's t)."""
    means = images.groupby([*PAIR[:4], "cpu", "mode"], sort=False).dice.mean().reset_index().assign(**{"class": "mean"})
    images = pd.concat([images, means], ignore_index=True).dropna(subset="dice")
    eager = images[images["mode"] == BASELINE].set_index(PAIR).dice.rename("eager")
    images = images.join(eager, on=PAIR).assign(change=lambda frame: frame.dice - frame.eager)
    groups = images.groupby(GROUP, sort=False)
    rows = groups.agg(images=("dice", "size"), dice=("dice", "mean"), difference=("change", "mean")).reset_index()
    half = groups.change.sem().to_numpy() * t.ppf(0.975, rows.images - 1)
    rows["difference_low"], rows["difference_high"] = rows.difference - half, rows.difference + half
    rows.insert(len(GROUP), "precision", [modes.find(mode).precision for mode in rows["mode"]])
    places = {"mode": modes.order, "class": CLASSES.index}
    return rows.sort_values(
        ["machine", "model", "decoder", "mode", "class"],
        key=lambda column: column.map(places[column.name]) if column.name in places else column,
        ignore_index=True,
    )


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """For a page: a row per CPU, network and mode with the mean Dice, its difference from eager FP32, the interval of
    that, and the difference of each class; of eager FP32 the Dice of each class."""
    lines, one_model = [], rows.model.nunique() == 1
    for (machine, cpu, model, decoder, mode), group in rows.groupby(GROUP[:-1], sort=False):
        by_class, eager = group.set_index("class"), mode == BASELINE
        mean = by_class.loc["mean"]
        line = {"CPU": f"{cpu} ({machine})"} | ({} if one_model else {"encoder": model})
        line |= {"decoder": DECODERS[decoder], "mode": mode}
        line |= {"precision": mean.precision.upper(), "mean Dice": f"{mean.dice:.3f}"}
        line["difference"] = "" if eager else f"{mean.difference:+.4f}"
        line["95 % interval"] = "" if eager else f"{mean.difference_low:+.4f} to {mean.difference_high:+.4f}"
        for name, row in by_class.drop("mean").iterrows():
            line[name] = f"{row.dice:.3f}" if eager else f"{row.difference:+.4f}"
        lines.append(line)
    return pd.DataFrame(lines)


def draw(rows: pd.DataFrame) -> Figure:
    """For each network the difference from eager FP32 by class, a point with its interval for every mode."""
    networks = [*dict.fromkeys(zip(rows.model, rows.decoder, strict=True))]
    names = [mode for mode in modes.in_order(rows["mode"]) if mode != BASELINE]
    figure, axes = plots.panels([3.7], len(networks), sharey=True)
    for panel, (model, decoder) in zip(axes[0], networks, strict=True):
        of_network = rows[(rows.model == model) & (rows.decoder == decoder)]
        for place, mode in enumerate(names):
            points = of_network[of_network["mode"] == mode].set_index("class").reindex(CLASSES)
            panel.errorbar(
                np.arange(len(CLASSES)) + (place - (len(names) - 1) / 2) * 0.8 / len(names),
                points.difference,
                points.difference_high - points.difference,
                fmt=MARKERS[modes.find(mode).precision],
                markersize=4,
                color=plots.COLOURS[place % len(plots.COLOURS)],
                label=mode,
            )
        panel.axhline(0, color="0.5", linewidth=0.8)
        panel.set_xticks(range(len(CLASSES)), CLASSES, rotation=30, ha="right", fontsize=8)
        title = f"{model} + {DECODERS[decoder]}, {of_network.images.max()} slices"
        panel.set_title(title, loc="left", fontsize=9)
        panel.grid(axis="y", color="0.92")
    axes[0][0].set_ylabel("Dice minus that of eager FP32\n(95 % interval over the slices)")
    figure.suptitle(f"{rows.cpu.iloc[0]} ({rows.machine.iloc[0]})", fontsize=9, x=0.01, ha="left")
    axes[0][-1].legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def write(folder: Path, out: Path, draw_pictures: bool = True) -> list[Path]:
    """CSV and picture of the evidence below `folder`, into `out`. Returns the paths, none where there is none."""
    images = catalogue.evidence(folder / "images")
    if images.empty:
        return []
    rows = summary(images)
    tables.write_csv(out / "benchmark_results.csv", rows)
    first = rows[rows.machine == rows.machine.iloc[0]]
    plots.save((first, partial(draw, first)), out / "benchmark_plot.png", draw_pictures)
    return [out / "benchmark_results.csv", out / "benchmark_plot.png"]


def terminal(folder: Path) -> str:
    return markdown.aligned(shown(summary(catalogue.evidence(folder / "images"))), {})


def precision(results_of: catalogue.AllResults) -> str:
    """Dice in lower precision, all machines."""
    rows = catalogue.evidence(HERE / "images")
    return markdown.table(shown(summary(rows))) if len(rows) else ""


README_TABLES = {"precision": precision}
