"""This project's decoders against those of segmentation-models-pytorch, same encoder, same modes, same rounds.

Writes benchmark_results.csv (a row per machine, model, decoder and mode: both side by side, ours over theirs with its
interval) and benchmark_plot.png from the journals of all machines. It needs the development dependencies.
"""

from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from segbench import cli, decoding

LIBRARY = "segmentation-models-pytorch"
MODELS = (
    "mobileone_s0",
    "mobilenetv4_conv_small",
    "mobilenetv3_small_100",
    "regnetx_002",
    "resnet18",
    "efficientnet_b0",
)
DIGITS = {"img_s": 2, "smp_img_s": 2, "over_peer": 2, "over_peer_low": 2, "over_peer_high": 2, "params_m": 2}
DIGITS |= {"smp_params_m": 2, "gmacs": 2, "smp_gmacs": 2, "gflop_s": 0, "smp_gflop_s": 0}


@dataclass
class Settings(decoding.Settings):
    def check(self) -> None:
        super().check()
        if find_spec("segmentation_models_pytorch") is None:
            raise cli.Problem(f"{LIBRARY} is missing: `uv sync` installs it with the development tools")

    def header(self) -> dict[str, object]:
        return super().header() | {LIBRARY: version(LIBRARY)}


def cases(settings: Settings) -> list:
    wanted = ("fpn", "smp-fpn", "unet", "smp-unet")
    return [case for case in decoding.cases(settings, wanted) if case.decoder in wanted]


def report(journals: list, out: Path) -> list[Path]:
    from segbench import plots, tables

    table = tables.peers(journals)
    tables.write_csv(out / "benchmark_results.csv", table)
    plots.peers(table, tables.dates(journals), out / "benchmark_plot.png")
    return [out / "benchmark_results.csv", out / "benchmark_plot.png"]


def show(journals: list) -> str:
    from segbench import tables

    return tables.markdown(tables.peers(journals)[["model", "decoder", "mode", *DIGITS]], DIGITS)


BENCHMARK = cli.Benchmark(
    Path(__file__).resolve(),
    "decoder_peers",
    __doc__,
    cases,
    report,
    show,
    modes=("baseline", "compile"),
    defaults=Settings(models=MODELS),
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
