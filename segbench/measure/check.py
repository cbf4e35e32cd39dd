"""Whether a run computed what FP32 eager computes on the same weights. Imports torch."""

import contextlib
from collections.abc import Sequence

import torch

from .. import models, modes
from ..records import Run
from ..runtimes import Prepared


def check_output(run: Run, network: torch.nn.Module, image: torch.Tensor, outputs: Sequence[torch.Tensor]) -> None:
    """Write into the run how far `outputs` are from FP32 eager's, whether that is too far, and the multiply-adds.
    Moves the network to the meta device."""
    with torch.inference_mode():
        expected = network(image.clone())  # a network may change its input
        repeated = network(image.clone()) if run.case.own else expected
        # Counted apart and without arithmetic: under the counter a bilinear interpolation takes seconds. Some networks
        # compute on the CPU what the meta device cannot follow (efficientvit_b0): those have no count.
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
            run.gmacs, run.decoder_gmacs = models.count_gmacs(network.to("meta"), image.to("meta"))
    run.output_std = float(expected[0].float().std())
    check = check_values if run.case.output == "logits" else check_labels
    run.reason = check(run, outputs, expected)
    if (error := fp32_error()) > modes.max_error(modes.BASELINE):
        run.reason = f"FP32 is not FP32 here, relative error {error:.2g}: something has it computed in less"
    if unsteady := difference(repeated, expected, modes.BASELINE):
        run.reason = f"the network differs from call to call: {unsteady} on the same input"
    run.status = "wrong" if run.reason else "ok"


def check_values(run: Run, outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> str:
    first = expected[0]
    if run.case.classes and first.is_floating_point() and outputs[0].shape == first.shape:
        run.argmax_agreement = float((outputs[0].argmax(dim=1) == first.argmax(dim=1)).float().mean())
    if not all(bool(output.isfinite().all()) for output in outputs):
        return "the output holds NaN or infinity"
    alike = [pair for pair in zip(outputs, expected, strict=False) if pair[0].shape == pair[1].shape]
    run.rel_error = max((relative_error(*pair) for pair in alike if has_norm(pair[1])), default=None)
    reason = difference(outputs, expected, run.case.mode)
    return f"{reason} against FP32 eager" if reason else ""


def difference(outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], mode: str) -> str:
    """What is further from what is expected than a mode may be, "" where all outputs are near it. Whole numbers and
    truth values are the same or not: of those it counts how many are."""
    if len(outputs) != len(expected):
        return f"{len(outputs)} outputs instead of {len(expected)}"
    bound, least = modes.max_error(mode), modes.min_agreement(mode)
    for number, (output, wanted) in enumerate(zip(outputs, expected, strict=True), 1):
        which = f"output {number}: " if len(expected) > 1 else ""
        if output.shape != wanted.shape:
            return f"{which}shape {tuple(output.shape)} instead of {tuple(wanted.shape)}"
        if not has_norm(wanted):
            if wanted.numel() and (share := float((output == wanted).double().mean())) < least:
                return f"{which}{share:.3%} of the values are the same, less than {least:.2%},"
        elif (error := relative_error(output, wanted)) > bound:
            return f"{which}relative error {error:.2g} exceeds {bound:g}"
    return ""


def on_another_input(network: torch.nn.Module, image: torch.Tensor, prepared: Prepared, mode: str) -> str:
    """The `difference` on the mirrored image: a network that was traced may hold what it computed for one input, where
    it leaves torch or branches on values."""
    other = image.flip(-1)
    prepared.feed(other)
    with torch.inference_mode():
        return difference(prepared.outputs(prepared.call()), network(other.clone()), mode)


def check_labels(run: Run, outputs: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> str:
    """Labels have no relative error: what counts is how many are the same."""
    run.argmax_agreement = float((outputs[0] == expected[0].argmax(dim=1)).float().mean())
    share, bound = run.argmax_agreement, modes.min_agreement(run.case.mode)
    return f"{share:.3%} of the pixels have FP32 eager's label, less than {bound:.2%}" if share < bound else ""


def fp32_error() -> float:
    """The larger relative error of a convolution and a matrix product in FP32 against FP64: 2e-7, or 2e-3 where a
    setting makes a library compute FP32 in BF16. A network's own check cannot see that: the expected output has the
    same error."""
    generator = torch.Generator().manual_seed(0)
    image, weight = torch.randn(1, 32, 16, 16, generator=generator), torch.randn(32, 32, 3, 3, generator=generator)
    matrix = torch.randn(128, 128, generator=generator)
    pairs = ((torch.conv2d, image, weight), (torch.mm, matrix, matrix))
    return max(relative_error(call(a, b), call(a.double(), b.double())) for call, a, b in pairs)


def has_norm(output: torch.Tensor) -> bool:
    return output.is_floating_point() or output.is_complex()


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """L2 norm of the difference over that of what is expected; where that is 0 everywhere, the former alone."""
    difference = output.to(torch.promote_types(expected.dtype, torch.float32)) - expected
    return float(difference.norm() / (expected.norm() or 1))
