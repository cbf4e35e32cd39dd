"""Deployment runtimes against torch's modes: ONNX Runtime, OpenVINO, ncnn and MNN.

For encoders alone and with both decoders, and for the official 3D models on a patch of 128x128x64 voxels; or for a
network of your own.

Writes, from the run logs of all machines:

  benchmark_results_all.csv        every row, with the cost of preparing
  benchmark_results.csv            the fastest mode per network and precision
  benchmark_background_load.csv    throughput kept beside a busy process
  benchmark_plot.png               speedup over baseline
"""

import dataclasses
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

try:
    import msgspec

    from benchmarks import decoders
    from segbench import cli, custom_network, zoo
    from segbench.cases import Case
    from segbench.measure import background_load
    from segbench.modes import BASELINE
    from segbench.problem import Problem
    from segbench.settings import default_is
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

VOLUMES = ("stunet_s", "stunet_b", "totalsegmentator")
TORCH = (
    "baseline",
    "baseline+retained",
    "channels_last",
    "compile",
    "compile+freezing",
    "autocast",
    "autocast+compile+freezing",
)
RUNTIMES = ("onnxruntime", "openvino", "openvino-bf16", "ncnn", "mnn", "onnxruntime-int8", "openvino-int8")


@dataclass
class Runtimes:
    volumes: tuple[str, ...] = VOLUMES
    """3D models; --volumes with nothing behind it measures none."""
    network: Annotated[str, default_is("none")] = ""
    """A network of your own instead: package.module:function, which returns an nn.Module; looked for in the current
    folder too. Results go into own/."""
    background_load: bool = False
    """Measure beside a process that keeps one core busy; the run log is labelled 'background-load'."""


@dataclass
class Settings(Runtimes, decoders.DecoderSettings):
    def __post_init__(self) -> None:
        if self.background_load:
            self.label, self.no_wait = self.label or "background-load", True

    def check(self) -> None:
        super().check()
        decoders.check_volumes(self.volumes)
        if self.network:
            for flag in ("num_classes", "pretrained"):
                if getattr(self, flag) != getattr(decoders.DecoderSettings, flag):
                    raise Problem(f"--{flag.replace('_', '-')} is not for --network: your function returns it whole")
            self.custom_network()

    def dimensions(self) -> tuple[int, ...]:
        return (2, 3) if self.network else (2,)

    def custom_network(self) -> Case:
        """The network under baseline, with the digest of its weights and its classes. Raises Problem."""
        case = Case(model=self.network, mode=BASELINE, size=tuple(self.size), in_chans=self.in_chans, seed=self.seed)
        digest, classes = custom_network.describe(case, str(Path.cwd()))
        return msgspec.structs.replace(case, weights=digest, classes=classes)

    def files(self) -> dict[str, str]:
        return {self.custom_network().weights: str(Path.cwd())} if self.network else {}

    def folder(self, script: Path) -> Path:
        """A network with other weights is another network."""
        if not self.network:
            return super().folder(script)
        return script / "own" / f"{self.network.replace(':', '.')}-{self.custom_network().weights[:8]}"

    def header(self) -> dict[str, object]:
        return super().header() | ({"background_load": True} if self.background_load else {})


def cases(settings: Settings) -> list[Case]:
    if settings.network:
        custom = settings.custom_network()
        settings = dataclasses.replace(settings, models=(settings.network,))
        return settings.cases(classes=custom.classes, weights=custom.weights)
    images = [*settings.cases()]  # encoders with their classifiers: nobody deploys feature maps
    for decoder in ("fpn", "unet"):
        images += settings.cases(decoder=decoder, classes=settings.num_classes)
    volumes = dataclasses.replace(settings, models=settings.volumes, size=zoo.PATCH)
    return [*images, *volumes.cases(classes=settings.num_classes)]


def beside(settings: Settings) -> AbstractContextManager:
    return background_load.running(pause_s=0) if settings.background_load else nullcontext()


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="runtimes",
    description=__doc__,
    cases=cases,
    report="benchmarks.runtimes.report",
    modes=(*TORCH, *RUNTIMES),
    defaults=Settings(models=("twelve",)),
    quick={"models": ("mobilenetv4_conv_small",), "volumes": (), "rounds": 2, "samples": 24},
    beside=beside,
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
