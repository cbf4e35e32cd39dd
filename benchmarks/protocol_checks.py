"""Two checks of the protocol against independent measurements; prints tables, writes nothing.

Bias: a reading of the yardsticks pushes the network out of the caches. Samples between readings, as the sweep takes
them, against long back-to-back runs in the same process, in turn; of both only what lies between two good readings.
Memory: what one inference adds to the resident set against the peak of torch's own live allocations.

    uv run benchmarks/protocol_checks.py
"""

import json
import os
import time
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from segbench import machine, measure, modes, stats
from segbench.cases import Case
from segbench.inputs import photograph
from segbench.models import build


@dataclass
class Settings:
    models: tuple[str, ...] = ("mobilenetv3_small_100", "regnetx_002", "resnet18")
    """Small, medium, large."""
    seconds: float = 60
    """Of measuring per model."""
    long_s: float = 0.2
    """Length of a back-to-back run."""


def bias(call, seconds: float, long_s: float) -> dict[str, float]:
    """Medians in ms over quiet samples and over quiet back-to-back runs, taken in turn for `seconds`."""
    yardsticks = measure.Yardsticks()
    once = min(measure.seconds(call) for _ in range(3))
    per_sample, per_run = max(1, round(measure.SAMPLE_S / once)), max(3, round(long_s / once))
    readings, samples, runs = [yardsticks.read()], {}, {}  # latency in ms by the index of the reading before it
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(max(1, per_run // per_sample)):
            took = measure.seconds(lambda: [call() for _ in range(per_sample)])
            samples[len(readings) - 1] = took / per_sample * 1e3
            readings.append(yardsticks.read())
        runs[len(readings) - 1] = float(np.median([measure.seconds(call) for _ in range(per_run)])) * 1e3
        readings.append(yardsticks.read())
    quiet = stats.quiet(readings, stats.floor(np.zeros(len(readings)), readings))
    sampled, back_to_back = ([ms for index, ms in taken.items() if quiet[index]] for taken in (samples, runs))
    short, long = (float(np.median(of)) if of else float("nan") for of in (sampled, back_to_back))
    return {
        "inferences per sample": per_sample,
        "quiet samples": len(sampled),
        "samples, ms": short,
        "inferences per run": per_run,
        "quiet runs": len(back_to_back),
        "back-to-back, ms": long,
        "bias, %": (short / long - 1) * 100,
    }


def allocated_mb(call) -> float:
    """Peak of torch's live allocations during one call, in MB, from the profiler's record of every one of them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        call()
    live = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak / 1e6


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    here = machine.describe()
    print(f"{here.label}, torch {torch.__version__}")
    found = []
    for model in settings.models:
        reader, writer = os.pipe()
        if not (child := os.fork()):  # a heap of its own for every model, as in a sweep
            measure.pin_allocator()
            torch.set_num_threads(here.cores)
            case = Case(model=model, mode="baseline", size=(512, 512), threads=here.cores)
            call = modes.apply(case.mode, build(case), photograph(case.size))
            call()
            row = {"model": model} | bias(call, settings.seconds, settings.long_s)
            resident, allocated = measure.memory(call), allocated_mb(call)
            row |= {"resident, MB": resident, "allocated, MB": allocated, "ratio": resident / allocated}
            os.write(writer, json.dumps(row).encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            found.append(json.load(pipe))
        os.waitpid(child, 0)
    print(tabulate(found, headers="keys", tablefmt="github", floatfmt=".2f"))


if __name__ == "__main__":
    main()
