"""Does it repeat? This project's protocol against the usual one (a fresh process, ten warm-ups, the mean of fifty
iterations), each several times in turn.

Writes benchmark_results.csv (a row per machine, protocol, model and mode: spread over the repetitions, coverage of the
intervals, cost), study_*.csv (what else could have been made of the same samples), benchmark_plot.png, and
states_plot.png (latency against the yardstick) from the journals of all machines.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from segbench import cli, neighbour, settings
from segbench.cases import Case
from segbench.reports import Report


@dataclass
class Settings(settings.Settings):
    stress: bool = False
    """Let a noisy neighbour compute and copy memory in bursts meanwhile; its journal is labelled `stress`."""

    def __post_init__(self) -> None:
        self.label = self.label or "stress" * self.stress
        self.no_wait = self.no_wait or self.stress

    def header(self) -> dict[str, object]:
        own = {key: getattr(self, key) for key in ("iterations", "rounds", "budget", "stress")}
        return super().header() | own  # a repetition is a number of rounds


def cases(settings: Settings) -> list[Case]:
    """Every model and mode under both protocols, the usual one with glibc's allocator as it comes."""
    quiet = settings.cases(protocol="quiet", allocator="pinned")
    usual = settings.cases(protocol="usual", allocator="plain")
    return [*dict.fromkeys(case for pair in zip(quiet, usual, strict=True) for case in pair)]


def report() -> Report:
    import estimator_study
    import repetition_report
    import repetitions

    return Report(
        csvs={
            "benchmark_results.csv": repetitions.protocols,
            **{f"study_{table.__name__}.csv": table for table in estimator_study.TABLES},
        },
        pictures={"benchmark_plot.png": repetition_report.picture, "states_plot.png": repetition_report.states},
        show=repetition_report.terminal,
        pages=repetition_report.TABLES,
    )


def beside(settings: Settings) -> AbstractContextManager:
    return neighbour.running() if settings.stress else nullcontext()


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="repeatability",
    description=__doc__,
    cases=cases,
    report=report,
    modes=("baseline", "compile"),
    defaults=Settings(
        models=("mobilenetv3_small_100", "lcnet_100", "mobilenetv4_conv_small", "resnet18"), repetitions=6
    ),
    quick={"models": ("lcnet_100",), "modes": ("baseline",), "iterations": 24, "rounds": 2, "repetitions": 2},
    beside=beside,
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
