"""How fast the kernels of segbench/kernels/labels.py are.

Against torch, eager and compiled, one call of each in turn; and against what this machine's memory and arithmetic
allow. Writes kernels/<machine>.csv, and from those of all machines kernels.csv.

    uv run benchmarks/labels/kernels.py
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from benchmarks.labels.interleaved import CLASSES, HERE, in_turn, set_up
from segbench import machine
from segbench.cases import Case
from segbench.problem import Problem, exit_with
from segbench.settings import default_is, parse

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = 32
# Vector instructions per value of the full-resolution logits: a subtraction, a multiply-add and a comparison. And per
# value between two rows of 2D logits a product and one multiply-add, of 3D logits three multiply-adds.
PER_VALUE, PER_ROW = 3, {2: 2, 3: 4}
WHOLE_CT, WHOLE_CT_LABELS = (300, 256, 256), (300, 512, 512)
WHOLE_CT_GB = 14  # 9.2 GB of logits and what making them takes


@dataclass
class Settings:
    pairs: int = 15
    """Calls of each kernel, in turn; 3 at least, for an interval."""
    skip_large: bool = False
    """Skip the logits of a whole CT, 9.2 GB of them."""
    out: Annotated[Path, default_is("the script's folder")] = HERE
    """Folder for the evidence and kernels.csv."""


def compare(name: str, calls: dict[str, Callable[[], object]], needs: dict[str, int], pairs: int) -> dict:
    """A row: the first call is the kernel, the ratio is that of the fastest other call over it. Its labels are compared
    with the second call's."""
    import numpy as np

    from segbench.analysis import stats

    kernel, eager, *_ = calls
    seconds = in_turn(calls, pairs)
    medians = {call: float(np.median(seconds[call])) for call in calls}
    fastest_other = min([*calls][1:], key=medians.get)
    ratios = seconds[fastest_other] / seconds[kernel]
    low, high = stats.interval(ratios)
    same = float((calls[kernel]() == calls[eager]()).double().mean())
    times = {"ms" if call == kernel else f"{call}_ms": 1e3 * median for call, median in medians.items()}
    row = {"kernel": name} | times | {"fastest_other": fastest_other, "ratio": statistics.geometric_mean(ratios)}
    return row | {"ratio_low": low, "ratio_high": high, "same_labels": same, "pairs": pairs} | needs


def upsampling_needs(logits: "Tensor", size: tuple[int, ...]) -> dict[str, int]:
    """Bytes and vector instructions per value that no implementation can do without."""
    pixels, between = prod(size), prod(size[:-1]) * logits.shape[-1]
    instructions = CLASSES * (PER_VALUE * pixels + PER_ROW[len(size)] * between)
    return {"bytes": logits.nbytes + pixels, "instructions": instructions}


def three_ways(kernel: Callable, expression: Callable, values: "Tensor", **options: bool) -> dict[str, Callable]:
    """Calls of a kernel and of torch's expression, eager and compiled with these options."""
    import torch

    torch.compiler.reset()  # else its size may become a variable
    compiled = torch.compile(expression, options=options)
    return {"fused": lambda: kernel(values), "eager": lambda: expression(values), "compiled": lambda: compiled(values)}


def both_layouts(name: str, kernel: Callable, values: "Tensor", size: tuple[int, ...], pairs: int) -> list[dict]:
    """Rows of a kernel that resamples logits to `size` and takes the largest, as NCHW and NHWC."""
    import torch
    from torch.nn import functional as F

    mode, innermost = ("bilinear", torch.channels_last) if len(size) == 2 else ("trilinear", torch.channels_last_3d)
    rows = []
    for layout, memory_format in (("NCHW", torch.contiguous_format), ("NHWC", innermost)):
        logits = values.clone().contiguous(memory_format=memory_format)
        calls = three_ways(kernel, lambda logits: F.interpolate(logits, size=size, mode=mode).argmax(1), logits)
        rows.append(compare(f"{name}, {layout}", calls, upsampling_needs(logits, size), pairs))
    return rows


def measure(threads: int, pairs: int) -> list[dict]:
    """Rows of upsample_labels for noise and for a network's logits, of head_labels for UNet's last two layers, and of
    resample_labels for noise."""
    import torch
    from torch import nn

    from segbench import inputs, models
    from segbench.kernels import labels
    from segbench.models.unet import folded

    case = Case(model="mobilenetv4_conv_small", mode="baseline", size=(512, 512), decoder="fpn", classes=CLASSES)
    trunk, _ = models.labelled(models.build(case), "labels", case.size, threads)
    (of_network,) = trunk(inputs.photograph(case.size))
    upsample, rows = partial(labels.upsample_labels, factor=4, threads=threads), []
    for name, values in (("noise", torch.randn(of_network.shape)), ("a network's", of_network)):
        rows += both_layouts(f"upsample_labels, {name}", upsample, values, case.size, pairs)

    up, head = nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2), nn.Conv2d(CHANNELS, CLASSES, 1)
    weight, bias = folded(up, head)
    maps = torch.randn(1, CHANNELS, 256, 256).contiguous(memory_format=torch.channels_last)
    kernel = partial(labels.head_labels, weight=weight, bias=bias, threads=threads)
    calls = three_ways(kernel, lambda maps: head(up(maps)).argmax(1), maps, freezing=True)
    pixels = prod(case.size)
    needs = {"bytes": maps.nbytes + pixels, "instructions": CLASSES * pixels * (CHANNELS + 1)}
    rows.append(compare("head_labels", calls, needs, pairs))

    size, noise = (40, 256, 256), torch.randn(1, CLASSES, 40, 128, 128)
    resample = partial(labels.resample_labels, size=size, threads=threads)
    return rows + both_layouts("resample_labels, noise", resample, noise, size, max(3, pairs // 2))


def measure_whole_ct(threads: int) -> dict:
    """The row of resample_labels for a whole CT, for which torch would need 37 GB."""
    import psutil
    import torch

    from segbench.kernels import labels
    from segbench.measure.timing import seconds, status_kb

    depth, height, width = WHOLE_CT
    logits = torch.empty(1, CLASSES, depth, height, width)
    for plane in range(depth):
        logits[:, :, plane] = torch.randn(1, CLASSES, height, width)
    before_mb = psutil.Process().memory_info().rss / 1e6
    taken = [seconds(lambda: labels.resample_labels(logits, WHOLE_CT_LABELS, threads)) for _ in range(2)]
    row = {"kernel": "resample_labels, a whole CT", "ms": 1e3 * min(taken), "pairs": 2}
    row["beyond_input_mb"] = status_kb("VmHWM") * 1024 / 1e6 - before_mb
    return row | upsampling_needs(logits, WHOLE_CT_LABELS)


def limits() -> dict[str, float]:
    """This machine's rates with these threads: GB per second that are read and written beyond every cache, and 1e9
    vector instructions per second and lane of the multiply-add units, from the largest matrix products."""
    import torch

    from segbench.measure import timing

    source = torch.ones(1 << 28)
    target = torch.empty_like(source)
    fastest_s = min(timing.seconds(lambda: target.copy_(source)) for _ in range(6))
    peak = timing.peak_gflops(torch.float32)
    return {"memory_gb_s": 2 * source.nbytes / fastest_s / 1e9, "instructions_g_s": peak / 2}


def check(settings: Settings) -> None:
    """Raises Problem."""
    if settings.pairs < 3:
        raise Problem("--pairs is less than 3, too few for an interval")
    if not settings.skip_large and machine.free_gb() < WHOLE_CT_GB:
        free = f"{machine.free_gb():.0f} GB are free"
        raise Problem(f"{free}, a whole CT needs {WHOLE_CT_GB}: --skip-large leaves it out")


def main() -> None:
    settings, here, threads = parse(Settings(), __doc__), machine.describe(), machine.usable_cores()
    check(settings)
    from benchmarks.catalogue import evidence_path

    path = evidence_path(settings.out, "kernels", here.name)
    set_up(threads)
    import pandas as pd
    import torch

    from benchmarks.labels import report

    torch.manual_seed(0)
    with torch.inference_mode():
        rows = measure(threads, settings.pairs)
        rows += [] if settings.skip_large else [measure_whole_ct(threads)]
        about, rates = {"machine": here.name, "threads": threads}, limits()
    pd.DataFrame([about | row for row in rows]).assign(**rates).to_csv(path, index=False, float_format="%.6g")
    for path in report.write(settings.out, settings.out):
        print(f"wrote {path}")


if __name__ == "__main__":
    exit_with(main)
