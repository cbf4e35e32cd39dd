"""OpenVINO on the CPU, converted straight from torch.

The precision is the mode's: by itself OpenVINO computes FP32 networks in BF16 where that is native (openvino issue
28032). What ran is read back from the compiled graph, and another precision is an error.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ..cases import Case
from ..machine import Machine, installed
from ..modes import NHWC, Mode
from . import Prepared, conversion, lacking

if TYPE_CHECKING:
    import openvino
    from torch import Tensor, nn

PACKAGES = ("openvino", "nncf")  # NNCF for INT8 alone
# A mode's precision: what OpenVINO is asked for, and what has to run. What INT8 leaves out it computes as it likes.
HINTS = {"fp32": "f32", "bf16": "bf16"}
EXECUTED = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("u8", "i8")}
HEAVY = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")  # layers whose precision is the network's


def missing(mode: Mode, case: Case, machine: Machine) -> str:
    if mode.precision == "bf16" and not machine.native_bf16:
        return "no native BF16: OpenVINO would compute in FP32"
    return lacking(PACKAGES if mode.precision == "int8" else ("openvino",))


def prepare(network: nn.Module, example: Tensor, mode: Mode, threads: int, cache: Path, calibration=None) -> Prepared:
    import openvino
    import torch
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from .. import inputs

    def convert(draft: Path) -> None:
        converted = conversion.with_exact_norms(network) if exact else network
        converted = conversion.with_nhwc_outputs(converted) if mode.options.get(NHWC) else converted
        # Torch would run what it traced several times more to compare: for 117 classes of 128 cubed that takes 15 GB.
        image = example.clone()  # the network may change it
        traced = TorchScriptPythonDecoder(converted, example_input=image, trace_kwargs={"check_trace": False})
        model = openvino.convert_model(traced, example_input=image, input=[tuple(example.shape)])
        if mode.precision == "int8":
            model = quantised(model, (calibration or inputs.calibration)(example))
        openvino.save_model(model, draft / "model.xml", compress_to_fp16=False)

    exact = conversion.needs_exact_norms(mode, example)
    folder = cache / ("openvino-int8" if mode.precision == "int8" else "openvino-3d" if exact else "openvino")
    folder /= conversion.fingerprint(network, example, installed(("torch", *PACKAGES)) | conversion.layout(mode))
    converted, start = conversion.cached(folder, convert), time.perf_counter()
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if mode.precision != "int8":
        settings["INFERENCE_PRECISION_HINT"] = HINTS[mode.precision]
    compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    request = compiled.create_infer_request()

    def feed(image: Tensor) -> None:
        request.set_input_tensor(openvino.Tensor(image.contiguous().numpy()))

    def call() -> openvino.InferRequest:
        request.start_async()  # `infer` would copy every output: 123 MB with a decoder
        request.wait()
        return request

    feed(example)
    call()
    compile_s = time.perf_counter() - start
    executed = precisions(compiled)
    if executed and executed.most_common(1)[0][0] not in EXECUTED[mode.precision]:
        raise RuntimeError(f"OpenVINO ran {dict(executed)} where {mode.precision} was asked for")

    def ran() -> dict[str, str]:
        return {
            "precision": ", ".join(f"{precision} {count}" for precision, count in executed.most_common()),
            "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")),
        }

    return conversion.prepared(
        call,
        feed,
        lambda request: [conversion.delivered(torch.from_numpy(out.data), mode) for out in request.output_tensors],
        ran,
        {"convert": converted},
        compile_s,
        folder,
    )


def quantised(model: openvino.Model, images: list[Tensor]) -> openvino.Model:
    """To INT8 by NNCF's post-training quantisation."""
    import nncf

    arrays = [image.contiguous().numpy() for image in images]
    return nncf.quantize(model, nncf.Dataset(arrays), subset_size=len(arrays))


def precisions(compiled: openvino.CompiledModel) -> Counter[str]:
    """How many of the heavy layers were compiled to which precision, by the executable graph."""
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return Counter(info["runtimePrecision"].astype(str) for info in layers if info["layerType"].astype(str) in HEAVY)
