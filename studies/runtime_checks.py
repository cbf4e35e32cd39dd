"""Checks of the runtimes against independent measurements.

Prints tables, writes nothing. What each check measures:

  bare: a mode against a bare script that calls the same runtime with its
    latency settings on the same artefact, each in its own process, in
    turn. Above 1 the mode is faster.
  background_load: what helps torch's eager mode beside a process that
    keeps one core busy (OpenMP's wait policy, fewer threads, threads
    bound to cores), and ONNX Runtime and OpenVINO beside the same.

    uv run studies/runtime_checks.py bare background_load
"""

import json
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np
import tyro

from segbench import machine, modes, runtimes, settings
from segbench.cases import DECODERS, Case
from segbench.measure import background_load, server
from segbench.problem import exit_with
from studies import common

BLOCK_S, SIZE = 0.4, (512, 512)
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
import msgspec, torch
from segbench.cases import Case
from segbench.measure import timing
from studies import common
case, block_s = json.loads(sys.argv[1])
case = msgspec.convert(case, Case)
timing.retain_memory()
torch.set_num_threads(case.threads)
prepared = common.prepare(*common.network(case), case.mode)
call = prepared.call
print(json.dumps(prepared.folder and str(prepared.folder)), flush=True)
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
# Ways to run a network beside a background load: mode, threads fewer than cores, environment.
PASSIVE, BOUND = {"OMP_WAIT_POLICY": "passive"}, {"OMP_PROC_BIND": "true"}
WAYS = {
    "eager": ("baseline", 0, {}),
    "eager, OMP_WAIT_POLICY=passive": ("baseline", 0, PASSIVE),
    "eager, OMP_PROC_BIND=true": ("baseline", 0, BOUND),
    "eager, passive and bound": ("baseline", 0, PASSIVE | BOUND),
    "eager, one thread less": ("baseline", 1, {}),
    "onnxruntime": ("onnxruntime", 0, {}),
    "openvino": ("openvino", 0, {}),
}
Check = Literal["bare", "background_load"]


@dataclass
class Settings:
    checks: Annotated[tuple[Check, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = get_args(Check)
    """Which checks to make."""
    networks: tuple[str, ...] = (
        "mobilenetv4_conv_small",
        "regnetx_002",
        "resnet18",
        "mobileone_s0+fpn",
        "mobilenetv4_conv_small+unet",
        "efficientnet_b0",
    )
    """Encoders, or encoder+decoder. background_load takes the first."""
    pairs: int = 16
    """Blocks of 0.4 s per network and runtime, or per way to run torch."""


class Blocks:
    """A process that times a call in blocks on demand."""

    def __init__(self, code: str, argument: list, environment: dict[str, str]):
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-c", code + BLOCKS, json.dumps(argument)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=server.cleaned() | environment,
        )

    def read(self) -> object:
        return json.loads(self.process.stdout.readline())

    def times_s(self) -> list[float]:
        """Seconds of each call of one block."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def median_s(self) -> float:
        return statistics.median(self.times_s())

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()


def blocks_of(network: str, mode: str, threads: int, environment: dict[str, str]) -> Blocks:
    """A process that runs a network as a sweep does; the first line that it writes is the artefact's folder."""
    model, _, decoder = network.partition("+")
    classes = 117 if decoder else 0
    case = Case(model=model, mode=mode, size=SIZE, decoder=decoder, classes=classes, threads=threads)
    needed = runtimes.of_mode(modes.MODES[mode]).environment(threads)
    return Blocks(MODE, [msgspec.to_builtins(case), BLOCK_S], needed | environment)


def bare(options: Settings, cores: int) -> list[dict]:
    rows = []
    for network, mode in product(options.networks, BARE):
        with blocks_of(network, mode, cores, {}) as ours:
            argument = [ours.read(), [1, 3, *SIZE], cores, BLOCK_S]
            with Blocks(BEGIN + BARE[mode], argument, {}) as theirs:
                pairs = common.in_turn(theirs.median_s, ours.median_s, range(options.pairs))
        model, _, decoder = network.partition("+")
        row = {"network": f"{model} {DECODERS[decoder]}", "mode": mode}
        rows.append(row | {"ms": 1e3 * float(np.median(pairs.second))} | pairs.columns("mode over bare"))
        print(rows[-1], flush=True, file=sys.stderr)
    return rows


def beside_background_load(options: Settings, cores: int) -> list[dict]:
    """Throughput, inferences over seconds, with the background load and without, each way in turn."""
    network, rates = options.networks[0], {}
    rounds = max(1, options.pairs // 4)
    for loaded, _, (name, (mode, fewer, environment)) in product((False, True), range(rounds), WAYS.items()):
        with blocks_of(network, mode, max(1, cores - fewer), environment) as process:
            process.read()
            with background_load.running(pause_s=0) if loaded else nullcontext():
                time.sleep(1.5 if loaded else 0)  # until it has imported NumPy
                times_s = np.concatenate([process.times_s() for _ in range(4)])
        rates.setdefault((name, loaded), []).append(len(times_s) / times_s.sum())
    rows = []
    for name in WAYS:
        alone, beside = (np.array(rates[name, loaded]) for loaded in (False, True))
        row = {"network": network, "way": name, "img/s alone": alone.mean(), "img/s beside": beside.mean()}
        rows.append(row | {"least": beside.min(), "most": beside.max(), "beside / alone": beside.mean() / alone.mean()})
    return rows


CHECKS = {"bare": bare, "background_load": beside_background_load}


def main() -> None:
    options, here = settings.parse(Settings(), __doc__), machine.describe()
    common.print_setting(here, ("torch", *BARE))
    for check in options.checks:
        common.print_table(check, CHECKS[check](options, here.cores))


if __name__ == "__main__":
    exit_with(main, "finished tables are above")
