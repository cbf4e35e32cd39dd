"""Does it repeat? This project's protocol against the fixed-iteration one (a fresh process, ten warm-ups, the mean of
fifty iterations), each several times in turn.

Writes benchmark_results.csv (a row per machine, protocol, model and mode: spread over the repetitions, coverage of the
intervals, cost), benchmark_plot.png (every repetition), and states_plot.png (latency against the reference workload)
from the run logs of all machines.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

try:
    from segbench import cli, modes, settings
    from segbench.cases import Case
    from segbench.measure import background_load
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None


@dataclass
class Load:
    background_load: bool = False
    """Measure beside a load that computes and copies memory in bursts; its run log is labelled `background-load`."""


@dataclass
class Settings(Load, settings.Settings):
    def __post_init__(self) -> None:
        if self.background_load:
            self.label = self.label or "background-load"
        self.no_wait = self.no_wait or self.background_load

    def header(self) -> dict[str, object]:
        names = ("samples", "rounds", "budget", "background_load")  # a repetition is a number of rounds
        return super().header() | {name: getattr(self, name) for name in names}


def cases(settings: Settings) -> list[Case]:
    """Every model and mode under this protocol, and under the fixed-iteration one, which sets no allocator."""
    fixed_iteration = settings.cases(protocol="fixed-iteration")
    return [*settings.cases(), *(case for case in fixed_iteration if not modes.find(case.mode).allocator)]


def beside(settings: Settings) -> AbstractContextManager:
    return background_load.running() if settings.background_load else nullcontext()


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="repeatability",
    description=__doc__,
    cases=cases,
    report="benchmarks.repeatability.report",
    modes=("baseline", "baseline+retained", "compile", "compile+retained"),
    defaults=Settings(
        models=("mobilenetv3_small_100", "lcnet_100", "mobilenetv4_conv_small", "resnet18"), repetitions=6
    ),
    quick={"models": ("lcnet_100",), "modes": ("baseline",), "samples": 24, "rounds": 2, "repetitions": 2},
    beside=beside,
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
