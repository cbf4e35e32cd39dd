"""The README tables of encoders with decoders."""

from pathlib import Path

import pandas as pd
from encoder_tables import by_mode

from segbench import tables
from segbench.journal import Journal, read_all
from segbench.tables import per_machine, spans

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = {"features": "encoder alone", "fpn": "FPN", "unet": "UNet"}


def journals(folder: str) -> list[Journal]:
    return read_all(BENCHMARKS / folder)


def with_decoder(decoder: str) -> str:
    """Each encoder with the decoder at its fastest right mode, the fastest first."""
    frame = tables.rows(journals(f"{decoder}_decoder/journals"))
    digits = {"img/s": 1, "over baseline": 2, "decoder's share, %": 0, "MB/img": 0, "params, M": 2}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        top = tables.results(rows[rows.decoder == decoder])
        return pd.DataFrame(
            {
                "rank": tables.marked(top),
                "encoder": top.model,
                "fastest right mode": top.best_mode,
                "img/s": top.throughput_img_s,
                "95 % interval": spans(top.throughput_low, top.throughput_high),
                "over baseline": top.speedup_best,
                "decoder's share, %": 100 * top.decoder_share,
                "MB/img": top.memory_mb_img,
                "params, M": top.params_m,
                "decoder's, M": top.decoder_params_m,
                "GMACs": top.gmacs,
                "decoder's GMACs": top.decoder_gmacs,
            }
        )

    return per_machine(table, frame, digits | {"decoder's, M": 2, "GMACs": 2, "decoder's GMACs": 2})


def modes_with(decoder: str) -> str:
    """The same encoders under every mode, in img/s."""
    frame = tables.rows(journals(f"{decoder}_decoder/journals"))
    return by_mode(frame[frame.decoder == decoder])


def fpn_against_unet() -> str:
    """Encoder alone, FPN and UNet measured next to each other, by mode."""
    frame = tables.decoders(journals("journals/combined_benchmark"))
    digits = {f"{name}, img/s": 1 for name in NAMES.values()} | {"FPN over UNet": 2}
    digits |= {"FPN, M": 2, "UNet, M": 2, "FPN, MB/img": 0, "UNet, MB/img": 0}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.sort_values(["mode", "fpn_img_s"], ascending=[True, False])
        return pd.DataFrame(
            {"encoder": rows.model, "mode": rows["mode"]}
            | {f"{name}, img/s": rows[f"{decoder}_img_s"] for decoder, name in NAMES.items()}
            | {
                "FPN over UNet": rows.fpn_over_unet,
                "95 % interval": spans(rows.fpn_over_unet_low, rows.fpn_over_unet_high, 2),
                "FPN, M": rows.fpn_params_m,
                "UNet, M": rows.unet_params_m,
                "FPN, MB/img": rows.fpn_memory_mb_img,
                "UNet, MB/img": rows.unet_memory_mb_img,
            }
        )

    return per_machine(table, frame, digits)


def fpn_over_unet() -> str:
    """How much faster FPN is, and what it saves, over all encoders that were measured, by mode."""
    frame = tables.decoders(journals("journals/combined_benchmark")).dropna(subset="fpn_over_unet")
    ratios = {"FPN over UNet, lowest": 2, "median": 2, "highest": 2, "parameters": 2, "GMACs": 2, "memory": 2}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        found = []
        for mode, of in rows.groupby("mode", sort=False):
            ratio = of.fpn_over_unet
            row = {"mode": mode, "encoders": len(of), "interval above 1": (of.fpn_over_unet_low > 1).sum()}
            row |= {"FPN over UNet, lowest": ratio.min(), "median": ratio.median(), "highest": ratio.max()}
            for name, column in (("parameters", "params_m"), ("GMACs", "gmacs"), ("memory", "memory_mb_img")):
                row[name] = (of[f"fpn_{column}"] / of[f"unet_{column}"]).median()
            found.append(row)
        return pd.DataFrame(found)

    return per_machine(table, frame, {"encoders": 0, "interval above 1": 0} | ratios)


def peers() -> str:
    """This project's decoders and those of segmentation-models-pytorch, side by side."""
    frame = tables.peers(journals("decoder_peers/journals"))
    digits = {"img/s": 1, "theirs": 1, "over theirs": 2, "params, M": 2, "theirs, M": 2, "GMACs": 2, "their GMACs": 2}
    digits |= {"GFLOP/s": 0, "their GFLOP/s": 0, "GFLOP/s over theirs": 2}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.sort_values(["mode", "decoder"], kind="stable")
        return pd.DataFrame(
            {
                "encoder": rows.model,
                "decoder": rows.decoder.map(NAMES),
                "mode": rows["mode"],
                "img/s": rows.img_s,
                "theirs": rows.smp_img_s,
                "over theirs": rows.over_peer,
                "95 % interval": spans(rows.over_peer_low, rows.over_peer_high, 2),
                "params, M": rows.params_m,
                "theirs, M": rows.smp_params_m,
                "GMACs": rows.gmacs,
                "their GMACs": rows.smp_gmacs,
                "GFLOP/s": rows.gflop_s,
                "their GFLOP/s": rows.smp_gflop_s,
                "GFLOP/s over theirs": rows.gflop_s / rows.smp_gflop_s,
            }
        )

    return per_machine(table, frame, digits)


def batches() -> str:
    """Throughput in img/s by batch size, and the smallest batch within 5 % of the best."""
    frame = tables.batches(journals("journals/batch_size_comparison"))
    sizes = sorted(frame.batch_size.unique())
    columns = {size: f"batch {size}" for size in sizes}

    def table(rows: pd.DataFrame) -> pd.DataFrame:
        keys = ["model", "decoder", "mode"]
        wide = rows.pivot_table(index=keys, columns="batch_size", values="throughput_img_s", sort=False)
        wide = wide.reindex(columns=sizes).rename(columns=columns)
        wide["within 5 % from batch"] = rows[rows.enough].set_index(keys).batch_size
        wide["MB/img"] = rows[rows.batch_size == sizes[0]].set_index(keys).memory_mb_img
        wide = wide.reset_index().rename(columns={"model": "encoder"})
        return wide.assign(decoder=wide.decoder.map(NAMES))

    digits = {name: 1 for name in columns.values()} | {"within 5 % from batch": 0, "MB/img": 0}
    return per_machine(table, frame, digits)


TABLES = {
    "fpn": lambda: with_decoder("fpn"),
    "fpn-modes": lambda: modes_with("fpn"),
    "unet": lambda: with_decoder("unet"),
    "unet-modes": lambda: modes_with("unet"),
    "fpn-against-unet": fpn_against_unet,
    "fpn-over-unet": fpn_over_unet,
    "peers": peers,
    "batches": batches,
}
