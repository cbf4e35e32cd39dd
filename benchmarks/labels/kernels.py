"""How fast the kernels of segbench/labels.py are: against torch, eager and compiled, one call of each in turn; and
against what this machine's memory and arithmetic allow.

Writes kernels/<machine>.csv, from which kernels.csv and the tables of README.md are made.

    uv run benchmarks/labels/kernels.py
"""

import os
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import psutil
import tyro

from segbench import machine
from segbench.analysis import stats
from segbench.runtimes import SHORT_SPIN

HERE = Path(__file__).resolve().parent
CLASSES, CHANNELS = 117, 32
# Of floating-point instructions per value of the full-resolution logits, each for a vector of values: a subtraction, a
# multiply-add and a comparison; and per value between two rows or planes a product and one or three multiply-adds.
PER_VALUE, PER_ROW = 3, {2: 2, 3: 4}
LARGE = ((300, 256, 256), (300, 512, 512))


@dataclass
class Settings:
    pairs: int = 15
    """Calls of each, in turn."""
    large: bool = True
    """Also the logits of a whole CT, 9.2 GB of them; --no-large leaves them out."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = HERE


def in_turn(calls: dict[str, Callable[[], object]], pairs: int) -> dict[str, np.ndarray]:
    """Seconds of each, call after call."""
    from segbench.measure.timing import seconds

    for call in calls.values():
        call(), call()
    taken = [[seconds(call) for call in calls.values()] for _ in range(pairs)]
    return dict(zip(calls, np.array(taken).T, strict=True))


def compared(name: str, calls: dict[str, Callable[[], object]], work: dict, pairs: int) -> dict:
    """A row: the first call is ours, the ratio over the fastest of the others. Labels are compared with eager's."""
    ours, *others = calls
    taken = in_turn(calls, pairs)
    best = min(others, key=lambda other: np.median(taken[other]))
    ratios = taken[best] / taken[ours]
    low, high = stats.interval(ratios)
    same = float((calls[ours]() == calls[others[0]]()).double().mean())
    row = {"kernel": name, "ms": 1e3 * np.median(taken[ours])}
    row |= {f"{other}_ms": 1e3 * np.median(taken[other]) for other in others}
    row |= {"fastest_other": best, "ratio": statistics.geometric_mean(ratios), "ratio_low": low, "ratio_high": high}
    return row | {"same_labels": same, "pairs": pairs} | work


def measure(settings: Settings) -> list[dict]:
    import torch
    from torch import nn
    from torch.nn import functional as F

    from segbench import inputs, models
    from segbench.cases import Case
    from segbench.kernels import labels
    from segbench.measure import timing
    from segbench.models.unet import folded

    threads = machine.usable_cores()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    timing.retain_memory(2000)
    rows = []
    case = Case(model="mobilenetv4_conv_small", mode="baseline", size=(512, 512), decoder="fpn", classes=CLASSES)
    trunk, _ = models.labelled(models.build(case), "labels", case.size, threads)

    def upsampled(logits):
        return F.interpolate(logits, scale_factor=4.0, mode="bilinear").argmax(1)

    with torch.inference_mode():
        (network,) = trunk(inputs.photograph(case.size))
        for name, values in (("noise", torch.randn(network.shape)), ("a network's", network)):
            for layout, form in (("planes", torch.contiguous_format), ("NHWC", torch.channels_last)):
                logits = values.clone().contiguous(memory_format=form)
                compiled = torch.compile(upsampled)
                calls = {
                    "ours": lambda logits=logits: labels.upsample_labels(logits, 4, threads),
                    "eager": lambda logits=logits: upsampled(logits),
                    "compiled": lambda logits=logits, compiled=compiled: compiled(logits),
                }
                rows.append(
                    compared(
                        f"upsample_labels, {name}, {layout}", calls, upsampling(logits, (512, 512)), settings.pairs
                    )
                )

        up, head = nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2), nn.Conv2d(CHANNELS, CLASSES, 1)
        weight, bias = folded(up, head)
        maps = torch.randn(1, CHANNELS, 256, 256).contiguous(memory_format=torch.channels_last)
        both = torch.compile(lambda values: head(up(values)).argmax(1), options={"freezing": True})
        calls = {
            "ours": lambda: labels.head_labels(maps, weight, bias, threads),
            "eager": lambda: head(up(maps)).argmax(1),
            "compiled": lambda: both(maps),
        }
        values = CLASSES * 512 * 512
        work = {"bytes": maps.nbytes + 512 * 512, "instructions": values * (CHANNELS + 1)}
        rows.append(compared("head_labels", calls, work, settings.pairs))

        size = (40, 256, 256)
        for layout, form in (("planes", torch.contiguous_format), ("NHWC", torch.channels_last_3d)):
            volume = torch.randn(1, CLASSES, 40, 128, 128).contiguous(memory_format=form)
            whole = torch.compile(lambda values: F.interpolate(values, size=size, mode="trilinear").argmax(1))
            calls = {
                "ours": lambda volume=volume: labels.resample_labels(volume, size, threads),
                "eager": lambda volume=volume: F.interpolate(volume, size=size, mode="trilinear").argmax(1),
                "compiled": lambda volume=volume, whole=whole: whole(volume),
            }
            work, pairs = upsampling(volume, size), max(3, settings.pairs // 2)
            rows.append(compared(f"resample_labels, noise, {layout}", calls, work, pairs))
        if settings.large:
            rows.append(large(threads))
    return rows


def upsampling(logits, size: tuple[int, ...]) -> dict:
    """Bytes and vector instructions per value that cannot be done without."""
    pixels, between = int(np.prod(size)), int(np.prod(size[:-1])) * logits.shape[-1]
    instructions = CLASSES * (PER_VALUE * pixels + PER_ROW[len(size)] * between)
    return {"bytes": logits.nbytes + pixels, "instructions": instructions}


def large(threads: int) -> dict:
    """A whole CT: what torch would need 37 GB for."""
    import torch

    from segbench.kernels import labels
    from segbench.measure.timing import seconds, status_kb

    (depth, height, width), size = LARGE
    logits = torch.empty(1, CLASSES, depth, height, width)
    for plane in range(depth):
        logits[:, :, plane] = torch.randn(1, CLASSES, height, width)
    before = psutil.Process().memory_info().rss
    taken = [seconds(lambda: labels.resample_labels(logits, size, threads)) for _ in range(2)]
    row = {"kernel": "resample_labels, a whole CT", "ms": 1e3 * min(taken), "pairs": 2}
    return row | {"beyond_input_mb": status_kb("VmHWM") * 1024 / 1e6 - before / 1e6} | upsampling(logits, size)


def limits() -> dict:
    """This machine's rates: bytes per second that its threads read and write beyond every cache, and vector
    instructions per second and lane of its multiply-add units, by the largest matrix products."""
    import torch

    from segbench.measure import timing

    source = torch.ones(1 << 28)
    target = torch.empty_like(source)
    best = min(timing.seconds(lambda: target.copy_(source)) for _ in range(6))
    peak = timing.peak_gflops(torch.float32)
    return {"memory_gb_s": 2 * source.nbytes / best / 1e9, "instructions_g_s": peak / 2}


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ.update(SHORT_SPIN)  # before torch: its threads would spin into what comes in turn
    settings, here = tyro.cli(Settings, description=__doc__), machine.describe()
    if settings.pairs < 3:
        sys.exit("kernels.py: --pairs are 3 or more, for an interval")
    try:
        (settings.out / "kernels").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"kernels.py: --out {settings.out} cannot be written to ({error.strerror})")
    if settings.large and machine.free_gb() < 14:
        sys.exit(f"kernels.py: {machine.free_gb():.0f} GB are free, a whole CT needs 14: --no-large leaves it out")
    from benchmarks.labels import report

    frame = pd.DataFrame(measure(settings)).assign(**limits())
    frame.insert(0, "machine", here.name)
    frame.insert(1, "threads", machine.usable_cores())
    frame.to_csv(settings.out / "kernels" / f"{here.name}.csv", index=False, float_format="%.6g")
    for path in report.write_kernels(settings.out, settings.out):
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
