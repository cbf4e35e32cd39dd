"""torch's modes against deployment runtimes: ONNX Runtime, OpenVINO, ncnn and MNN, for encoders alone and with both
decoders, and for the official 3D models on a patch of 128x128x64 voxels.

Writes benchmark_results_all.csv (everything, with what preparing took and after how many images it has paid),
benchmark_results.csv (the fastest mode per network and precision) and benchmark_plot.png (speedup over baseline) from
the journals of all machines.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import msgspec

from segbench import cli, decoder_benchmark, zoo
from segbench.cases import Case
from segbench.modes import BASELINE
from segbench.reports import Report

VOLUMES = ("stunet_s", "stunet_b", "totalsegmentator")
TORCH = ("baseline", "channels_last", "compile", "compile+freezing", "autocast", "autocast+compile+freezing")
RUNTIMES = ("onnxruntime", "openvino", "openvino-bf16", "ncnn", "mnn", "onnxruntime-int8", "openvino-int8")


@dataclass
class Settings(decoder_benchmark.DecoderSettings):
    volumes: tuple[str, ...] = VOLUMES
    """3D models; none with --volumes and nothing behind it."""

    def check(self) -> None:
        super().check()
        decoder_benchmark.check_volumes(self.volumes)


def cases(settings: Settings) -> list[Case]:
    alone = settings.cases()  # with their classifiers, for nobody deploys maps
    decoders = [settings.cases(decoder=name, classes=settings.num_classes) for name in ("fpn", "unet")]
    flat = [*alone, *decoders[0], *decoders[1]]
    # What torch's steps begin with: eager mode with the allocator as it comes.
    flat += [msgspec.structs.replace(case, allocator="plain") for case in flat if case.mode == BASELINE]
    volumes = dataclasses.replace(settings, models=settings.volumes, size=zoo.PATCH)
    return [*dict.fromkeys(flat), *volumes.cases(classes=settings.num_classes)]


def report() -> Report:
    import runtime_report

    return Report(
        csvs={
            "benchmark_results_all.csv": runtime_report.everything,
            "benchmark_results.csv": runtime_report.fastest,
        },
        pictures={"benchmark_plot.png": runtime_report.picture},
        show=runtime_report.terminal,
        pages=runtime_report.TABLES,
    )


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="runtimes",
    description=__doc__,
    cases=cases,
    report=report,
    modes=(*TORCH, *RUNTIMES),
    modes_without_bf16=tuple(mode for mode in (*TORCH, *RUNTIMES) if not mode.startswith("autocast")),
    defaults=Settings(models=("dozen",)),
    quick={"models": ("mobilenetv4_conv_small",), "volumes": (), "rounds": 2, "iterations": 24},
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
