"""Does it repeat? This project's protocol against the usual one (a fresh process, ten warm-ups, the mean of fifty
iterations), each several times in turn.

Writes benchmark_results.csv (a row per machine, protocol, model and mode: spread over the repetitions, coverage of the
intervals, cost), benchmark_plot.png, and states_plot.png (latency against the yardstick) from all machines' journals.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from segbench import cli, stress
from segbench.cases import Case


@dataclass
class Settings(cli.Settings):
    stress: bool = False
    """Let a noisy neighbour compute and copy memory in bursts meanwhile; its journal is labelled `stress`."""

    def __post_init__(self) -> None:
        self.label = self.label or "stress" * self.stress

    def header(self) -> dict[str, object]:
        own = {key: getattr(self, key) for key in ("iterations", "rounds", "budget", "stress")}
        return super().header() | own  # a repetition is a number of rounds


def cases(settings: Settings) -> list[Case]:
    """Every model and mode under both protocols, the usual one with glibc's allocator as it comes."""
    quiet = settings.cases(protocol="quiet", allocator="pinned")
    usual = settings.cases(protocol="usual", allocator="plain")
    return [*dict.fromkeys(case for pair in zip(quiet, usual, strict=True) for case in pair)]


def report(journals: list, out: Path) -> list[Path]:
    from segbench import plots, repeats, tables

    rows = repeats.protocols(journals)
    if rows.empty:
        return []  # no repetition is complete yet
    tables.write_csv(out / "benchmark_results.csv", rows)
    plots.repetitions(rows, repeats.repetitions(journals), tables.dates(journals), out / "benchmark_plot.png")
    plots.states(repeats.samples(journals), out / "states_plot.png")
    return [out / "benchmark_results.csv", out / "benchmark_plot.png", out / "states_plot.png"]


def show(journals: list) -> str:
    from segbench import repeats, tables

    rows = repeats.protocols(journals)
    return "no repetition is complete yet" if rows.empty else tables.markdown(rows, repeats.DIGITS)


def beside(settings: Settings) -> AbstractContextManager:
    return stress.neighbour() if settings.stress else nullcontext()


BENCHMARK = cli.Benchmark(
    Path(__file__).resolve(),
    "repeatability",
    __doc__,
    cases,
    report,
    show,
    modes=("baseline", "compile"),
    defaults=Settings(
        models=("mobilenetv3_small_100", "lcnet_100", "mobilenetv4_conv_small", "resnet18"), budget=4.5, repetitions=6
    ),
    quick={"models": ("lcnet_100",), "modes": ("baseline",), "iterations": 10, "rounds": 2, "repetitions": 2},
    beside=beside,
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
