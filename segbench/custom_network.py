"""A user's network, named by the function that returns it: what a run has to know before it measures."""

import json
import re
import sys
from functools import cache
from typing import NamedTuple

import msgspec

from .cases import Case
from .problem import Problem
from .settings import ask

DESCRIBE = "from segbench import custom_network; custom_network.describe_to_parent()"
SHAPES = "--size and --in-chans choose another"
ANSWER = "segbench describes: "  # before what the child tells, for the user's module may print


class Description(NamedTuple):
    digest: str  # of layers, code and weights
    classes: int  # channels of the first output where that is a map of the input's dimensions, else 0


@cache
def describe(case: Case, folder: str) -> Description:
    """Of the network that a case names. A child builds and runs it once, so that this process never imports torch.
    Raises Problem where it cannot be built or does not take the case's input."""
    check_name(case.model)
    complaint = f"--network {case.model}:"
    answer = ask(complaint, DESCRIBE, msgspec.json.encode(case).decode(), folder)
    for line in answer.splitlines():
        if line.startswith(ANSWER):
            return Description(**json.loads(line.removeprefix(ANSWER)))
    raise Problem(f"{complaint} it ended its process before it returned an output")


def check_name(network: str) -> None:
    """Raises Problem for what is no function of a module."""
    if not re.fullmatch(r"[\w.]+:[\w.]+", network):
        raise Problem(
            f"--network {network!r} is no function of a module: say package.module:function, in letters, digits and _"
        )
    module, _, function = network.partition(":")
    if module.endswith(".py"):
        raise Problem(f"--network {network}: a module has no .py, say {module.removesuffix('.py')}:{function}")


def describe_to_parent() -> None:
    """In the child: print a line of JSON, or exit with what is wrong."""
    import torch

    from . import inputs, models
    from .runtimes import conversion

    case, folder = msgspec.json.decode(sys.argv[1], type=Case), sys.argv[2]
    network, image = models.build(case, folder), inputs.picture(case)
    shape = tuple(image.shape)
    weights = [*network.parameters(), *network.buffers()]
    if elsewhere := {weight.device.type for weight in weights} - {"cpu"}:
        sys.exit(f"its weights are on the device {elsewhere.pop()}: return it on the CPU, with weights")
    try:
        with torch.inference_mode():
            outputs = network(image)
    except Exception as error:
        text = (str(error).strip() or "no message").splitlines()[0]
        types = {str(weight.dtype) for weight in weights if weight.is_floating_point()} - {"torch.float32"}
        hint = f"its weights are {types.pop()}: return network.float()" if types else SHAPES
        sys.exit(f"{type(error).__name__}, {text[:200]} (it was given {shape} in float32: {hint})")
    if not outputs:
        sys.exit(f"it returned no tensor for an input of {shape}")
    first = outputs[0]
    is_map = first.dim() == image.dim() and first.shape[1] > 1
    description = Description(conversion.fingerprint(network, image, {}), first.shape[1] if is_map else 0)
    print(f"\n{ANSWER}{json.dumps(description._asdict())}")
