"""The effect of the batch size: throughput and latency at batch 1, 2, 4, 8 and 16, encoders alone and with decoders.

Writes batch_size_comparison.csv (everything) and batch_size_comparison.png (throughput over batch 1, and the batch at
which it is within 5 % of its best) beside this file from the journals of all machines in journals/.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from segbench import cli, decoding


@dataclass
class Settings(decoding.Settings):
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Images per inference, one after the other; what would not fit into memory is skipped."""

    def check(self) -> None:
        super().check()
        if self.batch_size != 1:
            raise cli.Problem(f"--batch-size {self.batch_size} has no meaning here: --batch-sizes names them all")
        if min(self.batch_sizes, default=0) < 1:
            named = " ".join(map(str, self.batch_sizes))
            raise cli.Problem(f"--batch-sizes {named}: one or more, all positive")


def cases(settings: Settings) -> list:
    return [
        case
        for size in settings.batch_sizes
        for case in decoding.cases(dataclasses.replace(settings, batch_size=size), ("fpn", "unet"))
    ]


def report(journals: list, out: Path) -> list[Path]:
    from segbench import plots, tables

    rows = tables.batches(journals)
    tables.write_csv(out / "batch_size_comparison.csv", rows)
    plots.batches(rows, tables.dates(journals), out / "batch_size_comparison.png")
    return [out / "batch_size_comparison.csv", out / "batch_size_comparison.png"]


def show(journals: list) -> str:
    from segbench import tables

    rows = tables.batches(journals)
    digits = {"throughput_img_s": 2, "latency_ms": 1, "over_batch_1": 2, "memory_mb_img": 1, "gflop_s": 0}
    return tables.markdown(rows[["model", "decoder", "mode", "batch_size", *digits, "enough", "status"]], digits)


BENCHMARK = cli.Benchmark(
    Path(__file__).resolve(),
    "batch_size_comparison",
    __doc__,
    cases,
    report,
    show,
    modes=decoding.ENDS,
    modes_without_bf16=decoding.ENDS_WITHOUT_BF16,
    defaults=Settings(models=("mobileone_s0", "regnetx_002", "resnet18"), rounds=3, iterations=30),
    subfolder="batch_size_comparison",
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
