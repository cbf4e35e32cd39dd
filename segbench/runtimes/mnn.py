"""MNN on the CPU in FP32 (`precision` high), converted from ONNX."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases import Case
from ..machine import Machine, installed
from ..modes import Mode
from ..runtimes import Calibration, Prepared, conversion

if TYPE_CHECKING:
    import MNN
    import numpy as np
    from torch import Tensor, nn

PACKAGES = ("MNN", "onnx", "onnxscript")
CONVERT = "from MNN.tools import mnnconvert; mnnconvert.main()"


def missing(mode: Mode, case: Case, machine: Machine) -> str:
    if lacking := conversion.lacking(PACKAGES):
        return lacking
    return "MNN has no fast 3D convolution" if len(case.size) == 3 else ""


def versions() -> dict[str, str]:
    return installed(("torch", *PACKAGES))


def environment(threads: int) -> dict[str, str]:
    return conversion.SHORT_SPIN


def preload(mode: Mode) -> None:
    importlib.import_module("MNN")


def prepare(
    network: nn.Module,
    example: Tensor,
    mode: Mode,
    threads: int,
    cache: Path,
    calibration: Calibration | None = None,
) -> Prepared:
    import MNN
    import numpy as np
    import torch

    onnx, export = conversion.onnx(network, example, cache)

    def convert(draft: Path) -> None:
        flags = ["-f", "ONNX", "--modelFile", str(onnx / "model.onnx"), "--MNNModel", str(draft / "model.mnn")]
        done = subprocess.run([sys.executable, "-c", CONVERT, *flags], capture_output=True, text=True)
        if not (draft / "model.mnn").exists():
            raise RuntimeError(f"mnnconvert: {(done.stdout.strip().splitlines() or ['no message'])[-1]}")

    folder = cache / "mnn" / f"{onnx.name}-{installed(('MNN',))['MNN']}"
    converted, start = conversion.kept(folder, convert), time.perf_counter()
    interpreter = MNN.Interpreter(str(folder / "model.mnn"))
    session = interpreter.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
    image, given = interpreter.getSessionInput(session, conversion.INPUT), planar(example.contiguous().numpy())
    found = interpreter.getSessionOutputAll(session)
    outputs = [found[name] for name in sorted(found, key=lambda name: int(name.removeprefix("out")))]
    hosts = [planar(np.empty(output.getShape(), dtype=np.float32)) for output in outputs]

    def feed(other: Tensor) -> None:
        nonlocal given
        given = planar(other.contiguous().numpy())

    def call() -> list[MNN.Tensor]:
        image.copyFrom(given)  # its memory is used again for what comes behind
        interpreter.runSession(session)
        for output, host in zip(outputs, hosts, strict=True):
            output.copyToHostTensor(host)  # from blocks of channels into planes
        return hosts

    call()
    compile_s = time.perf_counter() - start
    return conversion.prepared(
        call,
        feed,
        lambda result: [torch.from_numpy(host.getNumpyData()) for host in result],
        lambda: {"threads": str(threads), "precision": "high"},
        {"export": export, "convert": converted},
        compile_s,
        folder,
    )


def planar(array: np.ndarray) -> MNN.Tensor:
    """A tensor of MNN with a copy of (B, C, H, W)."""
    import MNN

    return MNN.Tensor(array.shape, MNN.Halide_Type_Float, array, MNN.Tensor_DimensionType_Caffe)
