"""torch's modes against deployment runtimes: ONNX Runtime, OpenVINO, ncnn and MNN, for encoders alone and with both
decoders, and for the official 3D models on a patch of 128x128x64 voxels; or for a network of your own.

Writes benchmark_results_all.csv (everything, with what preparing took and after how many images it has paid),
benchmark_results.csv (the fastest mode per network and precision), with --background-load benchmark_stress.csv (what each mode
keeps beside a busy process) and benchmark_plot.png (speedup over baseline) from
the run logs of all machines.
"""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

try:
    import msgspec
    import tyro

    from benchmarks import decoders
    from segbench import cli, custom_network, zoo
    from segbench.cases import Case
    from segbench.measure import background_load
    from segbench.modes import BASELINE
    from segbench.problem import Problem
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run benchmark.py`, which installs what is missing") from None

VOLUMES = ("stunet_s", "stunet_b", "totalsegmentator")
TORCH = ("baseline", "channels_last", "compile", "compile+freezing", "autocast", "autocast+compile+freezing")
RUNTIMES = ("onnxruntime", "openvino", "openvino-bf16", "ncnn", "mnn", "onnxruntime-int8", "openvino-int8")


@dataclass
class Runtimes:
    volumes: tuple[str, ...] = VOLUMES
    """3D models; none with --volumes and nothing behind it."""
    network: str = ""
    """A network of your own instead: package.module:function, which returns an nn.Module; looked for in the current
    folder too. Results go into own/."""
    background_load: bool = False
    """Beside a process that keeps one core busy all the time; its run log is labelled `background-load`."""


@dataclass
class Settings(Runtimes, decoders.DecoderSettings):
    def __post_init__(self) -> None:
        self.label = self.label or "background-load" * self.background_load
        self.no_wait = self.no_wait or self.background_load

    def check(self) -> None:
        super().check()
        decoders.check_volumes(self.volumes)
        if self.network:
            self.custom_network()

    def dimensions(self) -> tuple[int, ...]:
        return (2, 3) if self.network else (2,)

    def custom_network(self) -> Case:
        """Under baseline; it says which network it is."""
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
        own_case = settings.custom_network()
        alone = dataclasses.replace(settings, models=(settings.network,))
        return with_default_allocator(alone.cases(classes=own_case.classes, weights=own_case.weights))
    alone = settings.cases()  # with their classifiers, for nobody deploys maps
    decoders = [settings.cases(decoder=name, classes=settings.num_classes) for name in ("fpn", "unet")]
    volumes = dataclasses.replace(settings, models=settings.volumes, size=zoo.PATCH)
    return [*with_default_allocator([*alone, *decoders[0], *decoders[1]]), *volumes.cases(classes=settings.num_classes)]


def with_default_allocator(cases: list[Case]) -> list[Case]:
    """And eager mode with the allocator stock, what torch's steps begin with."""
    default_allocator = [msgspec.structs.replace(case, allocator="default") for case in cases if case.mode == BASELINE]
    return [*dict.fromkeys([*cases, *default_allocator])]


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
