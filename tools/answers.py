"""The README's opening: what was measured, in a few sentences a machine."""

import decoder_tables
import encoder_tables
import official_tables
import pandas as pd

from segbench import costs, tables


def answers() -> str:
    """Fastest encoder, fastest encoder with decoder, FPN against UNet, what the modes bring, 2D against 3D."""
    encoders = tables.rows(encoder_tables.journals())
    told = []
    for machine, of in encoders.groupby("machine", sort=False):
        parts = [fastest_encoder(of), gain(of)]
        parts += [part(machine) for part in (fastest_with_decoder, fpn_against_unet, volumes)]
        lines = "\n".join(f"- {part}" for part in parts if part)
        told.append(f"On **{machine}** ({of.cpu.iloc[0]}), at 512x512:\n\n{lines}")
    return "\n\n".join(told)


def fastest_encoder(rows: pd.DataFrame) -> str:
    return f"**Fastest encoder** of {rows.model.nunique()}: {winner(rows, digits=0)}."


def winner(rows: pd.DataFrame, digits: int) -> str:
    """The fastest row, and how many others their 95 % intervals do not tell from it."""
    first, *others = tables.ranking(rows).itertuples()
    decoder = f" + {decoder_tables.NAMES[first.decoder]}" if first.decoder else ""
    told = f"`{first.model}`{decoder}, {first.throughput_img_s:.{digits}f} img/s ({first.mode})"
    near = sum(other.throughput_high > first.throughput_low for other in others)
    return told + f", with the intervals of {near} others overlapping its own" * bool(near)


def fastest_with_decoder(machine: str) -> str:
    told = []
    for decoder in ("fpn", "unet"):
        rows = of_machine(tables.rows(decoder_tables.journals(f"{decoder}_decoder/journals")), machine)
        rows = rows[rows.decoder == decoder] if len(rows) else rows
        if len(rows):
            told.append(winner(rows, digits=1))
    return f"**Fastest with a decoder**, 117 classes: {'; '.join(told)}." if told else ""


def fpn_against_unet(machine: str) -> str:
    rows = of_machine(tables.decoders(decoder_tables.journals("journals/combined_benchmark")), machine)
    if rows.empty:
        return ""
    rows = rows.dropna(subset="fpn_over_unet").sort_values("fpn_img_s").groupby("model").tail(1)
    ratio, apart = rows.fpn_over_unet, (rows.fpn_over_unet_low > 1).sum()
    return (
        f"**FPN over UNet** on the same encoder, in the faster of the modes that were measured next to each other: "
        f"{ratio.median():.2f} times as fast in the median of {len(ratio)} encoders ({ratio.min():.2f} to "
        f"{ratio.max():.2f}), for {apart} of them beyond the 95 % interval."
    )


def gain(rows: pd.DataFrame) -> str:
    speedups = rows[(rows.status == "ok") & (rows["mode"] != tables.BASELINE)].groupby("mode").speedup
    middle = speedups.median()[speedups.count() == rows.model.nunique()]
    if middle.empty:
        return ""
    best = speedups.get_group(middle.idxmax())
    return (
        f"**The mode that brings most** over eager FP32, of those that ran on all {len(best)} encoders: "
        f"{middle.idxmax()}, {middle.max():.2f} times as fast in the median ({best.min():.2f} to {best.max():.2f})."
    )


def volumes(machine: str) -> str:
    rows = of_machine(costs.whole_cts(official_tables.journals()), machine)
    if rows.empty:
        return ""
    seconds = rows.groupby("way").ct_s.min().sort_values()
    flat = rows[rows.kind == "2D"].way.unique()
    deep = "; ".join(f"{way} {seconds[way]:.0f} s" for way in seconds.index if way not in flat)
    of_flat = seconds[flat]
    span = f"{of_flat.min():.0f} s ({of_flat.idxmin()}) to {of_flat.max():.0f} s ({of_flat.idxmax()})"
    return (
        f"**A whole CT** of 512x512x300 costs, the networks alone, each in its fastest mode: {span} in 2D "
        f"({len(flat)} small networks, each slice once), and in 3D (tiles at a step of 0.8): {deep}."
    )


def of_machine(frame: pd.DataFrame, machine: str) -> pd.DataFrame:
    return frame[frame.machine == machine] if len(frame) else frame


TABLES = {"answers": answers}
