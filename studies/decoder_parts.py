"""Where the time goes in an encoder with a decoder, for notes.md.

Prints tables, writes nothing. What each table shows:

  parts: wall time of the encoder's stages and the decoder's steps, in the
    fastest of some profiled inferences. A part lasts from its first
    convolution to the next part's, so that what a compiler fuses in
    between is counted with it.
  output: cost of a full-resolution output, and of the argmax over its
    classes, after the network or in it.
  layout: decoders that get their maps as NCHW, against NHWC.

    uv run studies/decoder_parts.py parts output layout
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro
from tqdm import tqdm

from segbench import machine, modes, settings
from segbench.cases import Case
from segbench.problem import exit_with
from studies import common

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.autograd.profiler_util import FunctionEvent

INFERENCE = "one inference"  # its name in the profile
STEPS = {  # of the decoders, by the beginning of a module's name
    "decoder.lateral": "laterals, top-down sums",
    "decoder.smooth": "smoothing of P2",
    "decoder.up": "step",
    "decoder.convs": "step",
    "decoder.last": "last transposed convolution",
    "decoder.head": "head",
}
MODES = ("baseline", "compile", "autocast+compile+freezing")
Table = Literal["parts", "output", "layout"]


@dataclass
class Settings:
    tables: Annotated[tuple[Table, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = get_args(Table)
    """Which tables to make."""
    models: tuple[str, ...] = ("mobileone_s0", "mobilenetv4_conv_small", "resnet18")
    """Encoders. For parts without squeeze-and-excitation, whose convolutions a compiler may replace."""
    runs: int = 20
    """Inferences, of which the fastest counts."""


def part(name: str) -> str:
    """`encoder.layer1.0.conv1` -> `encoder, layer1`; `encoder.blocks.2.0.conv` -> `encoder, blocks 3`;
    `decoder.convs.2.0` -> `step 3`."""
    first, second, third, *_ = [*name.split("."), "", ""]
    if first == "encoder":
        return f"encoder, {second} {int(third) + 1}" if second == "blocks" else f"encoder, {second}"
    step = STEPS[f"{first}.{second}"]
    return f"{step} {int(third) + 1}" if step == "step" else step


def parts_in_order(module: "nn.Module", image: "Tensor") -> list[str]:
    """The part that each convolution of one inference belongs to, in the order in which they run."""
    import torch

    names, hooks = [], []
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: names.append(part(name))))
    with torch.inference_mode():
        module(image)
    for hook in hooks:
        hook.remove()
    return names


def is_convolution(event: "FunctionEvent") -> bool:
    """Whether it is a whole convolution: eager's aten::conv2d calls aten::convolution, and so on."""
    ancestor = event.cpu_parent
    while ancestor is not None and "conv" not in ancestor.name:
        ancestor = ancestor.cpu_parent
    return "conv" in event.name and ancestor is None


def profiled(call: Callable, names: list[str], runs: int) -> dict[str, float]:
    """Part -> ms in the fastest of the runs. Raises RuntimeError where the convolutions that ran are not those of the
    network, one for one."""
    from torch.profiler import ProfilerActivity, profile, record_function

    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(runs):
            with record_function(INFERENCE):
                call()
    events = sorted(recorded.events(), key=lambda event: event.time_range.start)
    inferences = [event.time_range for event in events if event.name == INFERENCE]
    fastest = min(inferences, key=lambda time_range: time_range.elapsed_us())
    inside = [event for event in events if fastest.start <= event.time_range.start < fastest.end]
    convolutions = [event.time_range for event in inside if is_convolution(event)]
    if len(convolutions) != len(names):
        raise RuntimeError(f"{len(convolutions)} convolutions ran, the network has {len(names)}: not attributable")
    last = convolutions[-1].end  # the upsampling of the output follows, if any
    starts = [fastest.start, *(time_range.start for time_range in convolutions[1:]), last, fastest.end]
    parts_ms: dict[str, float] = {}
    for name, (start, end) in zip([*names, "after the last convolution"], pairwise(starts), strict=True):
        parts_ms[name] = parts_ms.get(name, 0) + (end - start) / 1e3
    return parts_ms


def fastest_ms(call: Callable, runs: int) -> float:
    from segbench.measure import timing

    call()
    return min(timing.seconds(call) for _ in range(runs)) * 1e3


def parts(case: Case, runs: int) -> list[dict]:
    module, image = common.network(case)
    names, call = parts_in_order(module, image), common.prepare(module, image, case.mode).call
    without_profiler = fastest_ms(call, runs)
    parts_ms = profiled(call, names, runs)
    total = sum(parts_ms.values())
    parts_ms |= {"together": total, "without the profiler": without_profiler}
    return [{"part": name, "ms": ms, "%": 100 * ms / total} for name, ms in parts_ms.items()]


def output(case: Case, runs: int) -> list[dict]:
    import torch

    from segbench.models.labelled import Argmax

    module, image = common.network(case)
    call = common.prepare(module, image, case.mode).call
    (logits,) = call()
    in_nchw = logits.contiguous()
    columns = {
        "network": call,
        "writing the output": lambda: torch.empty_like(logits).fill_(1),
        "argmax after it": lambda: logits.argmax(dim=1),
        "the same, NCHW": lambda: in_nchw.argmax(dim=1),
        "argmax in the network": common.prepare(Argmax(module), image, case.mode).call,
    }
    with torch.inference_mode():
        latencies = {f"{name}, ms": fastest_ms(work, runs) for name, work in columns.items()}
    return [{"output, MB": logits.numel() * logits.element_size() / 1e6} | latencies]


def layout(case: Case, runs: int) -> list[dict]:
    import torch

    from segbench.measure import timing

    calls = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        module, image = common.network(case)
        module.layout = memory_format
        calls.append(common.prepare(module, image, case.mode).call)
        calls[-1]()
    pairs = common.in_turn(*(lambda call=call: timing.seconds(call) for call in calls), range(runs))
    row = {"NCHW, ms": 1e3 * min(pairs.first), "NHWC, ms": 1e3 * min(pairs.second)}
    return [row | pairs.columns("NCHW / NHWC")]


TABLES = {table.__name__: table for table in (parts, output, layout)}


def main() -> None:
    options, here = settings.parse(Settings(), __doc__), machine.describe()
    models, chosen = settings.find_models(options.models), modes.without_emulation(MODES, here.native_bf16)
    common.print_setting(here, ["torch"])
    import torch

    from segbench.measure import timing

    torch.set_num_threads(here.cores)
    timing.retain_memory(room_mb=1000)
    for name in options.tables:
        rows = []
        for decoder, model, mode in tqdm([*product(("fpn", "unet"), models, chosen)], desc=name):
            case = Case(model=model, mode=mode, size=(512, 512), decoder=decoder, classes=117)
            about = {"network": f"{model} + {decoder}", "mode": mode}
            rows += [about | row for row in TABLES[name](case, options.runs)]
        common.print_table(name, rows)


if __name__ == "__main__":
    exit_with(main, "finished tables are above")
