"""Checks of the runtimes against independent measurements, for README.md; prints tables, writes nothing.

bare         A mode against a bare script that calls the same runtime with its latency settings on the same artefact:
             one process each, block after block in turn. Above 1 the mode is faster.
neighbour    What helps torch's eager mode beside a process that keeps one core busy: OpenMP's wait policy, fewer
             threads, threads bound to cores; and ONNX Runtime and OpenVINO beside the same.

    uv run benchmarks/runtimes/runtime_checks.py bare neighbour
"""

import json
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tabulate import tabulate

from segbench import machine, modes, runtimes
from segbench.analysis import stats
from segbench.cases import DECODERS, Case
from segbench.measure import background_load, server

ROOT = Path(__file__).resolve().parents[2]
BLOCK_S = 0.4
# What stands in a quick start, with the settings that each runtime documents for latency.
BARE = {
    "onnxruntime": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
call = lambda: session.run(None, {"image": image})
""",
    "openvino": """
import openvino
settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
request = openvino.Core().compile_model(folder + "/model.xml", "CPU", settings).create_infer_request()
call = lambda: request.infer([image], share_inputs=True, share_outputs=True)
""",
}
BEGIN = """
import json, sys, time
import numpy as np
folder, shape, threads, block_s = json.loads(sys.argv[1])
image = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
"""
# A mode as a sweep prepares it.
MODE = """
import json, sys, time
root, case, block_s = json.loads(sys.argv[1])
sys.path.insert(0, root)
import msgspec, torch
from segbench import inputs, machine, models, modes, runtimes
from segbench.measure import timing
from segbench.cases import Case
case = msgspec.convert(case, Case)
timing.pin_allocator()
torch.set_num_threads(case.threads)
mode = modes.MODES[case.mode]
prepared = runtimes.of_mode(mode).prepare(
    models.build(case), inputs.picture(case), mode, case.threads, machine.cache_folder()
)
call = prepared.call
folder = prepared.folder and str(prepared.folder)
print(json.dumps({"folder": folder}), flush=True)
"""
BLOCKS = """
for _ in range(3): call()
for line in sys.stdin:
    taken, end = [], time.perf_counter() + block_s
    while time.perf_counter() < end or len(taken) < 3:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    print(json.dumps(taken), flush=True)
"""


@dataclass
class Settings:
    checks: Annotated[tuple[Literal["bare", "background_load"], ...], tyro.conf.Positional]
    """Which of them."""
    networks: tuple[str, ...] = (
        "mobilenetv4_conv_small",
        "regnetx_002",
        "resnet18",
        "mobileone_s0+fpn",
        "mobilenetv4_conv_small+unet",
        "efficientnet_b0",
    )
    """For bare; neighbour takes the first."""
    pairs: int = 16
    """Blocks of 0.4 s per process, network and runtime, or per way of running torch."""


class Blocks:
    """A process that takes blocks of samples on demand."""

    def __init__(self, code: str, argument: list, environment: dict[str, str] | None = None):
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", code + BLOCKS, json.dumps(argument)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=server.cleaned() | (environment or {}),
        )

    def read(self):
        return json.loads(self.process.stdout.readline())

    def take(self) -> np.ndarray:
        """Seconds of each call of one block."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return np.array(self.read())

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()


def of_mode(case: Case, environment: dict[str, str] | None = None) -> Blocks:
    import msgspec

    own = runtimes.of_mode(modes.MODES[case.mode]).environment(case.threads)
    return Blocks(MODE, [str(ROOT), msgspec.to_builtins(case), BLOCK_S], own | (environment or {}))


def case_of(network: str, mode: str, threads: int) -> Case:
    model, _, decoder = network.partition("+")
    return Case(
        model=model, mode=mode, size=(512, 512), decoder=decoder, classes=117 if decoder else 0, threads=threads
    )


def bare(settings: Settings, threads: int) -> list[dict]:
    rows = []
    for network in settings.networks:
        for mode, script in BARE.items():
            case = case_of(network, mode, threads)
            with of_mode(case) as ours:
                folder = ours.read()["folder"]
                with Blocks(BEGIN + script, [folder, [1, 3, *case.size], threads, BLOCK_S]) as theirs:
                    ratios, latencies = [], []
                    for _ in range(settings.pairs):
                        # Neighbours in time share the machine's state, quiet or not.
                        before, own, after = theirs.take(), ours.take(), theirs.take()
                        latencies.append(np.median(own))
                        ratios.append((np.median(before) * np.median(after)) ** 0.5 / np.median(own))
            low, high = stats.interval(ratios)
            row = {"network": f"{case.model} {DECODERS[case.decoder]}", "mode": mode}
            row |= {"ms": 1e3 * float(np.median(latencies)), "pairs": len(ratios)}
            rows.append(row | {"mode over bare": statistics.geometric_mean(ratios), "low": low, "high": high})
            print(row, flush=True, file=sys.stderr)
    return rows


def ways(threads: int) -> dict[str, tuple[str, int, dict[str, str]]]:
    """How the network is run: mode, threads, environment."""
    passive = {"OMP_WAIT_POLICY": "passive"}
    bound = {"OMP_PROC_BIND": "true"}
    return {
        "eager": ("baseline", threads, {}),
        "eager, OMP_WAIT_POLICY=passive": ("baseline", threads, passive),
        "eager, OMP_PROC_BIND=true": ("baseline", threads, bound),
        "eager, passive and bound": ("baseline", threads, passive | bound),
        "eager, one thread less": ("baseline", max(1, threads - 1), {}),
        "onnxruntime": ("onnxruntime", threads, {}),
        "openvino": ("openvino", threads, {}),
    }


def beside(settings: Settings, threads: int) -> list[dict]:
    """Blocks with the background load and without, each way in turn. Throughput is inferences over seconds."""
    network, rates = settings.networks[0], {}
    for busy in (False, True):
        for _ in range(max(1, settings.pairs // 4)):
            for name, (mode, count, environment) in ways(threads).items():
                with of_mode(case_of(network, mode, count), environment) as process:
                    process.read()
                    with background_load.running(pause_s=0) if busy else nullcontext():
                        time.sleep(1.5 * busy)  # until it has imported NumPy
                        taken = np.concatenate([process.take() for _ in range(4)])
                rates.setdefault((name, busy), []).append(len(taken) / taken.sum())
    rows = []
    for name in ways(threads):
        alone, with_it = (np.array(rates[name, busy]) for busy in (False, True))
        row = {"network": network, "way": name, "img/s alone": alone.mean(), "img/s beside": with_it.mean()}
        rows.append(row | {"least": with_it.min(), "most": with_it.max(), "kept": with_it.mean() / alone.mean()})
    return rows


CHECKS = {"bare": bare, "background_load": beside}


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    here = machine.describe()
    versions = ", ".join(f"{name} {version}" for name, version in machine.installed(("torch", *BARE)).items())
    print(f"{here.label}, {here.cores} threads, {versions}")
    for check in settings.checks:
        rows = CHECKS[check](settings, here.cores)
        print(f"\n{check}\n\n{tabulate(rows, headers='keys', tablefmt='github', floatfmt='.4g')}")


if __name__ == "__main__":
    main()
