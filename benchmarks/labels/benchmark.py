"""From an image to a map of labels: argmax, argmax in the graph, fused argmax.

argmax follows the network, is part of its graph, or is fused with the last linear layer so that the logits of every
pixel are never written. For twelve encoders with both decoders, in FP32, BF16 and INT8, and beside them the decoders of
segmentation-models-pytorch with argmax behind them.

Writes, from the run logs of all machines:

  benchmark_results_all.csv  every row
  benchmark_results.csv      the fused argmax against the fastest other way
  benchmark_plot.png         the same as a picture
"""

import dataclasses
import sys
from pathlib import Path

try:
    from benchmarks.decoders import DecoderSettings
    from segbench import cli
    from segbench.cases import Case
    from segbench.modes import BASELINE
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

# The maps that the kernels read never leave the process: with their channels innermost, as OpenVINO computes them.
OPENVINO = ("openvino+nhwc", "openvino-bf16+nhwc", "openvino-int8+nhwc")
MODES = (BASELINE, "autocast+compile+freezing", "onnxruntime", *OPENVINO)
PEER_MODES = (BASELINE, "openvino+nhwc")  # of segmentation-models-pytorch's decoders


def cases(settings: DecoderSettings) -> list[Case]:
    behind = {"classes": settings.num_classes}
    cases = []
    for decoder in ("fpn", "unet"):
        for output in ("argmax", "graph", "labels"):
            cases += settings.cases(decoder=decoder, output=output, **behind)
    peers = dataclasses.replace(settings, modes=tuple(mode for mode in settings.modes if mode in PEER_MODES))
    for decoder in ("smp-fpn", "smp-unet"):
        cases += peers.cases(decoder=decoder, output="argmax", **behind)
    return [case for case in cases if (case.mode, case.output) != (BASELINE, "graph")]  # eager mode has no graph


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
