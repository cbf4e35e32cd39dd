"""The modes: data only. To add a mode, add its line; what its options mean, its runtime knows (segbench/runtimes).

A name may end in variants: `+nhwc`, where the runtime can deliver maps with their channels innermost, and an allocator
of ALLOCATORS.
"""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Precision(NamedTuple):
    """What follows from the numbers that a mode computes with."""

    max_error: float  # the largest relative L2 error against FP32 eager on the same weights that still counts as right
    min_agreement: float  # the smallest share of pixels with FP32 eager's label that still does
    ranking: str  # rows of one ranking compete for the fastest


PRECISIONS = {
    "fp32": Precision(1e-4, 0.9999, "floating point"),
    "bf16": Precision(5e-2, 0.9, "floating point"),
    "int8": Precision(math.inf, 0.0, "int8"),  # random weights cannot judge it
}


class Mode(NamedTuple):
    name: str
    runtime: str  # a module of segbench/runtimes
    precision: str  # one of PRECISIONS
    options: Mapping[str, bool] = MappingProxyType({})  # read by the runtime alone
    max_error: float | None = None  # where it is not the precision's
    min_agreement: float | None = None
    allocator: str = ""  # one of ALLOCATORS


BASELINE = "baseline"  # eager FP32 with nothing set: what speedups are over
RETAINED = "retained"  # glibc's allocator, which keeps freed memory, see timing.retain_memory
ALLOCATORS = ("", RETAINED, "jemalloc", "tcmalloc")  # "" is glibc's as it comes
NHWC = "nhwc"
BASELINES = (BASELINE, f"{BASELINE}+{RETAINED}")
# fmt: off
BASES = (
    #    name                              runtime        precision  options
    Mode(BASELINE,                         "torch",       "fp32"),
    Mode("autocast",                       "torch",       "bf16"),
    Mode("compile",                        "torch",       "fp32", {"compile": True}),
    Mode("autocast+compile",               "torch",       "bf16", {"compile": True}),
    Mode("channels_last",                  "torch",       "fp32", {"channels_last": True}),
    Mode("compile+freezing",               "torch",       "fp32", {"compile": True, "freezing": True}),
    Mode("autocast+compile+freezing",      "torch",       "bf16", {"compile": True, "freezing": True}),
    Mode("onnxruntime",                    "onnxruntime", "fp32"),
    Mode("openvino",                       "openvino",    "fp32"),
    Mode("openvino-bf16",                  "openvino",    "bf16"),
    Mode("ncnn",                           "ncnn",        "fp32", {}, 5e-3, 0.999),  # Winograd's transforms round
    Mode("mnn",                            "mnn",         "fp32", {}, 5e-3, 0.999),  # ... more
    Mode("onnxruntime-int8",               "onnxruntime", "int8"),
    Mode("openvino-int8",                  "openvino",    "int8"),
)
# fmt: on
WITH_NHWC = ("onnxruntime", "openvino", "mnn")  # runtimes; of torch the networks with a decoder deliver it anyway


def variants(base: Mode) -> list[Mode]:
    """It, with each layout of the output and each allocator."""
    layouts = [base]
    if base.runtime in WITH_NHWC:
        options = MappingProxyType({**base.options, NHWC: True})
        layouts.append(base._replace(name=f"{base.name}+{NHWC}", options=options))
    return [
        mode._replace(name="+".join(filter(None, (mode.name, allocator))), allocator=allocator)
        for mode in layouts
        for allocator in ALLOCATORS
    ]


MODES = {mode.name: mode for known in BASES for mode in variants(known)}
BASE_OF = {mode.name: known.name for known in BASES for mode in variants(known)}
DEFAULT = (BASELINE, "autocast", "compile", "autocast+compile")  # as the reference project defined them


def without_emulation(names: Iterable[str], native_bf16: bool) -> tuple[str, ...]:
    """Where BF16 is not native, FP32 instead of BF16: convolutions would leave oneDNN for a path that is far slower
    than FP32 (40 to 90 times on Zen 3, by hand; 4 to 16 times in pytorch issue 183815)."""
    if native_bf16:
        return tuple(names)

    def key(mode: Mode) -> tuple:
        return mode.runtime, *mode.options, mode.allocator

    in_fp32 = {key(mode): mode.name for mode in MODES.values() if mode.precision == "fp32"}
    chosen = [MODES[name] for name in names]
    return tuple(dict.fromkeys(mode.name if mode.precision != "bf16" else in_fp32[key(mode)] for mode in chosen))


def find(name: str) -> Mode:
    """The mode of that name; for one that only a run log knows, a mode without runtime and precision."""
    return MODES.get(name) or Mode(name, "", "")


def base(name: str) -> str:
    """The mode that one is a variant of; of one that only a run log knows its own name."""
    return BASE_OF.get(name, name)


def own_baseline(name: str) -> str:
    """Baseline with the allocator of a mode."""
    return "+".join(filter(None, (BASELINE, find(name).allocator)))


def process(name: str) -> str:
    """What kind of process runs a mode, for its reference times: `torch`, `openvino`, `torch+retained`."""
    mode = find(name)
    return "+".join(filter(None, (mode.runtime, mode.allocator)))


def order(name: str) -> int:
    """Its place in tables; modes that only a run log knows come last."""
    return [*MODES, name].index(name)


def in_order(names: list[str]) -> list[str]:
    """Without repetitions, in the order of the tables."""
    return sorted(dict.fromkeys(names), key=lambda name: (order(name), name))


def max_error(name: str) -> float:
    """The largest relative error that a mode may have: its own bound, or that of its precision."""
    mode = MODES[name]
    return mode.max_error or PRECISIONS[mode.precision].max_error


def min_agreement(name: str) -> float:
    """The smallest share of equal labels that a mode may have: its own bound, or that of its precision."""
    mode = MODES[name]
    return mode.min_agreement or PRECISIONS[mode.precision].min_agreement


def ranking(precision: str) -> str:
    """The ranking that rows of a precision compete in."""
    return PRECISIONS[precision].ranking if precision in PRECISIONS else ""
