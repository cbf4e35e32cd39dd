"""What 2D and 3D networks cost: slices per second by the reference project's rule, and seconds per whole CT.

The reference volume has 512x512x300 voxels of 0.75x0.75x1.5 mm. A 2D network sees each of its slices once, as it is. A
3D network sees it at its own resolution in overlapping tiles of 128x128x128 voxels, as many as nnU-Net's sliding window
makes; TotalSegmentator runs five networks at 1.5 mm, or one at 3 mm (`--fast`). Results in, data frames out.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from segbench.analysis import rankings, tables
from segbench.cases import DECODERS, sides
from segbench.zoo import PATCH, RELEASED, TILE

VOXELS, SPACING_MM = (300, 512, 512), (1.5, 0.75, 0.75)
STEPS = (0.8, 0.5)  # of a tile, from one to the next: TotalSegmentator's, nnU-Net's default
SLICES_PER_PATCH = 4  # 128x128x64 voxels are as many as four slices of 512x512 have: the reference project's rule
NAMES = {
    "stunet_s": "STU-Net-S",
    "stunet_b": "STU-Net-B",
    "stunet_l": "STU-Net-L",
    "stunet_h": "STU-Net-H",
    "totalsegmentator": "TotalSegmentator (PlainConvUNet)",
    "resenc": "nnU-Net ResEnc",
    "segresnet": "MONAI SegResNet",
}


class Cost(NamedTuple):
    """Of the reference volume; `half`: at a step of half a tile."""

    machine: str
    cpu: str
    kind: str  # 2D or 3D
    way: str
    mode: str
    precision: str
    inferences: int
    inferences_half: int
    latency_s: float  # of one inference
    ct_s: float
    ct_low_s: float  # 95 % interval
    ct_high_s: float
    ct_all_s: float  # from all samples, the disturbed ones too
    ct_half_s: float
    ct_tmac: float
    ct_half_tmac: float
    peak_gb: float  # weights, and what one inference adds to them
    quality: str  # of the estimate of one inference, and the half width that it is compared with
    half_width: float


def resampled(voxels: tuple[int, ...], spacing_mm: tuple[float, ...], to_mm: float) -> tuple[int, ...]:
    """Voxels at another, isotropic resolution."""
    return tuple(round(count * spacing / to_mm) for count, spacing in zip(voxels, spacing_mm, strict=True))


def tiles(voxels: tuple[int, ...], step: float) -> int:
    """How often nnU-Net's sliding window calls the network; a volume smaller than a tile is padded to one."""
    from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window

    padded = tuple(max(pair) for pair in zip(voxels, TILE, strict=True))
    return math.prod(len(starts) for starts in compute_steps_for_sliding_window(padded, TILE, step))


def networks(frame: pd.DataFrame) -> pd.Series:
    """What tables and pictures call the rows' networks: `resnet18 + UNet`, `STU-Net-S`."""
    return frame.model.replace(NAMES) + frame.decoder.map(lambda name: f" + {DECODERS[name]}" if name else "")


def equivalents(results: tables.Results) -> pd.DataFrame:
    """All rows with `eq_s`, `eq_s_low` and `eq_s_high`: slices of 512x512 per second, a patch of 128x128x64 voxels
    counted as four; and `peak_gb`: weights and what one inference adds to them at its peak."""
    frame = results.rows.copy()
    slices = np.select([frame.decoder != "", frame["size"] == sides(PATCH)], [1, SLICES_PER_PATCH], float("nan"))
    for column, source in (
        ("eq_s", "throughput_img_s"),
        ("eq_s_low", "throughput_low"),
        ("eq_s_high", "throughput_high"),
    ):
        frame[column] = slices * frame[source]
    frame["gmacs_slice"] = frame.gmacs / slices
    frame["peak_gb"] = (4 * frame.params_m + frame.memory_mb_img * frame.batch_size) / 1e3
    return frame


def ranked_equivalents(frame: pd.DataFrame) -> pd.DataFrame:
    """Those rows of `equivalents` that have an `eq_s`, ranked by it."""
    return rankings.ranking(frame[frame.eq_s.notna()], by="eq_s")


def costs(results: tables.Results) -> pd.DataFrame:
    """A row per machine, way to segment and right mode: seconds and TMAC per reference volume, for both of STEPS."""
    frame = equivalents(results)
    frame = frame[frame.status == "ok"]
    flat, ways = frame[frame.decoder != ""], []
    for row, name in zip(flat.itertuples(), networks(flat), strict=True):
        ways.append(cost(row, "2D", name, [VOXELS[0]] * len(STEPS)))
    cubes = frame[(frame.decoder == "") & (frame["size"] == sides(TILE))]
    for run in RELEASED:
        counts = [run.networks * tiles(resampled(VOXELS, SPACING_MM, run.resolution_mm), step) for step in STEPS]
        rows = cubes[(cubes.model == run.model) & ((cubes.classes == run.classes) | (run.classes == 0))]
        ways += [cost(row, "3D", run.name, counts) for row in rows.itertuples()]
    return pd.DataFrame(ways, columns=Cost._fields)


def cost(row: tuple, kind: str, way: str, inferences: list[int]) -> Cost:
    """Of one way to go over the reference volume with a measured network, `inferences` for each of STEPS."""
    fixed_iterations, half = inferences
    return Cost(
        machine=row.machine,
        cpu=row.cpu,
        kind=kind,
        way=way,
        mode=row.mode,
        precision=row.precision,
        inferences=fixed_iterations,
        inferences_half=half,
        latency_s=1 / row.throughput_img_s,
        ct_s=fixed_iterations / row.throughput_img_s,
        ct_low_s=fixed_iterations / row.throughput_high,
        ct_high_s=fixed_iterations / row.throughput_low,
        ct_all_s=fixed_iterations / row.throughput_all,
        ct_half_s=half / row.throughput_img_s,
        ct_tmac=fixed_iterations * row.gmacs / 1e3,
        ct_half_tmac=half * row.gmacs / 1e3,
        peak_gb=row.peak_gb,
        quality=row.quality,
        half_width=row.half_width,
    )


def ranked_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `costs` at their fastest valid mode, ranked."""
    speeds = {"ct_per_s": 1 / frame.ct_s, "ct_per_s_low": 1 / frame.ct_high_s, "ct_per_s_high": 1 / frame.ct_low_s}
    right = frame.assign(status="ok", allocator="retained", **speeds)
    return rankings.ranking(right, by="ct_per_s", keys=["machine", "way"])
