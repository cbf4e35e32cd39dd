"""2D encoders with decoders against the official 3D models, and what a whole CT costs with each.

Writes benchmark_official_results.csv (every measured case, with slices per second by the reference project's rule),
benchmark_official_costs.csv (seconds and multiply-adds per whole CT) and benchmark_official_plot.png beside this file
from the run logs of all machines in run_logs/benchmark_official/.
"""

import dataclasses
import hashlib
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

try:
    from benchmarks import decoders
    from segbench import cli
    from segbench.cases import Case
    from segbench.problem import Problem
    from segbench.settings import ask
    from segbench.zoo import PATCH, RELEASED, TILE
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

MODELS = ("mobileone_s0", "mobilenetv3_small_100", "mobilenetv4_conv_small", "regnetx_002", "resnet18")
VOLUMES = ("stunet_s", "stunet_b", "totalsegmentator", "totalsegmentator_small", "resenc", "segresnet")
LOAD = """
import sys
from segbench.models import states, volume
try:
    states.load(volume.assemble(sys.argv[2], int(sys.argv[3])), sys.argv[1])
except ValueError as problem:
    sys.exit(str(problem))
"""


@dataclass
class Volumes:
    volumes: tuple[str, ...] = VOLUMES
    """3D models; stunet_l and stunet_h too, where memory allows."""
    cubes: bool = False
    """All 3D models at 128x128x128 too."""
    weights: Path | None = None
    """A released state dict for the one 3D model that --volumes names; --num-classes must be that of its heads."""


@dataclass
class Settings(Volumes, decoders.DecoderSettings):
    def check(self) -> None:
        super().check()
        decoders.check_volumes(self.volumes)
        if "segresnet" in self.volumes and find_spec("monai") is None:
            raise Problem(
                "segresnet needs MONAI: `uv sync` installs it with the development tools; or leave it out of --volumes"
            )
        if self.weights and len(self.volumes) != 1:
            raise Problem(f"--weights {self.weights} belongs to one model: name it with --volumes")
        if self.weights and not self.weights.is_file():
            raise Problem(f"--weights {self.weights}: no such file")
        if self.weights:
            ask("--weights", LOAD, str(self.weights), self.volumes[0], str(self.num_classes))

    def files(self) -> dict[str, str]:
        return {digest(self.weights): str(self.weights.resolve())} if self.weights else {}

    def header(self) -> dict[str, object]:
        own = {"weights": self.weights.name if self.weights else ""}
        return super().header() | own | {"monai": version("monai") if find_spec("monai") else "missing"}


@cache
def digest(path: Path) -> str:
    """What a case calls a file: its name and the beginning of its SHA-256."""
    with path.open("rb") as file:
        return f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"


def cases(settings: Settings) -> list[Case]:
    """Encoders with both decoders on slices; the 3D models on a patch, and as released on the tiles of a whole CT."""
    classes = settings.num_classes
    flat = [case for decoder in ("fpn", "unet") for case in settings.cases(decoder=decoder, classes=classes)]
    inputs = [(model, PATCH, classes) for model in settings.volumes]
    inputs += [(model, TILE, classes) for model in settings.volumes if settings.cubes]
    # A whole CT needs the released networks at their own tile size, with as many output channels as they have.
    inputs += [(run.model, TILE, run.classes or classes) for run in RELEASED if run.model in settings.volumes]
    weights = digest(settings.weights) if settings.weights else ""
    deep = []
    for model, size, outputs in dict.fromkeys(inputs):
        of_model = dataclasses.replace(settings, models=(model,), size=size)
        deep += of_model.cases(classes=outputs, weights=weights if outputs == classes else "")
    return flat + deep


BENCHMARK = cli.Benchmark(
    script=Path(__file__).resolve(),
    name="benchmark_official",
    description=__doc__,
    cases=cases,
    report="benchmarks.official.report",
    modes=("baseline", "autocast", "compile+freezing", "autocast+compile+freezing"),
    defaults=Settings(models=MODELS, rounds=4, samples=48, budget=10),
    quick={"models": MODELS[1:2], "volumes": VOLUMES[:1], "modes": ("baseline",), "rounds": 2, "samples": 4},
)

if __name__ == "__main__":
    cli.main(BENCHMARK)
