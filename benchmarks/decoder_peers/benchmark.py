"""This project's decoders against those of segmentation-models-pytorch, same encoder, same modes, same rounds.

Writes benchmark_results.csv (a row per machine, model, decoder and mode: both side by side, ours over theirs with its
interval) and benchmark_plot.png from the run logs of all machines. It needs the development dependencies.
"""

import sys
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

try:
    from benchmarks import decoders
    from segbench import cli
    from segbench.problem import Problem
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

LIBRARY = "segmentation-models-pytorch"
MODELS = (
    "mobileone_s0",
    "mobilenetv4_conv_small",
    "mobilenetv3_small_100",
    "regnetx_002",
    "resnet18",
    "efficientnet_b0",
)


@dataclass
class Settings(decoders.DecoderSettings):
    def check(self) -> None:
        super().check()
        if find_spec("segmentation_models_pytorch") is None:
            raise Problem(f"{LIBRARY} is missing: `uv pip install segmentation-models-pytorch monai`")

    def header(self) -> dict[str, object]:
        return super().header() | {LIBRARY: version(LIBRARY)}


def cases(settings: Settings) -> list:
    return decoders.cases(settings, ("fpn", "smp-fpn", "unet", "smp-unet"))


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="decoder_peers",
    description=__doc__,
    cases=cases,
    report="benchmarks.decoder_peers.report",
    modes=("baseline", "compile"),
    defaults=Settings(models=MODELS),
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
