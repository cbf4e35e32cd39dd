"""ONNX Runtime on the CPU: the network as ONNX of fixed shapes, all of its graph optimisations; INT8 by static
quantisation (QDQ, weights per channel)."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..machine import describe, installed
from ..modes import Mode
from . import Prepared, conversion

if TYPE_CHECKING:
    from torch import Tensor, nn

PACKAGES = ("onnxruntime", *conversion.EXPORT)
INT8 = ("QLinear", "QGemm", "MatMulInteger")  # kernels whose names begin so


def prepare(network: nn.Module, example: Tensor, mode: Mode, threads: int, cache: Path, calibration=None) -> Prepared:
    import onnxruntime
    import torch

    from .. import inputs

    folder, export = conversion.onnx(network, example, cache, mode)
    steps = {"export": export}
    if mode.precision == "int8":
        images_like = calibration or inputs.calibration
        source, folder = folder, cache / "onnx-int8" / f"{folder.name}-{installed(PACKAGES)['onnxruntime']}"
        steps["convert"] = conversion.cached(folder, lambda draft: quantise(source, draft, images_like(example)))
    start = time.perf_counter()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else it spins on into the reference workload
    options.enable_profiling, options.profile_file_prefix = True, str(Path(tempfile.gettempdir()) / "onnxruntime")
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    # Bound, for `run` would copy every output into a new array: 123 MB with a decoder.
    binding = session.io_binding()
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def feed(image: Tensor) -> None:
        value = onnxruntime.OrtValue.ortvalue_from_numpy(image.contiguous().numpy())
        binding.bind_ortvalue_input(conversion.INPUT, value)

    def call() -> list[onnxruntime.OrtValue]:
        session.run_with_iobinding(binding)
        return binding.get_outputs()

    feed(example)
    call()
    executed = kernels(Path(session.end_profiling()))
    compile_s = time.perf_counter() - start
    if any(name.startswith(INT8) for name in executed) != (mode.precision == "int8"):
        raise RuntimeError(f"ONNX Runtime ran {dict(executed)} where {mode.precision} was asked for")

    def ran() -> dict[str, str]:
        counts = ", ".join(f"{kernel} {count}" for kernel, count in executed.most_common(3))
        return {"kernels": counts, "threads": str(session.get_session_options().intra_op_num_threads)}

    return conversion.prepared(
        call,
        feed,
        lambda result: [conversion.delivered(torch.from_numpy(value.numpy()), mode) for value in result],
        ran,
        steps,
        compile_s,
        folder,
    )


def quantise(source: Path, draft: Path, images: list[Tensor]) -> None:
    """model.onnx of one folder to INT8 in another; without VNNI, where sums of products would saturate, with 7 bits."""
    from onnxruntime import quantization

    class Pictures(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict | None:
            image = next(self.left, None)
            return None if image is None else {conversion.INPUT: image.contiguous().numpy()}

    quantization.quantize_static(
        source / "model.onnx",
        draft / "model.onnx",
        Pictures(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range="VNNI" not in describe().isa,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )


def kernels(record: Path) -> Counter[str]:
    """How often each kind of kernel ran while the session was profiled. Removes the record."""
    events = json.loads(record.read_text())
    record.unlink()
    return Counter(event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time"))
