"""The modes: data only. To add a mode, add its line; what its options mean, its runtime knows (segbench/runtimes)."""

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


BASELINE = "baseline"  # eager FP32: what speedups are over
# fmt: off
MODES = {
    mode.name: mode
    for mode in (
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
}
# fmt: on
DEFAULT = (BASELINE, "autocast", "compile", "autocast+compile")  # as the reference project defined them


def without_emulation(names: Iterable[str], native_bf16: bool) -> tuple[str, ...]:
    """Where BF16 is not native, FP32 instead of BF16: convolutions would leave oneDNN for a path that is 40 to
    90 times slower than FP32 (pytorch issue 183815; measured on Zen 3)."""
    if native_bf16:
        return tuple(names)
    in_fp32 = {(mode.runtime, *mode.options): mode.name for mode in MODES.values() if mode.precision == "fp32"}
    chosen = [MODES[name] for name in names]
    return tuple(dict.fromkeys(m.name if m.precision != "bf16" else in_fp32[m.runtime, *m.options] for m in chosen))


def find(name: str) -> Mode:
    """The mode of that name; for one that only a run log knows, a mode without runtime and precision."""
    return MODES.get(name) or Mode(name, "", "")


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
