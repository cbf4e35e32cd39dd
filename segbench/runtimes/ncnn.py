"""ncnn on the CPU in FP32, converted by pnnx. Its 3x3 convolutions are Winograd's, which round more (1e-3)."""

from __future__ import annotations

import shutil
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
    import ncnn
    from torch import Tensor, nn

PACKAGES = ("ncnn", "pnnx")


def missing(mode: Mode, case: Case, machine: Machine) -> str:
    if len(case.size) == 3:
        return "ncnn has no fast 3D convolution"
    return lacking(PACKAGES) or ("ncnn takes one image at a time" if case.batch_size > 1 else "")


def prepare(network: nn.Module, example: Tensor, mode: Mode, threads: int, cache: Path, calibration=None) -> Prepared:
    import ncnn
    import numpy as np
    import torch

    def convert(draft: Path) -> None:
        torch.jit.trace(network, example.clone()).save(draft / "model.pt")
        shape = ",".join(map(str, example.shape))
        command = [pnnx(), "model.pt", f"inputshape=[{shape}]", "fp16=0"]
        done = subprocess.run(command, cwd=draft, capture_output=True, text=True)
        if not (draft / "model.ncnn.bin").exists():
            raise RuntimeError(f"pnnx: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        for path in draft.iterdir():
            if path.name not in ("model.ncnn.param", "model.ncnn.bin"):
                path.unlink()

    folder = cache / "ncnn" / conversion.fingerprint(network, example, installed(("torch", *PACKAGES)))
    converted, start = conversion.cached(folder, convert), time.perf_counter()
    net = ncnn.Net()
    net.opt.num_threads = threads
    for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage", "use_bf16_packed"):
        if hasattr(net.opt, name):
            setattr(net.opt, name, False)
    param, weights = folder / "model.ncnn.param", folder / "model.ncnn.bin"
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise RuntimeError(f"ncnn cannot load what pnnx made of it: it lacks {', '.join(unsupported_layers(param))}")
    image = ncnn.Mat(example[0].contiguous().numpy()).clone()
    outputs = sorted(net.output_names(), key=conversion.output_number)

    def feed(other: Tensor) -> None:
        nonlocal image
        image = ncnn.Mat(other[0].contiguous().numpy()).clone()

    def call() -> list[ncnn.Mat]:
        extractor = net.create_extractor()
        extractor.input("in0", image)
        return [extractor.extract(name)[1] for name in outputs]

    blocks: list[ncnn.Mat] = []

    def unpack() -> list[ncnn.Mat]:
        """What `extract` does at its end: blocks of channels to planes."""
        if not blocks:
            extractor = net.create_extractor()
            extractor.input("in0", image)
            blocks.extend(extractor.extract(name, 1)[1] for name in outputs)
        return [ncnn.convert_packing(mat, 1) for mat in blocks]

    compile_s = time.perf_counter() - start
    return conversion.prepared(
        call,
        feed,
        lambda result: [torch.from_numpy(np.array(mat))[None] for mat in result],
        lambda: {"threads": str(net.opt.num_threads), "winograd": str(net.opt.use_winograd_convolution)},
        {"convert": converted},
        compile_s,
        folder,
        unpack,
    )


def unsupported_layers(param: Path) -> list[str]:
    """Layers of a converted network that pnnx found no layer of ncnn for: their names have a dot."""
    kinds = (line.split()[0] for line in param.read_text().splitlines() if line.strip())
    return sorted({kind for kind in kinds if "." in kind}) or ["some layer"]


def pnnx() -> str:
    """The converter: beside this Python's executables, or on the PATH."""
    return shutil.which("pnnx", path=str(Path(sys.executable).parent)) or "pnnx"
