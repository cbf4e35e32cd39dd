"""What the benchmarks of encoders with a decoder share: their flags, their cases, their tables."""

from dataclasses import dataclass
from pathlib import Path

from . import cli
from .cases import Case

# Without native BF16 compile+freezing is the fastest that is worth a try; the others are skipped unless asked for.
MODES = ("baseline", "compile", "autocast+compile", "autocast+compile+freezing")
MODES_WITHOUT_BF16 = ("baseline", "compile", "compile+freezing", "autocast+compile", "autocast+compile+freezing")
# The slowest and the fastest of them.
ENDS = ("baseline", "autocast+compile+freezing")
ENDS_WITHOUT_BF16 = ("baseline", "compile+freezing")


@dataclass
class Settings(cli.Settings):
    num_classes: int = 117
    """Classes that the decoder tells apart; 117 as TotalSegmentator."""

    def check(self) -> None:
        if self.num_classes < 1:
            raise cli.Problem(f"--num-classes {self.num_classes} is not positive")

    def header(self) -> dict[str, object]:
        return super().header() | {"num_classes": self.num_classes}


def cases(settings: Settings, decoders: tuple[str, ...]) -> list[Case]:
    """Every model under every mode: its feature maps alone, so that a decoder's share is known, and each decoder."""
    return [
        case
        for decoder in ("features", *decoders)
        for case in settings.cases(decoder=decoder, classes=settings.num_classes if decoder != "features" else 0)
    ]


def benchmark(script: str, decoder: str, description: str) -> cli.Benchmark:
    """The benchmark of one decoder."""
    path = Path(script).resolve()

    def report(journals: list, out: Path) -> list[Path]:
        from . import plots, tables

        rows = tables.rows(journals)
        tables.write_csv(out / "benchmark_results_all.csv", rows)
        tables.write_csv(out / "benchmark_results.csv", tables.results(rows[rows.decoder == decoder]))
        plots.encoders(rows[rows.decoder == decoder], tables.dates(journals), out / "benchmark_plot.png")
        return [out / name for name in ("benchmark_results_all.csv", "benchmark_results.csv", "benchmark_plot.png")]

    def show(journals: list) -> str:
        from . import tables

        rows = tables.rows(journals)
        return tables.terminal(rows[rows.decoder == decoder])

    return cli.Benchmark(
        path,
        path.parent.name,
        description,
        cases=lambda settings: cases(settings, (decoder,)),
        report=report,
        show=show,
        defaults=Settings(),
        modes=MODES,
        modes_without_bf16=MODES_WITHOUT_BF16,
    )
