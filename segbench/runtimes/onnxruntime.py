"""ONNX Runtime on the CPU: the network as ONNX (opset 18, fixed shapes), all of its graph optimisations.

Options: none.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases import Case
from ..machine import Machine, installed
from ..modes import Mode
from . import Prepared, conversion

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = ("onnxruntime", *conversion.EXPORT)


def missing(mode: Mode, case: Case, machine: Machine) -> str:
    return conversion.lacking(PACKAGES)


def emulates(mode: Mode, machine: Machine) -> bool:
    return False


def versions() -> dict[str, str]:
    return installed(("torch", *PACKAGES))


def environment(threads: int) -> dict[str, str]:
    return {}


def expected_prepare_s(mode: Mode) -> tuple[float, float]:
    return 1, 8


def preload(mode: Mode) -> None:
    importlib.import_module("onnxruntime")


def prepare(network: nn.Module, example: Tensor, mode: Mode, threads: int, cache: Path) -> Prepared:
    import onnxruntime
    import torch

    folder, export_s = conversion.onnx(network, example, cache)
    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    # Bound, for `run` would copy every output into a new array: 123 MB with a decoder.
    binding, image = session.io_binding(), onnxruntime.OrtValue.ortvalue_from_numpy(example.contiguous().numpy())
    binding.bind_ortvalue_input(conversion.INPUT, image)
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def call() -> list[onnxruntime.OrtValue]:
        session.run_with_iobinding(binding)
        return binding.get_outputs()

    call()
    steps_s = {"export": export_s, "compile": time.perf_counter() - start}

    def ran() -> dict[str, str]:
        own = session.get_session_options()
        return {"providers": " ".join(session.get_providers()), "threads": str(own.intra_op_num_threads)}

    return Prepared(
        call,
        lambda result: [torch.from_numpy(value.numpy()) for value in result],
        ran,
        steps_s,
        "cold" if export_s else "warm",
        conversion.size_mb(folder),
    )
