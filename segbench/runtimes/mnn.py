"""MNN on the CPU in FP32 (`precision` high), converted from ONNX."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases import Case
from ..machine import Machine, installed
from ..modes import Mode
from . import Prepared, conversion, lacking

if TYPE_CHECKING:
    import MNN
    import numpy as np
    from torch import Tensor, nn

PACKAGES = ("MNN", "onnx", "onnxscript")
CONVERT = "from MNN.tools import mnnconvert; mnnconvert.main()"


def missing(mode: Mode, case: Case, machine: Machine) -> str:
    return lacking(PACKAGES) or ("MNN has no fast 3D convolution" if len(case.size) == 3 else "")


def prepare(network: nn.Module, example: Tensor, mode: Mode, threads: int, cache: Path, calibration=None) -> Prepared:
    import MNN
    import numpy as np
    import torch

    onnx, export = conversion.onnx(network, example, cache, mode)

    def convert(draft: Path) -> None:
        flags = ["-f", "ONNX", "--modelFile", str(onnx / "model.onnx"), "--MNNModel", str(draft / "model.mnn")]
        done = subprocess.run([sys.executable, "-c", CONVERT, *flags], capture_output=True, text=True)
        if not (draft / "model.mnn").exists():
            raise RuntimeError(f"mnnconvert: {(done.stdout.strip().splitlines() or ['no message'])[-1]}")

    folder = cache / "mnn" / f"{onnx.name}-{installed(('MNN',))['MNN']}"
    converted, start = conversion.cached(folder, convert), time.perf_counter()
    interpreter = MNN.Interpreter(str(folder / "model.mnn"))
    session = interpreter.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
    image, host_image = interpreter.getSessionInput(session, conversion.INPUT), nchw(example.contiguous().numpy())
    by_name = interpreter.getSessionOutputAll(session)
    outputs = [by_name[name] for name in sorted(by_name, key=conversion.output_number)]
    host_outputs = [nchw(np.empty(output.getShape(), dtype_of(output))) for output in outputs]

    def feed(other: Tensor) -> None:
        nonlocal host_image
        host_image = nchw(other.contiguous().numpy())

    def call() -> list[MNN.Tensor]:
        image.copyFrom(host_image)  # its memory is used again by later layers
        interpreter.runSession(session)
        return unpack()

    def unpack() -> list[MNN.Tensor]:
        for output, host in zip(outputs, host_outputs, strict=True):
            output.copyToHostTensor(host)  # from blocks of channels
        return host_outputs

    call()
    compile_s = time.perf_counter() - start
    return conversion.prepared(
        call,
        feed,
        lambda result: [conversion.delivered(torch.from_numpy(host.getNumpyData()), mode) for host in result],
        lambda: {"threads": str(threads), "precision": "high"},
        {"export": export, "convert": converted},
        compile_s,
        folder,
        unpack,
    )


def nchw(array: np.ndarray) -> MNN.Tensor:
    """A tensor of MNN with a copy of (B, C, H, W)."""
    import MNN

    kind = MNN.Halide_Type_Float if array.dtype == "float32" else MNN.Halide_Type_Int
    return MNN.Tensor(array.shape, kind, array, MNN.Tensor_DimensionType_Caffe)


def dtype_of(output: MNN.Tensor) -> str:
    """Of whole numbers and truth values MNN has 32 bits."""
    import MNN

    return "float32" if output.getDataType() == MNN.Halide_Type_Float else "int32"
