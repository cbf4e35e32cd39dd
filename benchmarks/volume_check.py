"""Is the predicted cost of a whole CT honest? A real sliding-window run with nnU-Net's own predictor, for notes.md.

A synthetic CT is resampled to 1.5 mm, cut into tiles, segmented in eager FP32 as TotalSegmentator does on a CPU,
stitched together, classified by argmax and resampled back. Printed: the time inside the network beside what is
predicted, tiles times the latency of one (measured alone in this process, and the journal's estimate and that from all
of its samples), the slowest tile, and the shares of the rest. Writes nothing.

    uv run benchmarks/volume_check.py
    uv run benchmarks/volume_check.py --models stunet_s --no-room
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np
import torch
import tyro
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from scipy.ndimage import zoom
from tabulate import tabulate

from segbench import inputs, machine, measure, modes, zoo
from segbench.cases import sides
from segbench.journal import read_all
from segbench.models.volume import build_volume
from segbench.tables import Results

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import whole_ct

RESOLUTION_MM, CLASSES = 1.5, 117
RUNS = {run.model: run for run in zoo.RUNS if run.resolution_mm == RESOLUTION_MM}
ALONE = 4  # inferences of one tile before the run, and as many after it
JOURNALS = Path(__file__).resolve().parents[1] / "journals" / "benchmark_official"


@dataclass
class Settings:
    models: tuple[Literal[*RUNS], ...] = ("stunet_s", "totalsegmentator")
    voxels: tuple[int, int, int] = (160, 384, 384)
    """Of 1.5x0.75x0.75 mm."""
    step: float = 0.8
    """Of a tile, from one to the next."""
    room: bool = True
    """Room in the heap from the start, as every visit of a benchmark has; without it the heap grows over the first
    tiles."""


class Laps:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def __call__(self, name: str, call):
        start = time.perf_counter()
        result = call()
        self.spent[name] = self.spent.get(name, 0) + time.perf_counter() - start
        return result


def predictor_of(net: torch.nn.Module, classes: int, step: float) -> nnUNetPredictor:
    """nnU-Net's predictor around a network that it did not train."""
    predictor = nnUNetPredictor(step, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.network = net
    predictor.configuration_manager = SimpleNamespace(patch_size=zoo.TILE)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=classes)
    return predictor


@torch.inference_mode()
def check(model: str, settings: Settings, published_s: tuple[float, float]) -> dict:
    classes, networks = RUNS[model].classes or CLASSES, RUNS[model].networks
    net, tile = build_volume(model, classes, zoo.TILE).net, inputs.ct(zoo.TILE)
    net(tile)
    alone = [measure.seconds(lambda: net(tile)) for _ in range(ALONE)]
    starts, inside, lap = [], [], Laps()
    hooks = [
        net.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter())),
        net.register_forward_hook(lambda *_: inside.append(time.perf_counter() - starts[-1])),
    ]
    volume, predictor = inputs.ct(settings.voxels)[0, 0].numpy(), predictor_of(net, classes, settings.step)
    target = whole_ct.resampled(settings.voxels, whole_ct.SPACING_MM, RESOLUTION_MM)
    factors = np.divide(target, settings.voxels)
    image = lap("resampling", lambda: torch.from_numpy(zoom(volume, factors, order=3))[None])
    for _ in range(networks):
        logits = lap("sliding window", lambda: predictor.predict_sliding_window_return_logits(image))
        labels = lap("argmax", lambda logits=logits: logits.argmax(0).to(torch.uint8).numpy())
        lap("resampling", lambda labels=labels: zoom(labels, 1 / factors, order=0))
    for hook in hooks:
        hook.remove()
    alone += [measure.seconds(lambda: net(tile)) for _ in range(ALONE)]
    network, whole = sum(inside), sum(lap.spent.values())
    calls = networks * whole_ct.tiles(target, settings.step)
    alone_s, estimate_s, all_samples_s = (calls * each for each in (float(np.median(alone)), *published_s))
    shares = {"network": network, "stitching": lap.spent["sliding window"] - network}
    shares |= {name: lap.spent[name] for name in ("argmax", "resampling")}
    return {
        "": model,
        "tiles, predicted": calls,
        "tiles": len(inside),
        "network, s": network,
        "predicted from tiles alone, s": alone_s,
        "predicted from the journal, s": estimate_s,
        "predicted from the journal, all samples, s": all_samples_s,
        "network over tiles alone": network / alone_s,
        "network over the journal's": network / estimate_s,
        "network over the journal's, all samples": network / all_samples_s,
        "slowest tile over the median": max(inside) / float(np.median(inside)),
        "whole, s": whole,
        **{f"{name}, %": 100 * seconds / whole for name, seconds in shares.items()},
    }


def published(model: str, here: str) -> tuple[float, float]:
    """Seconds of one tile in this machine's journal, its estimate and from all samples; NaN where there is none."""
    rows = Results([journal for journal in read_all(JOURNALS) if journal.name == here]).rows
    wanted = model, RUNS[model].classes or CLASSES, sides(zoo.TILE), modes.BASELINE
    for row in rows.itertuples():
        if (row.model, row.classes, row.size, row.mode) == wanted:
            return row.latency_ms / 1e3, 1 / row.throughput_all
    return float("nan"), float("nan")


def shown(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    settings, here = tyro.cli(Settings, description=__doc__), machine.describe()
    if min(settings.voxels) < 1 or not 0 < settings.step <= 1:
        sys.exit("volume_check.py: --voxels are positive, --step is above 0 and at most 1")
    torch.set_num_threads(here.cores)
    measure.pin_allocator(room_mb=300 * machine.free_gb() if settings.room else 0)
    print(f"{here.label}, torch {torch.__version__}, {here.cores} threads, {sides(settings.voxels)} voxels")
    rows = [check(model, settings, published(model, here.name)) for model in settings.models]
    names, *lines = ([key, *(shown(row[key]) for row in rows)] for key in rows[0])
    print(tabulate(lines, headers=names, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
