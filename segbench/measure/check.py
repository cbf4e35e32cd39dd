"""Whether a run computed what FP32 eager computes on the same weights. Imports torch."""

import contextlib
from collections.abc import Sequence

import torch

from .. import models, modes
from ..records import Run


def check_output(run: Run, network: torch.nn.Module, image: torch.Tensor, outputs: Sequence[torch.Tensor]) -> None:
    """Write into the run how far `outputs` are from FP32 eager's, whether that is too far, and the multiply-adds.
    Moves the network to the meta device."""
    with torch.inference_mode():
        expected = network(image)[0]
        # Counted apart and without arithmetic: under the counter a bilinear interpolation takes seconds. Some networks
        # compute on the CPU what the meta device cannot follow (efficientvit_b0): those have no count.
        with contextlib.suppress(RuntimeError, NotImplementedError, TypeError):
            run.gmacs, run.decoder_gmacs = models.count_gmacs(network.to("meta"), image.to("meta"))
    run.output_std = float(expected.std())
    check = check_values if run.case.output == "logits" else check_labels
    run.reason = check(run, outputs, expected)
    if (error := fp32_error()) > modes.max_error(modes.BASELINE):
        run.reason = f"FP32 is not FP32 here, relative error {error:.2g}: something has it computed in less"
    run.status = "wrong" if run.reason else "ok"


def check_values(run: Run, outputs: Sequence[torch.Tensor], expected: torch.Tensor) -> str:
    if run.case.classes:
        run.argmax_agreement = float((outputs[0].argmax(dim=1) == expected.argmax(dim=1)).float().mean())
    if not all(bool(output.isfinite().all()) for output in outputs):
        return "the output holds NaN or infinity"
    run.rel_error, bound = relative_error(outputs[0], expected), modes.max_error(run.case.mode)
    too_large = run.rel_error > bound
    return f"relative error {run.rel_error:.2g} against FP32 eager exceeds {bound:g}" if too_large else ""


def check_labels(run: Run, outputs: Sequence[torch.Tensor], expected: torch.Tensor) -> str:
    """Labels have no relative error: what counts is how many are the same."""
    run.argmax_agreement = float((outputs[0] == expected.argmax(dim=1)).float().mean())
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


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """L2 norm of the difference over that of what is expected."""
    return float((output.float() - expected).norm() / expected.norm())
