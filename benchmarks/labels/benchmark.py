"""From image to a map of labels: argmax behind the network, argmax in its graph, or the fused argmax, which never writes
the logits of every pixel. For a dozen encoders with both decoders, in FP32, BF16 and INT8, and beside them the decoders
of segmentation-models-pytorch with argmax, as people use them.

Writes benchmark_results_all.csv (everything), benchmark_results.csv (per network and precision the fused argmax against
the fastest of all other ways) and benchmark_plot.png from the run logs of all machines.
"""

import dataclasses
from pathlib import Path

try:
    from benchmarks.decoders import DecoderSettings
    from segbench import cli
    from segbench.cases import Case
    from segbench.modes import BASELINE
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run benchmark.py`, which installs what is missing") from None

WAYS = ("argmax", "graph", "labels")
MODES = (BASELINE, "autocast+compile+freezing", "onnxruntime", "openvino", "openvino-bf16", "openvino-int8")
PEERS = {"smp-fpn": (BASELINE, "openvino"), "smp-unet": (BASELINE, "openvino")}  # each with argmax behind it


def cases(settings: DecoderSettings) -> list[Case]:
    chosen = []
    for decoder in ("fpn", "unet"):
        for way in WAYS:
            chosen += settings.cases(decoder=decoder, classes=settings.num_classes, output=way)
    for decoder, wanted in PEERS.items():
        of_peer = dataclasses.replace(settings, modes=tuple(mode for mode in settings.modes if mode in wanted))
        chosen += of_peer.cases(decoder=decoder, classes=settings.num_classes, output="argmax")
    return [case for case in chosen if (case.mode, case.output) != (BASELINE, "graph")]  # eager mode has no graph


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="labels",
    description=__doc__,
    cases=cases,
    report="benchmarks.labels.report",
    modes=MODES,
    defaults=DecoderSettings(models=("twelve",)),
    quick={"models": ("mobileone_s0",), "rounds": 2, "samples": 24},
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
