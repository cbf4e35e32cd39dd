"""Encoder alone, with Semantic FPN and with UNet, next to each other in the same rounds: what does which decoder cost?

Writes combined_benchmark_results.csv (a row per machine, model and mode: all three side by side, FPN over UNet with its
interval) and combined_benchmark_plot.png beside this file from the journals of all machines in journals/.
"""

from pathlib import Path

from segbench import cli, decoding

DIGITS = {"features_img_s": 2, "fpn_img_s": 2, "unet_img_s": 2, "fpn_over_unet": 2}


def cases(settings: decoding.Settings) -> list:
    return decoding.cases(settings, ("fpn", "unet"))


def report(journals: list, out: Path) -> list[Path]:
    from segbench import plots, tables

    table = tables.decoders(journals)
    tables.write_csv(out / "combined_benchmark_results.csv", table)
    plots.decoders(table, tables.dates(journals), out / "combined_benchmark_plot.png")
    return [out / "combined_benchmark_results.csv", out / "combined_benchmark_plot.png"]


def show(journals: list) -> str:
    from segbench import tables

    return tables.markdown(tables.decoders(journals)[["model", "mode", *DIGITS]], DIGITS)


BENCHMARK = cli.Benchmark(
    Path(__file__).resolve(),
    "combined_benchmark",
    __doc__,
    cases,
    report,
    show,
    modes=decoding.ENDS,
    modes_without_bf16=decoding.ENDS_WITHOUT_BF16,
    defaults=decoding.Settings(models=("dozen",)),
    subfolder="combined_benchmark",
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
