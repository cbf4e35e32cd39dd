"""Where the time goes in an encoder with a decoder, for notes.md; prints tables, writes nothing.

parts   Wall time of the encoder's stages and the decoder's steps in the calmest of some profiled inferences. A part
        reaches from its first convolution to the next part's: what the compiler fuses in between stays attributable.
output  What a full-resolution output costs, and the classes of its pixels (argmax) on top, after the network or in it.
layout  What it brings that a decoder gets its maps with the NHWC, both ways in turn.

    uv run benchmarks/decoder_parts.py parts output layout
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Annotated, Literal

import torch
import tyro
from tabulate import tabulate
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from tqdm import tqdm

from benchmarks import decoders
from segbench import machine, modes, runtimes
from segbench.analysis import stats
from segbench.cases import Case
from segbench.inputs import photograph
from segbench.measure import timing
from segbench.models import build

RUN = "one inference"
STEPS = {  # of the decoders, by the beginning of a module's name
    "decoder.lateral": "laterals, top-down sums",
    "decoder.smooth": "smoothing of P2",
    "decoder.up": "step",
    "decoder.convs": "step",
    "decoder.last": "last transposed convolution",
    "decoder.head": "head",
}


@dataclass
class Settings:
    tables: Annotated[tuple[Literal["parts", "output", "layout"], ...], tyro.conf.Positional]
    """Which of them."""
    models: tuple[str, ...] = ("mobileone_s0", "mobilenetv4_conv_small", "resnet18")
    """Without squeeze-and-excitation, whose convolutions a compiler may turn into something else."""
    num_classes: int = 117
    runs: int = 20
    """Inferences, of which the fastest counts."""


class Classes(nn.Module):
    """(B, 3, H, W) -> the class of every pixel (B, H, W): what a user wants of the logits."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.network(x)[0].argmax(dim=1),)


def made(model: str, decoder: str, settings: Settings) -> tuple[nn.Module, Tensor]:
    """The network and its input."""
    case = Case(model=model, decoder=decoder, classes=settings.num_classes, mode="baseline", size=(512, 512))
    return build(case), photograph(case.size)


def call_of(module: nn.Module, image: Tensor, mode: str) -> Callable:
    """The network under a mode, run once."""
    chosen = modes.MODES[mode]
    return runtimes.of_mode(chosen).prepare(module, image, chosen, torch.get_num_threads(), machine.cache_folder()).call


def part(name: str) -> str:
    """`encoder.layer1.0.conv1` -> `encoder, layer1`; `encoder.blocks.2.0.conv` -> `encoder, blocks 3`;
    `decoder.convs.2.0` -> `step 3`."""
    first, second, third, *_ = [*name.split("."), "", ""]
    if first == "encoder":
        return f"encoder, {second}" + (f" {int(third) + 1}" if second == "blocks" else "")
    step = STEPS[f"{first}.{second}"]
    return f"{step} {int(third) + 1}" if step == "step" else step


def in_order(module: nn.Module, image: Tensor) -> list[str]:
    """The parts that the convolutions of one inference belong to, in the order in which they run."""
    owners, hooks = [], []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: owners.append(part(name))))
    with torch.inference_mode():
        module(image)
    for hook in hooks:
        hook.remove()
    return owners


def is_convolution(event) -> bool:
    """Whether it is one and no part of one: eager's aten::conv2d calls aten::convolution, and so on."""
    ancestor = event.cpu_parent
    while ancestor is not None and "conv" not in ancestor.name:
        ancestor = ancestor.cpu_parent
    return "conv" in event.name and ancestor is None


def least_loaded(call: Callable, owners: list[str], runs: int) -> dict[str, float]:
    """Part -> ms in the fastest of the runs. Raises RuntimeError where the convolutions that ran are not those of the
    network, one for one."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(runs):
            with record_function(RUN):
                call()
    events = sorted(recorded.events(), key=lambda event: event.time_range.start)
    run = min((event for event in events if event.name == RUN), key=lambda event: event.time_range.elapsed_us())
    inside = [e for e in events if run.time_range.start <= e.time_range.start < run.time_range.end]
    convolutions = [event for event in inside if is_convolution(event)]
    if len(convolutions) != len(owners):
        raise RuntimeError(f"{len(convolutions)} convolutions ran, the network has {len(owners)}: not attributable")
    last = convolutions[-1].time_range.end  # what follows is the output's: upsampling, if any
    starts = [run.time_range.start, *(event.time_range.start for event in convolutions[1:]), last, run.time_range.end]
    parts_ms: dict[str, float] = {}
    for owner, (start, end) in zip([*owners, "after the last convolution"], pairwise(starts), strict=True):
        parts_ms[owner] = parts_ms.get(owner, 0) + (end - start) / 1e3
    return parts_ms


def fastest(call: Callable, runs: int) -> float:
    call()
    return min(timing.seconds(call) for _ in range(runs)) * 1e3


def parts(model: str, decoder: str, settings: Settings, pair: tuple[str, str]) -> list[dict]:
    columns: dict[str, dict[str, float]] = {}
    for mode in pair:
        module, image = made(model, decoder, settings)
        owners = in_order(module, image)
        call = call_of(module, image, mode)
        plain = fastest(call, settings.runs)
        parts_ms = least_loaded(call, owners, settings.runs)
        columns[mode] = parts_ms | {"together": sum(parts_ms.values()), "without the profiler": plain}
    return [
        {"network": f"{model} + {decoder}", "part": name}
        | {f"{mode}, ms": parts_ms[name] for mode, parts_ms in columns.items()}
        | {f"{mode}, %": 100 * parts_ms[name] / parts_ms["together"] for mode, parts_ms in columns.items()}
        for name in columns[pair[0]]
    ]


def output(model: str, decoder: str, settings: Settings, pair: tuple[str, str]) -> list[dict]:
    rows = []
    for mode in pair:
        module, image = made(model, decoder, settings)
        call = call_of(module, image, mode)
        (logits,) = call()
        network = fastest(call, settings.runs)
        with_argmax = fastest(call_of(Classes(module), image, mode), settings.runs)
        planar = logits.contiguous()
        with torch.inference_mode():
            rows.append(
                {
                    "network": f"{model} + {decoder}",
                    "mode": mode,
                    "output, MB": logits.numel() * logits.element_size() / 1e6,
                    "network, ms": network,
                    "writing the output, ms": fastest(lambda out=logits: torch.empty_like(out).fill_(1), settings.runs),
                    "argmax after it, ms": fastest(lambda out=logits: out.argmax(dim=1), settings.runs),
                    "the same, planar, ms": fastest(lambda out=planar: out.argmax(dim=1), settings.runs),
                    "argmax in the network, ms": with_argmax,
                }
            )
    return rows


def layout(model: str, decoder: str, settings: Settings, pair: tuple[str, str]) -> list[dict]:
    rows = []
    for mode in (pair[0], "compile", pair[1]):
        calls = {}
        for name, memory_format in (("planar", torch.contiguous_format), ("innermost", torch.channels_last)):
            module, image = made(model, decoder, settings)
            module.layout = memory_format
            calls[name] = call_of(module, image, mode)
            calls[name]()
        taken = {name: [] for name in calls}
        for _ in range(settings.runs):
            for name, call in calls.items():
                taken[name].append(timing.seconds(call) * 1e3)
        ratios = [planar / innermost for planar, innermost in zip(*taken.values(), strict=True)]
        low, high = stats.interval(ratios)
        row = {"network": f"{model} + {decoder}", "mode": mode}
        row |= {f"{name}, ms": min(latencies) for name, latencies in taken.items()}
        rows.append(row | {"times as fast": statistics.geometric_mean(ratios), "low": low, "high": high})
    return rows


TABLES = {"parts": parts, "output": output, "layout": layout}


def main() -> None:
    settings, here = tyro.cli(Settings, description=__doc__), machine.describe()
    torch.set_num_threads(here.cores)
    timing.retain_memory(room_mb=1000)
    pair = decoders.ENDS if here.native_bf16 else decoders.ENDS_WITHOUT_BF16
    print(json.dumps({"machine": here.label, "torch": torch.__version__, "threads": here.cores}))
    for name in settings.tables:
        networks = tqdm([*product(("fpn", "unet"), settings.models)], desc=name)  # a compilation takes half a minute
        rows = [row for decoder, model in networks for row in TABLES[name](model, decoder, settings, pair)]
        print(f"\n{name}\n\n{tabulate(rows, headers='keys', tablefmt='github', floatfmt='.4g')}", flush=True)


if __name__ == "__main__":
    main()
