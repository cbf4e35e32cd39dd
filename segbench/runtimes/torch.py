"""PyTorch: eager, autocast, channels_last, and torch.compile with Inductor.

Options: `compile`; `freezing`, which makes the weights constants of the compiled graph (folded, packed, cast once);
`channels_last`, weights and input in NHWC. BF16 is autocast's.
"""

from __future__ import annotations

import importlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases import Case
from ..machine import Machine, cache_folder, usable_cores
from ..modes import Mode
from . import Prepared

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = ()


def missing(mode: Mode, case: Case, machine: Machine) -> str:
    if not mode.options.get("compile"):
        return ""
    compiler = os.environ.get("CXX", "g++")  # as Inductor finds it
    return "" if shutil.which(compiler) else f"no C++ compiler: {compiler} is not on the PATH (install g++, or set CXX)"


def environment(threads: int) -> dict[str, str]:
    """Inductor would start as many compilers as there are CPUs in the affinity mask, up to 32: in a container with a
    quota of two they would share two, at up to 270 MB each."""
    return {
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "inductor")),
        "TORCHINDUCTOR_COMPILE_THREADS": str(usable_cores()),
    }


def preload(mode: Mode) -> None:
    if mode.options.get("compile"):
        importlib.import_module("torch._inductor.compile_fx")  # takes 2.5 s


def prepare(network: nn.Module, example: Tensor, mode: Mode, threads: int, cache: Path, calibration=None) -> Prepared:
    """Autocast is entered at every call, as a service would: around the loop its cache of cast weights would live on.
    Inductor takes its cache's folder from the environment."""
    import torch

    if mode.options.get("channels_last"):
        layout = torch.channels_last if example.dim() == 4 else torch.channels_last_3d
        network = network.to(memory_format=layout)
    else:
        layout = torch.preserve_format
    given, example = example, example.clone(memory_format=layout)  # `feed` writes into it
    is_changed = False  # by the network: then every call gets a copy, else none has to be made
    compiles = bool(mode.options.get("compile"))
    if compiles:
        network = torch.compile(network, options={"freezing": bool(mode.options.get("freezing"))})

    def call() -> tuple[Tensor, ...]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mode.precision == "bf16"):
            return network(example.clone() if is_changed else example)

    def feed(image: Tensor) -> None:
        example.copy_(image)

    start = time.perf_counter()
    dtype = str(call()[0].dtype).removeprefix("torch.")  # the output is not kept: 123 MB with a decoder
    steps_s = {"compile": time.perf_counter() - start} if compiles else {}
    if not torch.equal(example, given):
        is_changed = True
        feed(given)
    if compiles and not torch._dynamo.utils.counters["stats"]["unique_graphs"]:
        raise RuntimeError("torch.compile compiled nothing: the network ran in eager mode")

    def ran() -> dict[str, str]:
        return {
            "dtype": dtype,
            "threads": str(torch.get_num_threads()),
            "denormals": "kept" if float(torch.tensor(1e-30) * torch.tensor(1e-10)) else "flushed",
        }

    return Prepared(call, feed, lambda result: result, ran, steps_s, cache_state() if compiles else "")


def cache_state() -> str:
    """`warm` if Inductor had the graph of this process on disk, else `cold`. Shuts down its pool of processes:
    nothing may run beside a measurement."""
    from torch._dynamo.utils import counters
    from torch._inductor.async_compile import shutdown_compile_workers

    shutdown_compile_workers()
    hits = counters["inductor"]
    return "warm" if hits["fxgraph_cache_hit"] and not hits["fxgraph_cache_miss"] else "cold"
