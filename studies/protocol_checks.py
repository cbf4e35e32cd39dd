"""Checks of the protocol against independent measurements, for notes.md.

Prints tables, writes nothing. What each check measures:

  bias: samples as a sweep takes them, against long back-to-back runs.
    Taking the time of the reference workload empties the caches.
  memory: what one inference adds to the resident set, against the peak
    of torch's own live allocations.
  reference_workload: how much of a network's drift several reference
    workloads see.
  grad: compiled code under no_grad, against inference_mode.
  calibration: how the shift of batch norms' biases changes the growth of
    a small error, and the error of BF16.

    uv run studies/protocol_checks.py bias memory
"""

import itertools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal, get_args

import numpy as np
import tyro

from segbench import machine, settings
from segbench.cases import Case
from segbench.problem import exit_with
from studies import common

Check = Literal["bias", "memory", "reference_workload", "grad", "calibration"]


@dataclass
class Settings:
    checks: Annotated[tuple[Check, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = get_args(Check)
    """Which checks to make."""
    models: tuple[str, ...] = ("mobilenetv3_small_100", "regnetx_002", "resnet18")
    """Encoders: by default a small, a medium and a large one."""
    modes: tuple[str, ...] = ("baseline",)
    """For bias: how networks are run. The other checks take the first mode."""
    size: Annotated[tuple[int, int], tyro.conf.arg(metavar="H W")] = (512, 512)
    """Height and width of the input in pixels."""
    seconds: float = 60
    """Duration of measuring per model and mode."""


def bias(case: Case, seconds: float) -> list[dict]:
    """Ratio of samples to back-to-back runs of about 0.2 s between them, less one, in %."""
    from segbench.measure import timing

    call, workload = common.prepare(*common.network(case), case.mode).call, timing.ReferenceWorkload()
    inference_s = min(timing.seconds(call) for _ in range(3))
    per_sample, per_run = max(1, round(timing.SAMPLE_S / inference_s)), max(3, round(0.2 / inference_s))

    def sample() -> float:
        workload.read()
        sample_s = timing.seconds(lambda: [call() for _ in range(per_sample)]) / per_sample
        workload.read()
        return sample_s

    def run() -> float:
        return timing.seconds(lambda: [call() for _ in range(per_run)]) / per_run

    row = {"encoder": case.model, "mode": case.mode, "per sample": per_sample, "per run": per_run}
    ratio = common.in_turn(sample, run, common.during(seconds)).columns("bias, %")
    return [row | {name: value if name == "pairs" else 100 * (value - 1) for name, value in ratio.items()}]


def memory(case: Case, seconds: float) -> list[dict]:
    """MB. The profiler records every allocation of torch and every release."""
    from torch.profiler import ProfilerActivity, profile

    from segbench.measure import timing

    call = common.prepare(*common.network(case), case.mode).call
    resident = timing.memory(call)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    sizes = [event.nbytes() for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    allocated = float(max(np.cumsum(sizes)) / 1e6)
    row = {"encoder": case.model, "resident, MB": resident, "allocated, MB": allocated}
    return [row | {"ratio": resident / allocated}]


def grad(case: Case, seconds: float) -> list[dict]:
    """Ratio of the latencies of compiled code, of which the fastest of eight calls counts."""
    import torch

    from segbench.measure import timing

    module, image = common.network(case)
    compiled = torch.compile(module)

    def fastest(without_gradients: Callable) -> float:
        with without_gradients():
            compiled(image)
            return min(timing.seconds(lambda: compiled(image)) for _ in range(8))

    calls = [partial(fastest, torch.no_grad), partial(fastest, torch.inference_mode)]
    for call in calls:
        call()  # each compiles a graph
    return [
        {"encoder": case.model} | common.in_turn(*calls, common.during(seconds)).columns("no_grad / inference_mode")
    ]


def calibration(case: Case, seconds: float) -> list[dict]:
    """Per shift: by how much a relative error of 1e-6 of the input grows, and BF16's relative error on the features."""
    import torch

    from segbench.measure import check
    from segbench.models import encoder

    rows = []
    for shift in (0.0, 1.0, encoder.SHIFT):
        encoder.SHIFT = shift
        module, image = common.network(case)
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        noise *= 1e-6 * image.norm() / noise.norm()
        with torch.inference_mode():
            expected, moved = module(image)[0], module(image + noise)[0]
            with torch.autocast("cpu", torch.bfloat16):
                rounded = module(image)[0]
        growth, error = check.relative_error(moved, expected) / 1e-6, check.relative_error(rounded, expected)
        rows.append({"encoder": case.model, "shift": shift, "growth of an error": growth, "BF16 relative error": error})
    return rows


def reference_workload(case: Case, seconds: float) -> list[dict]:
    """Share of the variance of the network's log latency that the log times of each reference workload beside it
    explain (R2)."""
    import pandas as pd
    import torch

    from segbench.measure import timing

    call, ours = common.prepare(*common.network(case), case.mode).call, timing.ReferenceWorkload()
    image, weights = torch.rand(1, 16, 256, 256), [torch.randn(16, 16, 3, 3) / 12 for _ in range(4)]
    small, large = torch.rand(1 << 20), torch.rand(8 << 20)
    small_copy, large_copy = torch.empty_like(small), torch.empty_like(large)

    def convolve_larger() -> None:
        x = image
        for weight in weights:
            x = torch.conv2d(x, weight, padding=1)

    workloads = {
        "convolution 160": ours.convolve,
        "convolution 256": convolve_larger,
        "GEMM 512": ours.multiply,
        "copy of 4 MB": lambda: small_copy.copy_(small),
        "copy of 32 MB": lambda: large_copy.copy_(large),
    }
    per_sample = max(1, round(timing.SAMPLE_S / timing.seconds(call)))
    rows = []
    with torch.inference_mode():
        for _ in common.during(seconds):
            row = {"network": timing.seconds(lambda: [call() for _ in range(per_sample)])}
            rows.append(row | {name: min(timing.seconds(work) for _ in range(2)) for name, work in workloads.items()})
    logs = np.log(pd.DataFrame(rows))
    network, beside = logs.network[1:], logs.rolling(2).mean()[1:]  # before and after a sample

    def explained(*names: str) -> float:
        columns = beside[[*names]].assign(one=1).to_numpy()
        residual = network - columns @ np.linalg.lstsq(columns, network, rcond=None)[0]
        return float(1 - residual.var() / network.var())

    low, high = np.quantile(network, (0.05, 0.95))
    row = {"encoder": case.model, "samples": len(network), "95 % over 5 %": float(np.exp(high - low))}
    row |= {name: explained(name) for name in workloads}
    return [row | {"conv 160 + GEMM": explained("convolution 160", "GEMM 512"), "all five": explained(*workloads)}]


CHECKS = {check.__name__: check for check in (bias, memory, reference_workload, grad, calibration)}


def in_a_process(check: str, case: Case, seconds: float) -> list[dict]:
    """In a process of its own, and so with a heap of its own, as in a sweep."""
    import torch

    from segbench.measure import timing

    if check == "memory":
        timing.spread_allocator()
    else:
        timing.retain_memory()
    torch.set_num_threads(case.threads)
    return CHECKS[check](case, seconds)


def main() -> None:
    options = settings.parse(Settings(), __doc__)
    models, modes, here = settings.find_models(options.models), settings.find_modes(options.modes), machine.describe()
    common.print_setting(here, ["torch"])
    for check in options.checks:
        rows = []
        for model, mode in itertools.product(models, modes if check == "bias" else modes[:1]):
            case = Case(model=model, mode=mode, size=options.size, threads=here.cores)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                rows += process.submit(in_a_process, check, case, options.seconds).result()
        common.print_table(check, rows)


if __name__ == "__main__":
    exit_with(main, "finished tables are above")
