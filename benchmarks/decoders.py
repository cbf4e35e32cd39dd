"""What the benchmarks of encoders with a decoder share: their flags, their cases, their tables."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from segbench import cli, zoo
from segbench.analysis.reports import Report
from segbench.cases import FEATURES, Case
from segbench.settings import Problem, Settings, did_you_mean

# Eager, and torch's mode with the highest median speedup over twelve encoders; without native BF16 that of FP32.
ENDS = ("baseline", "autocast+compile+freezing")
ENDS_WITHOUT_BF16 = ("baseline", "compile+freezing")
# With the fastest runtime; what this machine would have to emulate is skipped unless asked for.
MODES = (*ENDS, "openvino", "openvino-bf16")
MODES_WITHOUT_BF16 = (*ENDS_WITHOUT_BF16, *MODES[1:])


@dataclass
class DecoderSettings(Settings):
    num_classes: int = 117
    """Classes that the decoder tells apart; 117 as TotalSegmentator."""

    def check(self) -> None:
        if self.num_classes < 1:
            raise Problem(f"--num-classes {self.num_classes} is not positive")

    def header(self) -> dict[str, object]:
        return super().header() | {"num_classes": self.num_classes}


@dataclass
class OneDecoder(DecoderSettings):
    output: Literal["logits", "labels"] = "logits"
    """Time logits, or all the way to a map of labels with the fused argmax; the run log of that is labelled `labels`."""
    feature_maps: bool = True
    """Time the encoder's feature maps alone too; else a decoder's share is by those in fpn_decoder's run log."""

    def __post_init__(self) -> None:
        self.label = self.label or "labels" * (self.output == "labels")


def check_volumes(names: tuple[str, ...]) -> None:
    """Raises Problem for what is no 3D model."""
    for name in names:
        if name not in zoo.VOLUMES:
            known = ", ".join(zoo.VOLUMES)
            raise Problem(f"unknown 3D model {name!r}{did_you_mean(name, [*zoo.VOLUMES])}; known: {known}")


def cases(settings: DecoderSettings, decoders: tuple[str, ...], output: str = "logits") -> list[Case]:
    """Every model under every mode with each decoder; FEATURES are the encoder's alone, by which the decoder's share is
    known."""
    behind = {"classes": settings.num_classes, "output": output}
    wanted = [{"decoder": decoder} | (behind if decoder != FEATURES else {}) for decoder in decoders]
    return [case for particular in wanted for case in settings.cases(**particular)]


def benchmark(script: str, decoder: str, description: str) -> cli.Benchmark:
    """The benchmark of one decoder."""
    path = Path(script).resolve()

    def report() -> Report:
        from segbench.analysis import markdown, pages, plots, tables

        def with_decoder(results: tables.Results):
            return results.rows[results.rows.decoder == decoder]

        return Report(
            csvs={
                "benchmark_results_all.csv": lambda results: results.rows,
                "benchmark_results.csv": lambda results: tables.fastest(with_decoder(results)),
            },
            pictures={"benchmark_plot.png": lambda results: plots.encoders(with_decoder(results), results.dates())},
            show=partial(markdown.terminal, decoder=decoder),
            pages=(partial(pages.ranking, decoder=decoder), partial(pages.every_mode, decoder=decoder)),
            answer=partial(markdown.answer, decoders=(decoder,)),
        )

    return cli.Benchmark(
        path,
        path.parent.name,
        description,
        cases=lambda settings: cases(settings, (FEATURES,) * settings.feature_maps + (decoder,), settings.output),
        report=report,
        defaults=OneDecoder(),
        modes=MODES,
        modes_without_bf16=MODES_WITHOUT_BF16,
    )
