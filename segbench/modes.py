"""The modes: a module and its input in, a callable without arguments out. To add a mode, add its line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # the sweeping process reads this table and never imports torch
    from torch import Tensor, nn


class Mode(NamedTuple):
    name: str
    autocast: bool = False  # torch.autocast("cpu", torch.bfloat16)
    compile: bool = False  # torch.compile with Inductor
    freezing: bool = False  # weights become constants of the graph: folded, packed, cast once
    channels_last: bool = False  # weights and input in NHWC


MODES = {
    mode.name: mode
    for mode in (
        Mode("baseline"),
        Mode("autocast", autocast=True),
        Mode("compile", compile=True),
        Mode("autocast+compile", autocast=True, compile=True),
        Mode("channels_last", channels_last=True),
        Mode("compile+freezing", compile=True, freezing=True),
        Mode("autocast+compile+freezing", autocast=True, compile=True, freezing=True),
    )
}
DEFAULT = ("baseline", "autocast", "compile", "autocast+compile")  # as the reference project defined them
# The largest relative L2 error against FP32 eager on the same weights that still counts as right.
MAX_ERROR_FP32 = 1e-4
MAX_ERROR_BF16 = 5e-2


def max_error(name: str) -> float:
    return MAX_ERROR_BF16 if MODES[name].autocast else MAX_ERROR_FP32


def apply(name: str, module: nn.Module, x: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """A call that runs `module` on `x`, (B, 3, H, W) or (B, 1, D, H, W), under the mode. The first call compiles, where
    the mode does.

    Autocast is entered at every call, as a service would: around the loop its cache of cast weights would live on.
    """
    import torch

    mode = MODES[name]
    if mode.channels_last:
        layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
        module, x = module.to(memory_format=layout), x.contiguous(memory_format=layout)
    call = torch.compile(module, options={"freezing": mode.freezing}) if mode.compile else module

    def run() -> tuple[Tensor, ...]:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mode.autocast):
            return call(x)

    return run
