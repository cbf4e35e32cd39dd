"""The effect of the batch size: throughput and latency at batch 1, 2, 4, 8 and 16, encoders alone and with decoders.

Writes batch_size_comparison.csv (everything) and batch_size_comparison.png (throughput over batch 1, and the batch at
which it is within 5 % of its best) beside this file from the run logs of all machines in run_logs/.
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

try:
    from benchmarks import decoders
    from segbench import cli
    from segbench.cases import FEATURES
    from segbench.problem import Problem
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None


@dataclass
class Batches:
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Images per inference, one after the other; what would not fit into memory is skipped."""


@dataclass
class Settings(Batches, decoders.DecoderSettings):
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


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="batch_size_comparison",
    description=__doc__,
    cases=cases,
    report="benchmarks.batch_sizes.report",
    modes=(*decoders.ENDS, "openvino-bf16"),
    defaults=Settings(models=("mobileone_s0", "regnetx_002", "resnet18"), rounds=4, samples=48),
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
