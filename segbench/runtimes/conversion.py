"""What runtimes share that convert a network: where what was converted is kept, and ONNX."""

from __future__ import annotations

import hashlib
import inspect
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..machine import installed
from . import Prepared

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT = "image"
OPSET = 18
EXPORT = ("onnx", "onnxscript")  # what torch exports with
# After a reading torch's OpenMP threads would spin for 7 ms on a core that a runtime's own threads need: samples
# between readings were 16 to 18 % slower than back-to-back ones. So short a spin lengthens no reading (notes.md).
SHORT_SPIN = {"GOMP_SPINCOUNT": "2000"}


def lacking(packages: Iterable[str]) -> str:
    """What of the packages is not installed, in words; "" where all are."""
    names = [name for name, version in installed(packages).items() if version == "missing"]
    return f"not installed: {', '.join(names)} (uv sync --group runtimes)" if names else ""


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
    """A folder of the cache, made where it is not there. `make` is given an empty folder, and what it raises is passed
    on."""
    took = folder.with_name(f"{folder.name}.seconds")
    if folder.exists():
        return Kept(float(took.read_text()) if took.exists() else 0.0, found=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".draft-", ignore_cleanup_errors=True) as draft:
        make(Path(draft))
        seconds = time.perf_counter() - start
        took.write_text(f"{seconds:.3f}")
        Path(draft).rename(folder)
    return Kept(seconds, found=False)


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


def onnx(network: nn.Module, example: Tensor, cache: Path) -> tuple[Path, Kept]:
    """The folder that holds the network as model.onnx, of fixed shapes."""

    def export(draft: Path) -> None:
        import torch

        with torch.inference_mode():
            outputs = [f"out{place}" for place in range(len(network(example)))]
        names = {"input_names": [INPUT], "output_names": outputs}
        program = torch.onnx.export(network, (example,), dynamo=True, opset_version=OPSET, verbose=False, **names)
        program.save(draft / "model.onnx", external_data=False)

    versions = installed(("torch", *EXPORT)) | {"opset": str(OPSET)}
    folder = cache / "onnx" / fingerprint(network, example, versions)
    return folder, kept(folder, export)
