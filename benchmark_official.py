"""2D encoders with decoders against the official 3D models, and what a whole CT costs with each.

Writes benchmark_official_results.csv (every measured case, with slices per second by the reference project's rule),
benchmark_official_costs.csv (seconds and multiply-adds per whole CT) and benchmark_official_plot.png beside this file
from the journals of all machines in journals/benchmark_official/.
"""

import dataclasses
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from segbench import cli, decoding, zoo
from segbench.cases import Case
from segbench.zoo import PATCH, RUNS, TILE

MODELS = ("mobileone_s0", "mobilenetv3_small_100", "mobilenetv4_conv_small", "regnetx_002", "resnet18")
VOLUMES = ("stunet_s", "stunet_b", "totalsegmentator", "resenc", "segresnet")
QUICK = {"models": MODELS[1:2], "volumes": VOLUMES[:1], "modes": ("baseline",), "rounds": 2, "iterations": 4}


@dataclass
class Settings(decoding.Settings):
    volumes: tuple[str, ...] = VOLUMES
    """3D models; stunet_l and stunet_h too, where memory allows."""
    cubes: bool = False
    """All 3D models at 128x128x128 too."""
    weights: Path | None = None
    """A released state dict for the one 3D model that --volumes names; --num-classes must be that of its heads."""

    def check(self) -> None:
        super().check()
        for name in self.volumes:
            if name not in zoo.VOLUMES:
                known = ", ".join(zoo.VOLUMES)
                raise cli.Problem(f"unknown 3D model {name!r}{cli.did_you_mean(name, [*zoo.VOLUMES])}; known: {known}")
        if "segresnet" in self.volumes and find_spec("monai") is None:
            raise cli.Problem(
                "segresnet needs MONAI: `uv sync` installs it with the development tools; or leave it out of --volumes"
            )
        if self.weights and len(self.volumes) != 1:
            raise cli.Problem(f"--weights {self.weights} belongs to one model: name it with --volumes")
        if self.weights and not self.weights.is_file():
            raise cli.Problem(f"--weights {self.weights}: no such file")

    def header(self) -> dict[str, object]:
        own = {"weights": self.weights.name if self.weights else ""}
        return super().header() | own | {"monai": version("monai") if find_spec("monai") else "missing"}


def cases(settings: Settings) -> list[Case]:
    found = [
        case for decoder in ("fpn", "unet") for case in settings.cases(decoder=decoder, classes=settings.num_classes)
    ]
    inputs = [(model, PATCH, settings.num_classes) for model in settings.volumes]
    inputs += [(model, TILE, settings.num_classes) for model in settings.volumes if settings.cubes]
    # A whole CT needs the released networks at their own tile size, with as many output channels as they have.
    inputs += [(run.model, TILE, run.classes or settings.num_classes) for run in RUNS if run.model in settings.volumes]
    weights = str(settings.weights.resolve()) if settings.weights else ""
    for model, size, classes in dict.fromkeys(inputs):
        of_model = dataclasses.replace(settings, models=(model,), size=size)
        found += of_model.cases(classes=classes, weights=weights if classes == settings.num_classes else "")
    return found


def report(journals: list, out: Path) -> list[Path]:
    from segbench import costs, plots, tables

    rows, whole = costs.equivalents(journals), costs.whole_cts(journals)
    paths = [out / f"benchmark_official_{name}" for name in ("results.csv", "costs.csv", "plot.png")]
    tables.write_csv(paths[0], rows)
    tables.write_csv(paths[1], whole)
    plots.official(rows, whole, tables.dates(journals), paths[2])
    return paths


def show(journals: list) -> str:
    from segbench import costs, tables

    rows, whole = costs.equivalents(journals), costs.whole_cts(journals)
    digits = {"latency_ms": 0, "eq_s": 2, "gmacs": 1, "peak_gb": 1, "gflop_s": 0}
    measured = tables.markdown(rows[["model", "decoder", "classes", "size", "mode", "status", *digits]], digits)
    digits = {"inferences": 0, "inferences_half": 0, "latency_s": 2, "ct_s": 0, "ct_half_s": 0, "ct_tmac": 1}
    return measured + "\n\n" + tables.markdown(whole[["way", "mode", *digits]], digits)


BENCHMARK = cli.Benchmark(
    Path(__file__).resolve(),
    "benchmark_official",
    __doc__,
    cases,
    report,
    show,
    modes=("baseline", "autocast", "compile+freezing", "autocast+compile+freezing"),
    modes_without_bf16=("baseline", "compile+freezing"),
    defaults=Settings(models=MODELS, rounds=4, iterations=20),
    quick=QUICK,
    subfolder="benchmark_official",
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
