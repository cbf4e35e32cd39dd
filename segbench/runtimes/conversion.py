"""What runtimes share that convert a network: where what was converted is kept, and ONNX."""

from __future__ import annotations

import copy
import hashlib
import inspect
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..machine import installed
from ..modes import Mode
from ..runtimes import Prepared, size_of

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT = "image"
OPSET = 18
EXPORT = ("onnx", "onnxscript")  # what torch exports with
# After a reading torch's OpenMP threads would spin for 7 ms on a core that a runtime's own threads need: samples
# between reference times were 16 to 18 % slower than back-to-back ones. With 20000 they are within 1 to 2 % of these, and
# reference times as in torch's own processes; 2000 made reference times 20 to 30 % longer where a hypervisor wakes threads slowly.
SHORT_SPIN = {"GOMP_SPINCOUNT": "20000"}


def lacking(packages: Iterable[str]) -> str:
    """What of the packages is not installed, in words; "" where all are."""
    names = [name for name, version in installed(packages).items() if version == "missing"]
    return f"not installed: {', '.join(names)} (uv pip install {' '.join(names)})" if names else ""


def fingerprint(network: nn.Module, example: Tensor, versions: dict[str, str]) -> str:
    """A name for what a network is converted to: other layers, code, weights, another input or version have another."""
    digest = hashlib.blake2b(digest_size=12)
    sources = {inspect.getsourcefile(type(module)) for module in network.modules()} - {None}
    code = [Path(path).read_text() for path in sorted(sources)]
    for text in (repr(network), str(tuple(example.shape)), str(versions), *code):
        digest.update(text.encode() + b"\0")
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().reshape(-1).numpy().view("uint8"))
    return digest.hexdigest()


class Kept(NamedTuple):
    seconds: float  # that it took to make it
    found: bool  # on disk, and not made now


def kept(folder: Path, make: Callable[[Path], None]) -> Kept:
    """A folder of the cache, made where it is not there, or not as large as it was made. `make` is given an empty
    folder, and what it raises is passed on."""
    record = folder.with_name(f"{folder.name}.made")  # seconds and bytes
    seconds, *size = (record.read_text() if record.exists() else "").split() or [""]
    if folder.exists() and size == [str(size_of(folder))]:
        return Kept(float(seconds), found=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".draft-", ignore_cleanup_errors=True) as draft:
        make(Path(draft))
        took_s = time.perf_counter() - start
        shutil.rmtree(folder, ignore_errors=True)
        record.write_text(f"{took_s:.3f} {size_of(Path(draft))}")
        Path(draft).rename(folder)
    return Kept(took_s, found=False)


def prepared(
    call: Callable[[], Any],
    feed: Callable[[Tensor], None],
    outputs: Callable[[Any], list[Tensor]],
    ran: Callable[[], dict[str, str]],
    steps: dict[str, Kept],
    compile_s: float,
    folder: Path,
) -> Prepared:
    """What was converted in these steps and loaded in `compile_s`."""
    seconds = {name: step.seconds for name, step in steps.items()} | {"compile": compile_s}
    saved_s = sum(step.seconds for step in steps.values() if step.found)
    cache = "warm" if all(step.found for step in steps.values()) else "cold"
    return Prepared(call, feed, outputs, ran, seconds, cache, saved_s, folder)


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
            own = isinstance(child, nn.InstanceNorm3d) and not child.track_running_stats
            setattr(module, name, ByBlocks(child) if own or isinstance(child, nn.GroupNorm) else replace(child))
        return module

    return replace(copy.deepcopy(network))


def onnx(network: nn.Module, example: Tensor, cache: Path, exact: bool = False) -> tuple[Path, Kept]:
    """The folder that holds the network as model.onnx, of fixed shapes; `exact`: see with_exact_norms."""

    def export(draft: Path) -> None:
        import torch

        with torch.inference_mode():
            outputs = [f"out{place}" for place in range(len(network(example)))]
        names = {"input_names": [INPUT], "output_names": outputs}
        converted = with_exact_norms(network) if exact else network
        program = torch.onnx.export(converted, (example,), dynamo=True, opset_version=OPSET, verbose=False, **names)
        program.save(draft / "model.onnx", external_data=False)

    versions = installed(("torch", *EXPORT)) | {"opset": str(OPSET)}
    folder = cache / ("onnx-3d" if exact else "onnx") / fingerprint(network, example, versions)
    return folder, kept(folder, export)
