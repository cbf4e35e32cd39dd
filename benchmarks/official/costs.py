"""What 2D and 3D networks cost: slices per second by the reference project's rule, and seconds per whole CT.

The reference volume has 512x512x300 voxels of 0.75x0.75x1.5 mm. A 2D network sees each of its slices once, as it is. A
3D network sees it at its own resolution in overlapping tiles of 128x128x128 voxels, as many as nnU-Net's sliding window
makes; TotalSegmentator runs five networks at 1.5 mm, or one at 3 mm (`--fast`). Results in, data frames out.
"""

import math

import numpy as np
import pandas as pd

from benchmarks import catalogue
from segbench.analysis import rankings, tables
from segbench.cases import sides
from segbench.zoo import PATCH, RELEASED, TILE

VOXELS, SPACING_MM = (300, 512, 512), (1.5, 0.75, 0.75)
STEPS = (0.8, 0.5)  # of a tile, from one to the next: TotalSegmentator's, nnU-Net's default
SLICES_PER_PATCH = 4  # 128x128x64 voxels are as many as four slices of 512x512 have: the reference project's rule
COLUMNS = ["machine", "cpu", "kind", "way", "mode", "precision", "inferences", "inferences_half", "latency_s"]
COLUMNS += ["ct_s", "ct_low_s", "ct_high_s", "ct_all_s", "ct_half_s", "ct_tmac", "ct_half_tmac"]
COLUMNS += ["peak_gb", "quality", "half_width"]
NAMES = {
    "stunet_s": "STU-Net-S",
    "stunet_b": "STU-Net-B",
    "stunet_l": "STU-Net-L",
    "stunet_h": "STU-Net-H",
    "totalsegmentator": "TotalSegmentator (PlainConvUNet)",
    "totalsegmentator_small": "TotalSegmentator, small (ResEnc)",
    "resenc": "nnU-Net ResEnc",
    "segresnet": "MONAI SegResNet",
}


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
    return catalogue.networks(frame.replace({"model": NAMES}))


def equivalents(results: tables.Results) -> pd.DataFrame:
    """All rows with `eq_s`, `eq_s_low` and `eq_s_high`: slices of 512x512 per second, a patch of 128x128x64 voxels
    counted as four; and `peak_gb`: weights and what one inference adds to them at its peak."""
    frame = results.rows.copy()
    slices = np.select([frame.decoder != "", frame["size"] == sides(PATCH)], [1, SLICES_PER_PATCH], float("nan"))
    frame["eq_s"] = slices * frame.throughput_img_s
    frame["eq_s_low"], frame["eq_s_high"] = slices * frame.throughput_low, slices * frame.throughput_high
    frame["gmacs_slice"] = frame.gmacs / slices
    frame["peak_gb"] = (4 * frame.params_m + frame.memory_mb_img * frame.batch_size) / 1e3
    return frame


def ranked_equivalents(frame: pd.DataFrame) -> pd.DataFrame:
    """Those rows of `equivalents` that have an `eq_s`, ranked by it."""
    return rankings.ranking(frame[frame.eq_s.notna()], by="eq_s")


def costs(results: tables.Results) -> pd.DataFrame:
    """A row per machine, way to segment and right mode: seconds and TMAC per reference volume, `half`: at a step of
    half a tile. `ct_all_s` is from all samples, the disturbed ones too; `quality` and `half_width` are of the estimate
    of one inference."""
    frame = equivalents(results)
    frame = frame[frame.status == "ok"]
    flat = frame[frame.decoder != ""]
    ways = [flat.assign(kind="2D", way=networks(flat), inferences=VOXELS[0], inferences_half=VOXELS[0])]
    cubes = frame[(frame.decoder == "") & (frame["size"] == sides(TILE))]
    for run in RELEASED:
        usual, half = (run.networks * tiles(resampled(VOXELS, SPACING_MM, run.resolution_mm), step) for step in STEPS)
        rows = cubes[(cubes.model == run.model) & ((cubes.classes == run.classes) | (run.classes == 0))]
        ways.append(rows.assign(kind="3D", way=run.name, inferences=usual, inferences_half=half))
    frame = pd.concat([rows for rows in ways if len(rows)] or ways[:1], ignore_index=True)
    return frame.assign(
        latency_s=1 / frame.throughput_img_s,
        ct_s=frame.inferences / frame.throughput_img_s,
        ct_low_s=frame.inferences / frame.throughput_high,
        ct_high_s=frame.inferences / frame.throughput_low,
        ct_all_s=frame.inferences / frame.throughput_all,
        ct_half_s=frame.inferences_half / frame.throughput_img_s,
        ct_tmac=frame.inferences * frame.gmacs / 1e3,
        ct_half_tmac=frame.inferences_half * frame.gmacs / 1e3,
    )[COLUMNS]


def ranked_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `costs` at their fastest valid mode, ranked."""
    speeds = {"ct_per_s": 1 / frame.ct_s, "ct_per_s_low": 1 / frame.ct_high_s, "ct_per_s_high": 1 / frame.ct_low_s}
    right = frame.assign(status="ok", **speeds)
    return rankings.ranking(right, by="ct_per_s", keys=["machine", "way"])
