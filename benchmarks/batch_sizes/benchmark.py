"""The effect of the batch size: throughput and latency at batch 1, 2, 4, 8 and 16, encoders alone and with decoders.

Writes batch_size_comparison.csv (everything) and batch_size_comparison.png (throughput over batch 1, and the batch at
which it is within 5 % of its best) beside this file from the run logs of all machines in run_logs/.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from benchmarks import decoders
from segbench import cli
from segbench.analysis.reports import Report
from segbench.cases import FEATURES
from segbench.settings import Problem


@dataclass
class Settings(decoders.DecoderSettings):
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Images per inference, one after the other; what would not fit into memory is skipped."""

    def check(self) -> None:
        super().check()
        if self.batch_size != 1:
            raise Problem(f"--batch-size {self.batch_size} has no meaning here: --batch-sizes names them all")
        if min(self.batch_sizes, default=0) < 1:
            raise Problem(f"--batch-sizes {' '.join(map(str, self.batch_sizes))}: one or more, all positive")


def cases(settings: Settings) -> list:
    return [
        case
        for size in settings.batch_sizes
        for case in decoders.cases(dataclasses.replace(settings, batch_size=size), (FEATURES, "fpn", "unet"))
    ]


def report() -> Report:
    from benchmarks.batch_sizes import report

    return Report(
        csvs={"batch_size_comparison.csv": report.batches},
        pictures={"batch_size_comparison.png": report.picture},
        show=report.terminal,
        pages=(report.by_batch,),
    )


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="batch_size_comparison",
    description=__doc__,
    cases=cases,
    report=report,
    modes=(*decoders.ENDS, "openvino-bf16"),
    modes_without_bf16=(*decoders.ENDS_WITHOUT_BF16, "openvino"),
    defaults=Settings(models=("mobileone_s0", "regnetx_002", "resnet18"), rounds=4, samples=48),
    subfolder="batch_size_comparison",
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
