"""Flags and cases that the benchmarks of encoders with a decoder share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segbench import cli, zoo
from segbench.cases import FEATURES, Case
from segbench.problem import Problem
from segbench.settings import Settings, did_you_mean

# Eager, and torch's mode with the highest median speedup over twelve encoders; and the fastest runtime.
ENDS = ("baseline", "autocast+compile+freezing")
MODES = (*ENDS, "openvino", "openvino-bf16")


@dataclass
class Decoder:
    num_classes: int = 117
    """Classes that decoders and 3D networks predict: 117 as TotalSegmentator."""


@dataclass
class DecoderSettings(Decoder, Settings):
    def check(self) -> None:
        if self.num_classes < 1:
            raise Problem(f"--num-classes {self.num_classes} is not positive")

    def header(self) -> dict[str, object]:
        return super().header() | {"num_classes": self.num_classes}


@dataclass
class Output:
    output: Literal["logits", "labels"] = "logits"
    """Where the timed part ends: at the logits, or at a map of labels made by the fused argmax; results of the latter
    are labelled `labels`."""


@dataclass
class OneDecoder(Output, DecoderSettings):
    def __post_init__(self) -> None:
        if self.output == "labels":
            self.label = self.label or "labels"


def check_volumes(names: tuple[str, ...]) -> None:
    """Raises Problem for what is no 3D model."""
    for name in names:
        if name not in zoo.VOLUMES:
            known = ", ".join(zoo.VOLUMES)
            raise Problem(f"unknown 3D model {name!r}{did_you_mean(name, [*zoo.VOLUMES])}; known: {known}")


def cases(settings: DecoderSettings, decoders: tuple[str, ...], output: str = "logits") -> list[Case]:
    """Every model under every mode with each decoder, or its feature maps alone for FEATURES."""
    with_classes = {"classes": settings.num_classes, "output": output}
    return [
        case
        for decoder in decoders
        for case in settings.cases(decoder=decoder, **({} if decoder == FEATURES else with_classes))
    ]


def benchmark(script: str, decoder: str, description: str) -> cli.Benchmark:
    """The benchmark of one decoder."""
    path = Path(script).resolve()
    return cli.Benchmark(
        path,
        path.parent.name,
        description,
        cases=lambda settings: cases(settings, (FEATURES, decoder), settings.output),
        report=f"benchmarks.{path.parent.name}.report",
        defaults=OneDecoder(),
        modes=MODES,
    )
