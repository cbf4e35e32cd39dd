"""Checks of the protocol against independent measurements, for notes.md; prints tables, writes nothing.

bias         A reading of the reference workload pushes the network out of the caches. Samples between reference times, as a sweep
             takes them, against long back-to-back runs in the same process, in turn.
memory       What one inference adds to the resident set against the peak of torch's own live allocations.
reference workload   How much of a network's changes in time each reference workload sees, one thing after the other in turn.
grad         Compiled code under no_grad against inference_mode, in turn.
calibration  What the shift of batch norms' biases does to the growth of a small error, and so to BF16's.

    uv run benchmarks/protocol_checks.py bias memory
"""

import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from segbench import machine, modes, runtimes
from segbench.analysis import stats
from segbench.cases import Case
from segbench.inputs import photograph
from segbench.measure import timing
from segbench.measure.check import relative_error
from segbench.models import build, encoder


@dataclass
class Settings:
    checks: Annotated[
        tuple[Literal["bias", "memory", "reference_workload", "grad", "calibration"], ...], tyro.conf.Positional
    ]
    """Which of them."""
    models: tuple[str, ...] = ("mobilenetv3_small_100", "regnetx_002", "resnet18")
    """Small, medium, large."""
    modes: tuple[str, ...] = ("baseline",)
    """For bias; runtimes too."""
    seconds: float = 60
    """Of measuring per model and mode."""


def prepare(model: str, mode: str) -> tuple[torch.nn.Module, torch.Tensor, Callable]:
    """The network, its input, and a call that was made once."""
    case = Case(model=model, mode=mode, size=(512, 512))
    module, image, chosen = build(case), photograph(case.size), modes.MODES[mode]
    prepared = runtimes.of_mode(chosen).prepare(module, image, chosen, torch.get_num_threads(), machine.cache_folder())
    return module, image, prepared.call


def bias(model: str, seconds: float, mode: str) -> list[dict]:
    """Samples over back-to-back runs of about 0.2 s between them, with the interval over the pairs. Neighbours in time
    share the machine's state, quiet or not."""
    _, _, call = prepare(model, mode)
    reference_workload = timing.ReferenceWorkload()
    once = min(timing.seconds(call) for _ in range(3))
    per_sample, per_run = max(1, round(timing.SAMPLE_S / once)), max(3, round(0.2 / once))

    def sample() -> float:
        reference_workload.read()
        took = timing.seconds(lambda: [call() for _ in range(per_sample)]) / per_sample
        reference_workload.read()
        return took

    ratios, before, end = [], sample(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        run = timing.seconds(lambda: [call() for _ in range(per_run)]) / per_run
        after = sample()
        ratios.append((before * after) ** 0.5 / run)
        before = after
    low, high = stats.interval(ratios)
    row = {"encoder": model, "mode": mode, "per sample": per_sample, "per run": per_run, "pairs": len(ratios)}
    shares = {"bias, %": statistics.geometric_mean(ratios), "low": low, "high": high}
    return [row | {name: (value - 1) * 100 for name, value in shares.items()}]


def memory(model: str, seconds: float, mode: str) -> list[dict]:
    """MB; torch's allocations from the profiler's record of every one of them."""
    _, _, call = prepare(model, mode)
    resident = timing.memory(call)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    sizes = [event.nbytes() for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = max(np.cumsum(sizes)) / 1e6
    return [{"encoder": model, "resident, MB": resident, "allocated, MB": allocated, "ratio": resident / allocated}]


def grad(model: str, seconds: float, mode: str) -> list[dict]:
    """Ratio of the latencies of compiled code, with its interval over pairs of blocks of eight calls."""
    module, image, _ = prepare(model, mode)
    compiled = torch.compile(module)
    blocks = {torch.no_grad: [], torch.inference_mode: []}
    for without in blocks:  # each has a graph of its own
        with without():
            compiled(image)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for without, taken in blocks.items():
            with without():
                compiled(image)
                taken.append(min(timing.seconds(lambda: compiled(image)) for _ in range(8)))
    ratios = np.divide(*blocks.values())
    low, high = stats.interval(ratios)
    ratio = float(np.median(ratios))
    return [{"encoder": model, "pairs": len(ratios), "no_grad / inference_mode": ratio, "low": low, "high": high}]


def calibration(model: str, seconds: float, mode: str) -> list[dict]:
    """Per shift: by how much a relative error of 1e-6 of the input grows, and BF16's relative error on the features."""
    rows = []
    for shift in (0.0, 1.0, encoder.SHIFT):
        encoder.SHIFT = shift
        module, image, _ = prepare(model, mode)
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        noise *= 1e-6 * image.norm() / noise.norm()
        with torch.inference_mode():
            expected, moved = module(image)[0], module(image + noise)[0]
            with torch.autocast("cpu", torch.bfloat16):
                rounded = module(image)[0]
        growth, error = relative_error(moved, expected) / 1e-6, relative_error(rounded, expected)
        rows.append({"encoder": model, "shift": shift, "growth of an error": growth, "BF16 relative error": error})
    return rows


def reference_workload(model: str, seconds: float, mode: str) -> list[dict]:
    """Share of the variance of the network's log latency that each reference workload's log reference times beside it explain (R2)."""
    _, _, call = prepare(model, mode)
    ours = timing.ReferenceWorkload()
    image, weights = torch.rand(1, 16, 256, 256), [torch.randn(16, 16, 3, 3) / 12 for _ in range(4)]
    small, large = torch.rand(1 << 20), torch.rand(8 << 20)
    small_copy, large_copy = torch.empty_like(small), torch.empty_like(large)

    def convolve_larger() -> None:
        x = image
        for weight in weights:
            x = torch.conv2d(x, weight, padding=1)

    kinds = {
        "convolution 160": ours.convolve,
        "convolution 256": convolve_larger,
        "GEMM 512": ours.multiply,
        "copy of 4 MB": lambda: small_copy.copy_(small),
        "copy of 32 MB": lambda: large_copy.copy_(large),
    }
    per_sample = max(1, round(timing.SAMPLE_S / timing.seconds(call)))
    taken = {name: [] for name in kinds} | {"network": []}
    end = time.perf_counter() + seconds
    with torch.inference_mode():
        while time.perf_counter() < end:
            taken["network"].append(timing.seconds(lambda: [call() for _ in range(per_sample)]))
            for name, work in kinds.items():
                taken[name].append(min(timing.seconds(work) for _ in range(2)))
    logs = {name: np.log(times) for name, times in taken.items()}
    beside = {name: (of[:-1] + of[1:]) / 2 for name, of in logs.items()}  # a sample stands between two reference times
    network = logs["network"][1:]

    def explained(*names: str) -> float:
        columns = np.column_stack([np.ones(len(network)), *(beside[name] for name in names)])
        residual = network - columns @ np.linalg.lstsq(columns, network, rcond=None)[0]
        return float(1 - residual.var() / network.var())

    low, high = np.quantile(network, (0.05, 0.95))
    row = {"encoder": model, "samples": len(network), "95 % over 5 %": float(np.exp(high - low))}
    row |= {name: explained(name) for name in kinds}
    return [row | {"conv 160 + GEMM": explained("convolution 160", "GEMM 512"), "all five": explained(*kinds)}]


CHECKS = {
    "bias": bias,
    "memory": memory,
    "reference_workload": reference_workload,
    "grad": grad,
    "calibration": calibration,
}


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    here = machine.describe()
    print(f"{here.label}, torch {torch.__version__}")
    for check in settings.checks:
        rows = []
        for model, mode in itertools.product(
            settings.models, settings.modes if check == "bias" else settings.modes[:1]
        ):
            reader, writer = os.pipe()
            if not (child := os.fork()):  # a heap of its own for every model, as in a sweep
                (timing.spread_allocator if check == "memory" else timing.retain_memory)()
                torch.set_num_threads(here.cores)
                os.write(writer, json.dumps(CHECKS[check](model, settings.seconds, mode)).encode())
                os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as pipe:
                rows += json.load(pipe)
            os.waitpid(child, 0)
        print(f"\n{check}\n\n{tabulate(rows, headers='keys', tablefmt='github', floatfmt='.4g')}")


if __name__ == "__main__":
    main()
