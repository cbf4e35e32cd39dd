"""How far an order of networks carries over to another CPU: rank correlations of what the run logs say with what others
published (tools/published), and of machines with each other. Measures nothing.

    uv run tools/agreement.py

`tools/render.py` writes results/agreement.csv (a row per pair of orders) and results/agreement.png.
"""

import sys
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from scipy.stats import spearmanr

from benchmarks.catalogue import AllResults, all_results, machines, of_machine
from segbench import modes, zoo
from segbench.analysis import markdown, plots, tables
from segbench.analysis.markdown import Shown
from segbench.cases import DECODERS

PUBLISHED = Path(__file__).resolve().parent / "published"
BENCHMARKS = {"": "encoder_only", "fpn": "fpn_decoder", "unet": "unet_decoder"}  # by decoder
BOTH = "2D and 3D"  # networks with either decoder, and 3D ones, as slices per second
# Others' decoders ran under autocast+compile; ours that follow them, with freezing too, the fastest of torch's modes.
WITH_DECODER = "autocast+compile+freezing"
BETWEEN_MACHINES = ("compile", "autocast+compile")  # of encoders alone, the modes under which machines are compared
FEWEST = 10  # networks that two orders must have in common
ACROSS = 3  # panels of the picture
NAMED = 4  # of the networks that stand farthest apart


class Order(NamedTuple):
    """What a series of throughputs by network is of."""

    source: str  # a machine, or who published it
    networks: str  # a decoder, or BOTH
    mode: str


Orders = dict[Order, pd.Series]  # images per second by network


class Agreement(NamedTuple):
    """Of two orders: Spearman's rank correlation, its 95 % interval, and who stands how many places higher in the
    second."""

    networks: int
    rho: float
    low: float
    high: float
    higher: pd.Series


def published() -> Orders:
    """Images per second by network, of others."""
    timm = pd.read_csv(PUBLISHED / "timm-cpu.csv")
    orders = {
        Order(f"timm, {cpu}, torch {torch[:3]}", "", "compile"): by_network(rows)
        for (cpu, torch), rows in timm.rename(columns={"samples_per_s": "img_s"}).groupby(["cpu", "torch"], sort=False)
    }
    source = "reference project, Ryzen 7 H 255"
    for decoder, name in BENCHMARKS.items():
        table = pd.read_csv(PUBLISHED / f"reference-{name}.csv")
        for mode, rows in table.groupby("mode", sort=False):
            orders[Order(source, decoder, WITH_DECODER if decoder else mode)] = by_network(rows)
    table = pd.read_csv(PUBLISHED / "reference-2d_vs_3d.csv", keep_default_na=False)
    orders[Order(source, BOTH, WITH_DECODER)] = by_network(table)
    return orders


def by_network(rows: pd.DataFrame) -> pd.Series:
    """`img_s` by the timm name without its tag, and the decoder where rows have one."""
    names = rows.model.str.split(".").str[0]
    if "decoder" in rows:
        names += rows.decoder.map(lambda decoder: f" + {DECODERS[decoder]}" if decoder else "")
    return rows.img_s.groupby(names.to_numpy()).max()


def ours(results_of: AllResults) -> Orders:
    """The same of the run logs, machines in the order of the README."""
    orders = {}
    for machine in machines(results_of):
        both = []
        for decoder, name in BENCHMARKS.items():
            rows = right(results_of, name, machine)
            rows = rows[(rows.decoder == decoder) & (rows.output == "logits")] if len(rows) else rows
            for mode in modes.in_order(rows["mode"]) if len(rows) else ():
                orders[Order(machine, decoder, mode)] = by_network(rows[rows["mode"] == mode].drop(columns="decoder"))
            both += [rows] if decoder else []
        if len(in_3d := volumes(results_of, machine)):
            frame = pd.concat([rows for rows in (*both, in_3d) if len(rows)])
            orders[Order(machine, BOTH, WITH_DECODER)] = by_network(frame[frame["mode"] == WITH_DECODER])
    return orders


def right(results_of: AllResults, benchmark: str, machine: str) -> pd.DataFrame:
    """Rows of a machine's run log that ended well, with `img_s`."""
    rows = of_machine(results_of, benchmark, machine).rows
    return tables.one_allocator(rows[rows.status == "ok"]).assign(img_s=rows.throughput_img_s) if len(rows) else rows


def volumes(results_of: AllResults, machine: str) -> pd.DataFrame:
    """3D networks on 128x128x64 voxels, which count as four slices."""
    from benchmarks.official import costs

    rows = right(results_of, "benchmark_official", machine)
    if rows.empty:
        return rows
    rates = costs.equivalents(of_machine(results_of, "benchmark_official", machine)).eq_s
    return rows.assign(img_s=rates)[lambda rows: (rows.decoder == "") & rows.img_s.notna()]


def agreement(first: pd.Series, second: pd.Series) -> Agreement | None:
    """None where too few networks are in both. The interval is by Fisher's transform with the variance of Bonett and
    Wright (2000, Psychometrika 65), (1 + rho^2 / 2) / (n - 3)."""
    both = pd.concat([first, second], axis=1, join="inner")
    if len(both) < FEWEST:
        return None
    ranks = both.rank(ascending=False)
    rho = float(spearmanr(both.iloc[:, 0], both.iloc[:, 1]).statistic)
    centre, half = np.arctanh(min(rho, 1 - 1e-9)), 1.96 * np.sqrt((1 + rho**2 / 2) / (len(both) - 3))
    higher = (ranks.iloc[:, 0] - ranks.iloc[:, 1]).sort_values(key=np.abs, ascending=False, kind="stable")
    return Agreement(len(both), rho, np.tanh(centre - half), np.tanh(centre + half), higher)


def beside(orders: Orders, source: str, order: Order) -> Agreement | None:
    """A source's order of the same networks under the same mode with this one; None for itself too."""
    same = order._replace(source=source)
    return agreement(orders[same], orders[order]) if same in orders and same != order else None


def pairs(results_of: AllResults) -> pd.DataFrame:
    """A row per two orders of the same networks and mode."""
    orders, rows = ours(results_of) | published(), []
    for first, second in combinations(orders, 2):
        if first[1:] == second[1:] and (found := beside(orders, first.source, second)):
            rows.append(
                {"first": first.source, "second": second.source, "networks": kind(first), "mode": first.mode}
                | {"common": found.networks, "rho": found.rho, "rho_low": found.low, "rho_high": found.high}
                | {"farthest": farthest(found, 2 * NAMED)}
            )
    return pd.DataFrame(rows)


def kind(order: Order) -> str:
    return DECODERS.get(order.networks, order.networks)


def under(order: Order) -> str:
    """The mode; of others' with decoders theirs, and what ours have more."""
    return "autocast+compile, here +freezing" if order.networks else order.mode


def farthest(found: Agreement, count: int) -> str:
    """`mobileone_s0 -31, vit_tiny_patch16_224 +17`: places higher in the second order."""
    return ", ".join(f"{name} {gap:+.0f}" for name, gap in found.higher[:count].items() if gap)


def shown(results_of: AllResults) -> Shown:
    """A row per order, a column per machine; machines among themselves under two of the modes."""
    own, others = ours(results_of), published()
    orders, here, rows = own | others, sources(own), []
    between = [order for order in own if order.mode in BETWEEN_MACHINES and not order.networks]
    for order in (*others, *between):
        row = {"order of": order.source, "networks": kind(order), "mode": under(order)}
        found = {source: beside(orders, source, order) for source in (*here, sources(others)[0])}
        row |= {source: one and f"{one.rho:.2f} ({one.low:.2f} to {one.high:.2f})" for source, one in found.items()}
        first = next((found[machine] for machine in here if found[machine]), None)
        common = {
            "networks in common": first and first.networks,
            "places higher there": first and farthest(first, NAMED),
        }
        rows.append(row | common)
    return Shown(pd.DataFrame(rows).fillna(""), {})


def by_family(results_of: AllResults) -> Shown:
    """How many places higher a family's encoders stand on the average in timm's tables and in others' of decoders than
    on the first machine, compiled: what is common to a family has a cause."""
    own, others = ours(results_of), published()
    columns = {}
    for order in others:
        found = beside(own | others, sources(own)[0], order) if own else None
        if found and (order.source.startswith("timm") or order.networks in ("fpn", "unet")):
            columns[f"{order.source}, {kind(order)}"] = found.higher.groupby(found.higher.index.map(zoo.family)).mean()
    frame = pd.DataFrame(columns)
    frame = frame.reindex([family for family in zoo.FAMILIES if family in frame.index])
    return Shown(frame.reset_index(names="family"), dict.fromkeys(columns, 1))


def sources(orders: Orders) -> list[str]:
    return [*dict.fromkeys(order.source for order in orders)]


def picture(results_of: AllResults) -> plots.Picture:
    """The first machine's places, compiled, against those in other orders; who stand farthest apart are named."""
    own, others = ours(results_of), published()
    orders, machine, found = own | others, next(iter(sources(own)), ""), []
    for other in (*others, *own):
        wanted = other.mode == "compile" or (other in others and other.networks)
        if wanted and (agreed := beside(orders, machine, other)):
            both = {"here": orders[other._replace(source=machine)], "there": orders[other]}
            found.append((other, pd.concat(both, axis=1, join="inner").rank(ascending=False), agreed))
    if not found:
        return None
    down = -(-len(found) // ACROSS)
    figure, axes = plt.subplots(down, ACROSS, figsize=(plots.WIDTH, 3.7 * down), squeeze=False, layout="constrained")
    data = [places.assign(source=other.source, networks=other.networks, mode=other.mode) for other, places, _ in found]
    data = pd.concat(data).reset_index(names="network")
    known = {*data.network.map(family)}
    plots.legend(figure, [name for name in (*zoo.FAMILIES, zoo.family(zoo.VOLUMES[0])) if name in known])
    for panel in axes.flat[len(found) :]:
        panel.set_axis_off()
    for panel, (other, places, agreed) in zip(axes.flat, found, strict=False):
        panel.set_title(f"{other.source}\n{kind(other)}, {under(other)}: {agreed.rho:.2f}", loc="left", fontsize=8.5)
        panel.set_xlabel(f"place on {machine}")
        panel.set_ylabel("place there")
        scatter(panel, places, agreed.higher.index[:NAMED])
    return figure, data


def family(network: str) -> str:
    """Of an encoder, whatever follows it."""
    return zoo.family(network.split(" + ")[0])


def scatter(panel: Axes, places: pd.DataFrame, named: pd.Index) -> None:
    """A point a network, the first place at the top left; below the diagonal is who is slower there."""
    last = len(places) + 1
    panel.plot([0, last], [0, last], color="0.7", lw=1, ls="--", zorder=1)
    panel.set_xlim(-0.02 * last, 1.02 * last)
    panel.set_ylim(1.06 * last, -0.02 * last)
    panel.grid(color="0.92")
    for network, place in places.iterrows():
        panel.scatter(*place, s=22, edgecolors="white", linewidths=0.4, zorder=3, **plots.style(family(network)))
    plots.label(panel, places.loc[named].reset_index()[["here", "there", "index"]], places)


def write(results_of: AllResults, out: Path) -> list[Path]:
    """agreement.csv and agreement.png in `out`, where two orders have enough in common. Returns the paths."""
    frame, drawn = pairs(results_of), picture(results_of)
    if frame.empty or not drawn:
        return []
    tables.write_csv(out / "agreement.csv", frame)
    plots.save(*drawn, out / "agreement.png")
    return [out / "agreement.csv", out / "agreement.png"]


def main() -> None:
    results_of = all_results()
    print(markdown.aligned(*shown(results_of)[:2]))
    print("\n" + markdown.aligned(*by_family(results_of)[:2]))


if __name__ == "__main__":
    sys.exit(main())
