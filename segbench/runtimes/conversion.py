"""What runtimes that convert a network share: a cache of converted models, and the export to ONNX."""

from __future__ import annotations

import copy
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..machine import installed
from ..modes import NHWC, Mode
from . import Prepared, size_of
from .identity import ONCE, fingerprint

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT = "image"
OPSET = 18
ONCE_S = 86400  # after which what was converted for one run is removed
EXPORT = ("onnx", "onnxscript")  # what torch exports with


class Step(NamedTuple):
    """A step of a conversion: its result lies in a folder of the cache."""

    seconds: float  # that it took when it was done
    on_disk: bool  # the result was there already


def cached(folder: Path, convert: Callable[[Path], None]) -> Step:
    """Have `convert` fill a folder of the cache, unless it is there and as large as it was made. `convert` is given an
    empty folder, and what it raises is passed on."""
    record = folder.with_name(f"{folder.name}.made")  # seconds and bytes
    seconds, *size = (record.read_text() if record.exists() else "").split() or [""]
    if folder.exists() and size == [str(size_of(folder))]:
        return Step(float(seconds), on_disk=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in folder.parent.glob(f"*{ONCE}*"):  # nobody asks for them again
        if time.time() - path.stat().st_mtime > ONCE_S:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".draft-", ignore_cleanup_errors=True) as draft:
        convert(Path(draft))
        took_s = time.perf_counter() - start
        shutil.rmtree(folder, ignore_errors=True)
        record.write_text(f"{took_s:.3f} {size_of(Path(draft))}")
        Path(draft).rename(folder)
    return Step(took_s, on_disk=False)


def output_number(name: str) -> int:
    """3 for out3."""
    return int(name.removeprefix("out"))


def prepared(
    call: Callable[[], Any],
    feed: Callable[[Tensor], None],
    outputs: Callable[[Any], list[Tensor]],
    ran: Callable[[], dict[str, str]],
    steps: dict[str, Step],
    compile_s: float,
    folder: Path,
    unpack: Callable[[], Any] | None = None,
) -> Prepared:
    """A network that was converted in these steps, by name, and loaded in `compile_s`."""
    seconds = {name: step.seconds for name, step in steps.items()} | {"compile": compile_s}
    saved_s = sum(step.seconds for step in steps.values() if step.on_disk)
    cache = "warm" if all(step.on_disk for step in steps.values()) else "cold"
    return Prepared(call, feed, outputs, ran, seconds, cache, saved_s, folder, unpack)


def layout(mode: Mode) -> dict[str, str]:
    """What of the outputs' layout an artefact depends on beside its network."""
    return {"layout": "NHWC"} if mode.options.get(NHWC) else {}


def needs_exact_norms(mode: Mode, example: Tensor) -> bool:
    """BF16 and INT8 round more than a norm's sums do."""
    return mode.precision == "fp32" and example.dim() == 5


def with_exact_norms(network: nn.Module) -> nn.Module:
    """A copy in which instance and group norms of volumes go by means of means.

    OpenVINO and ONNX Runtime add up the million voxels of a channel one after the other in FP32. Where they are alike,
    as in the air around a body, rounding adds up too: relative error 2e-4 behind the first norm, 2.6e-3 and 8e-4 behind
    STU-Net-S (notes.md).
    """
    from torch import nn

    class ByBlocks(nn.Module):
        """(B, C, D, H, W) of fixed shape -> the same; in blocks of up to 8x8x8 voxels, and over the blocks."""

        def __init__(self, norm: nn.Module):
            super().__init__()
            self.groups = getattr(norm, "num_groups", 0)  # 0: every channel is one
            self.eps, self.weight, self.bias = norm.eps, norm.weight, norm.bias

        def forward(self, x: Tensor) -> Tensor:
            batch, channels, *sides = (int(side) for side in x.shape)
            groups = self.groups or channels
            values = x.reshape(batch, groups, channels // groups * sides[0], *sides[1:])
            centred = values - mean(values)
            normal = (centred / (mean(centred * centred) + self.eps).sqrt()).reshape(x.shape)
            if self.weight is None:
                return normal
            return normal * self.weight.view(1, -1, 1, 1, 1) + self.bias.view(1, -1, 1, 1, 1)

    def mean(values: Tensor) -> Tensor:
        sides = [int(side) for side in values.shape[2:]]
        blocks = [next(side for side in range(8, 0, -1) if whole % side == 0) for whole in sides]
        return nn.functional.avg_pool3d(values, blocks).mean((2, 3, 4), keepdim=True)

    def replace(module: nn.Module) -> nn.Module:
        for name, child in module.named_children():
            is_instance_norm = isinstance(child, nn.InstanceNorm3d) and not child.track_running_stats
            by_blocks = is_instance_norm or isinstance(child, nn.GroupNorm)
            setattr(module, name, ByBlocks(child) if by_blocks else replace(child))
        return module

    return replace(copy.deepcopy(network))


def with_nhwc_outputs(network: nn.Module) -> nn.Module:
    """The network with its outputs (B, C, H, W) as (B, H, W, C)."""
    from torch import nn

    class ChannelsLast(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            outputs = self.network(x)
            return tuple(output.permute(0, 2, 3, 1) if output.dim() == 4 else output for output in outputs)

    return ChannelsLast().eval()


def delivered(output: Tensor, mode: Mode) -> Tensor:
    """An artefact's output as (B, C, H, W), in the same memory."""
    return output.permute(0, 3, 1, 2) if mode.options.get(NHWC) and output.dim() == 4 else output


def onnx(network: nn.Module, example: Tensor, cache: Path, mode: Mode) -> tuple[Path, Step]:
    """The folder that holds the network as model.onnx, of fixed shapes, with the layout that the mode delivers."""
    exact, nhwc = needs_exact_norms(mode, example), bool(mode.options.get(NHWC))

    def export(draft: Path) -> None:
        import torch

        with torch.inference_mode():
            outputs = [f"out{place}" for place in range(len(network(example.clone())))]
        names = {"input_names": [INPUT], "output_names": outputs}
        converted = with_exact_norms(network) if exact else network
        converted = with_nhwc_outputs(converted) if nhwc else converted
        how = {"dynamo": True, "opset_version": OPSET, "verbose": False}
        try:
            program = torch.onnx.export(converted, (example.clone(),), **how, **names)
        except torch.onnx.OnnxExporterError as error:
            raise RuntimeError(f"torch.onnx.export: {cause(error)}") from error
        program.save(draft / "model.onnx", external_data=False)

    versions = installed(("torch", *EXPORT)) | {"opset": str(OPSET)} | layout(mode)
    folder = cache / ("onnx-3d" if exact else "onnx") / fingerprint(network, example, versions)
    return folder, cached(folder, export)


def cause(error: BaseException) -> str:
    """The first line of what an error comes from; the exporter's own is advice for whoever reports a bug."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error)).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
