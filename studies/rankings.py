"""Rankings of networks by throughput, from run logs and from published tables, and how far two of them agree. See
agreement.py, which writes what is made here."""

import textwrap
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from benchmarks.catalogue import AllResults, all_results, cpus, machines, of_machine
from benchmarks.official import costs
from segbench import modes, zoo
from segbench.analysis import markdown, plots, tables
from segbench.analysis.markdown import Shown
from segbench.analysis.tables import Results
from segbench.cases import DECODERS
from tools.render import MARKS

HERE = Path(__file__).resolve().parent
PUBLISHED = HERE / "published"
BENCHMARKS = {"": "encoder_only", "fpn": "fpn_decoder", "unet": "unet_decoder"}  # by decoder
BOTH = "2D and 3D"  # networks with either decoder, and 3D networks in slices per second
# The reference project's decoders ran under autocast+compile; ours are compared under torch's fastest mode.
WITH_DECODER = "autocast+compile+freezing"
REFERENCE_PROJECT = "reference project, Ryzen 7 H 255"
BETWEEN_MACHINES = ("compile", "autocast+compile")  # modes under which tables compare machines, encoders alone
MIN_COMMON = 10  # networks that two rankings must have in common
MOST_NAMED = 4  # networks with the largest differences that are named
PANELS_PER_ROW = 3


class Ranking(NamedTuple):
    """Where throughputs by network come from."""

    source: str  # a machine, or who published them
    networks: str  # a decoder, or BOTH
    mode: str

    @property
    def kind(self) -> str:
        """Of the networks, for people."""
        return DECODERS.get(self.networks, self.networks)

    @property
    def modes(self) -> str:
        """The mode in the published table, and in ours where that is another."""
        return "autocast+compile, here +freezing" if self.networks else self.mode


Rankings = dict[Ranking, pd.Series]  # images per second by network


class Agreement(NamedTuple):
    """How far two rankings agree."""

    networks: int  # in common
    rho: float  # Spearman's rank correlation, with its 95 % interval
    low: float
    high: float
    higher: pd.Series  # by network, places higher in the second ranking; the largest differences first

    def largest(self, count: int) -> str:
        """`mobileone_s0 -31, vit_tiny_patch16_224 +17`"""
        return ", ".join(f"{name} {places:+.0f}" for name, places in self.higher[:count].items() if places)


def published() -> Rankings:
    """Rankings from the tables in published/."""
    timm = pd.read_csv(PUBLISHED / "timm-cpu.csv").rename(columns={"samples_per_s": "img_s"})
    rankings = {
        Ranking(f"timm, {cpu}, torch {torch[:3]}", "", "compile"): by_network(rows)
        for (cpu, torch), rows in timm.groupby(["cpu", "torch"], sort=False)
    }
    for decoder, name in BENCHMARKS.items():
        table = pd.read_csv(PUBLISHED / f"reference-{name}.csv")
        for mode, rows in table.groupby("mode", sort=False):
            rankings[Ranking(REFERENCE_PROJECT, decoder, WITH_DECODER if decoder else mode)] = by_network(rows)
    table = pd.read_csv(PUBLISHED / "reference-2d_vs_3d.csv", keep_default_na=False)
    rankings[Ranking(REFERENCE_PROJECT, BOTH, WITH_DECODER)] = by_network(table)
    return rankings


def by_network(rows: pd.DataFrame) -> pd.Series:
    """`img_s` by timm's name without its tag, and by decoder where rows have one."""
    names = rows.model.str.split(".").str[0]
    if "decoder" in rows:
        names += rows.decoder.map(lambda decoder: f" + {DECODERS[decoder]}" if decoder else "")
    return rows.img_s.groupby(names.to_numpy()).max()


def measured(results_of: AllResults) -> Rankings:
    """Rankings from the run logs, the machine with the most cases first."""
    rankings = {}
    for machine in machines(results_of):
        in_slices = volumes(of_machine(results_of, "official", machine))
        for decoder, name in BENCHMARKS.items():
            results = of_machine(results_of, name, machine)
            if not results.run_logs:
                continue
            rows = valid(results.rows).rename(columns={"throughput_img_s": "img_s"})
            rows = rows[(rows.decoder == decoder) & (rows.output == "logits")]
            for mode in modes.in_order(rows["mode"]):
                alike = rows[rows["mode"] == mode].drop(columns="decoder")
                rankings[Ranking(machine, decoder, mode)] = by_network(alike)
            if decoder and len(in_slices):
                in_slices = pd.concat([in_slices, rows])
        if len(in_slices):
            rankings[Ranking(machine, BOTH, WITH_DECODER)] = by_network(in_slices[in_slices["mode"] == WITH_DECODER])
    return rankings


def volumes(official: Results) -> pd.DataFrame:
    """3D networks on 128x128x64 voxels, which count as four slices."""
    if not official.run_logs:
        return pd.DataFrame()
    rows = valid(costs.equivalents(official)).rename(columns={"eq_s": "img_s"})
    return rows[(rows.decoder == "") & rows.img_s.notna()]


def valid(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows under modes without their variants: with the allocator retained, where that was measured."""
    rows = rows[rows.status == "ok"]
    retained = rows[rows.allocator == "retained"]
    rows = retained if len(retained) else rows
    return rows.assign(mode=rows["mode"].map(modes.base))


def agreement(first: pd.Series, second: pd.Series) -> Agreement | None:
    """None where too few networks are in both. The interval is by Fisher's transform with the variance of Bonett and
    Wright (2000, Psychometrika 65), (1 + rho^2 / 2) / (n - 3)."""
    common = pd.concat([first, second], axis=1, join="inner")
    if len(common) < MIN_COMMON:
        return None
    ranks = common.rank(ascending=False)
    rho = float(spearmanr(common.iloc[:, 0], common.iloc[:, 1]).statistic)
    centre, half_width = np.arctanh(min(rho, 1 - 1e-9)), 1.96 * np.sqrt((1 + rho**2 / 2) / (len(common) - 3))
    higher = (ranks.iloc[:, 0] - ranks.iloc[:, 1]).sort_values(key=np.abs, ascending=False, kind="stable")
    return Agreement(len(common), rho, np.tanh(centre - half_width), np.tanh(centre + half_width), higher)


def compare(rankings: Rankings, source: str, ranking: Ranking) -> Agreement | None:
    """A source's ranking of the same networks under the same mode with this one; None with itself, too."""
    same = ranking._replace(source=source)
    return agreement(rankings[same], rankings[ranking]) if same in rankings and same != ranking else None


def pairs(results_of: AllResults) -> pd.DataFrame:
    """A row per two rankings of the same networks under the same mode."""
    rankings, rows = measured(results_of) | published(), []
    for first, second in combinations(rankings, 2):
        result = compare(rankings, first.source, second) if first[1:] == second[1:] else None
        if result:
            row = {"first": first.source, "second": second.source, "networks": first.kind, "mode": first.mode}
            row |= {"common": result.networks, "rho": result.rho, "rho_low": result.low, "rho_high": result.high}
            rows.append(row | {"farthest": result.largest(2 * MOST_NAMED)})
    return pd.DataFrame(rows)


def sources(rankings: Rankings) -> list[str]:
    return [*dict.fromkeys(ranking.source for ranking in rankings)]


def correlations(results_of: AllResults) -> Shown:
    """A row per ranking, a column per machine; machines with each other under two modes."""
    here, elsewhere, cpu_of = measured(results_of), published(), cpus(results_of)
    rankings, rows = here | elsewhere, []
    between = [ranking for ranking in here if ranking.mode in BETWEEN_MACHINES and not ranking.networks]
    for ranking in (*elsewhere, *between):
        agreements = {source: compare(rankings, source, ranking) for source in (*sources(here), sources(elsewhere)[0])}
        first = next((agreements[machine] for machine in sources(here) if agreements[machine]), None)
        row = {"ranking of": cpu_of.get(ranking.source, ranking.source)}
        row |= {"networks": ranking.kind, "mode": ranking.modes}
        for source, result in agreements.items():
            interval = result and f"{result.rho:.2f} ({result.low:.2f} to {result.high:.2f})"
            row[cpu_of.get(source, source)] = interval
        row["networks in common"] = first and first.networks
        rows.append(row | {"places higher there": first and first.largest(MOST_NAMED)})
    return Shown(pd.DataFrame(rows), {"networks in common": 0})


def by_family(results_of: AllResults) -> Shown:
    """How many places higher a family's encoders stand on average in timm's tables, and in the reference project's
    tables of decoders, than on the first machine: what a whole family has in common has a cause."""
    here, elsewhere, columns = measured(results_of), published(), {}
    for ranking in elsewhere:
        result = compare(here | elsewhere, sources(here)[0], ranking) if here else None
        if result and (ranking.source.startswith("timm") or ranking.networks in ("fpn", "unet")):
            columns[f"{ranking.source}, {ranking.kind}"] = result.higher.groupby(zoo.family).mean()
    frame = pd.DataFrame(columns)
    frame = frame.reindex([family for family in zoo.FAMILIES if family in frame.index])
    return Shown(frame.reset_index(names="family"), dict.fromkeys(columns, 1))


def picture(results_of: AllResults) -> plots.Picture:
    """Places on the first machine against those in other rankings, compiled."""
    here, elsewhere = measured(results_of), published()
    rankings, machine, frames = here | elsewhere, next(iter(sources(here)), ""), []
    for ranking in (*elsewhere, *here):
        shown = ranking.mode == "compile" or (ranking in elsewhere and ranking.networks)
        if shown and compare(rankings, machine, ranking):
            columns = {"here": rankings[ranking._replace(source=machine)], "there": rankings[ranking]}
            places = pd.concat(columns, axis=1, join="inner").rank(ascending=False)
            frames.append(places.assign(**ranking._asdict()))
    if not frames:
        return None
    places = pd.concat(frames).reset_index(names="network")
    return places, partial(draw, places, machine, rankings, cpus(results_of))


def draw(places: pd.DataFrame, machine: str, rankings: Rankings, cpu_of: dict[str, str]) -> Figure:
    """A panel per ranking; the networks with the largest differences are named."""
    panels = [*places.groupby([*Ranking._fields], sort=False)]
    figure, axes = plots.panels([3.7] * -(-len(panels) // PANELS_PER_ROW), PANELS_PER_ROW)
    families = {*places.network.map(family)}
    plots.legend(figure, [name for name in (*zoo.FAMILIES, zoo.family(zoo.VOLUMES[0])) if name in families])
    figure.suptitle(f"Across: place on {cpu_of[machine]}. Down: place in the other ranking.", fontsize=9)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    for panel, (names, frame) in zip(axes.flat, panels, strict=False):
        ranking = Ranking(*names)
        result = compare(rankings, machine, ranking)
        source = textwrap.fill(cpu_of.get(ranking.source, ranking.source), 58)  # the width of a panel
        panel.set_title(f"{source}\n{ranking.kind}, {ranking.modes}: {result.rho:.2f}", loc="left", fontsize=8)
        panel.set_xlabel("place here")
        panel.set_ylabel("place there")
        scatter(panel, frame.set_index("network")[["here", "there"]], result.higher.index[:MOST_NAMED])
    return figure


def family(network: str) -> str:
    """Of an encoder, whatever follows it."""
    return zoo.family(network.split(" + ")[0])


def scatter(panel: Axes, places: pd.DataFrame, named: pd.Index) -> None:
    """A point per network, the first place at the top left; networks below the diagonal are slower there."""
    last = len(places) + 1
    panel.plot([0, last], [0, last], color="0.7", lw=1, ls="--", zorder=1)
    panel.set_xlim(-0.02 * last, 1.02 * last)
    panel.set_ylim(1.06 * last, -0.02 * last)
    panel.grid(color="0.92")
    for network, place in places.iterrows():
        panel.scatter(*place, s=22, edgecolors="white", linewidths=0.4, zorder=3, **plots.style(family(network)))
    plots.label(panel, places.loc[named].reset_index()[["here", "there", "network"]], places)


README_TABLES = {"agreement": correlations, "agreement-families": by_family}


def write(out: Path, draw: bool = True) -> list[Path]:
    """agreement.csv, agreement.png and README.md with its tables. Returns their paths."""
    results_of, written = all_results(), [out / name for name in ("agreement.csv", "agreement.png", "README.md")]
    tables.write_csv(written[0], pairs(results_of))
    plots.save(picture(results_of), written[1], draw)
    bodies = {name: markdown.table(*table(results_of)[:2]) for name, table in README_TABLES.items()}
    page = (HERE / "README.md").read_text()
    written[2].write_text(MARKS.sub(lambda mark: f"{mark[1]}{bodies[mark[2]]}\n{mark[4]}", page))
    return written
