"""Does lower precision cost accuracy?

One small encoder with each decoder is trained on a generated task like a CT's. Its Dice on held-out slices is compared
between FP32, BF16 and INT8 in every runtime that offers them. Training takes some minutes per decoder; trained networks
are kept in the cache, so that the same command continues.

Writes images/<machine>.csv (Dice per image, class and mode), and from those of all machines benchmark_results.csv and
benchmark_plot.png.

    uv run benchmarks/precision/benchmark.py
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

try:
    from segbench import machine
    from segbench.modes import BASELINE
    from segbench.problem import Problem, exit_with
    from segbench.settings import default_is, find_models, find_modes, parse
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run {sys.argv[0]}`, which installs what is missing") from None

HERE = Path(__file__).resolve().parent
MODES = ("baseline", "autocast", "onnxruntime", "openvino", "openvino-bf16", "ncnn", "mnn")
MODES += ("onnxruntime-int8", "openvino-int8")


@dataclass
class WhatToCompare:
    model: str = "mobilenetv4_conv_small"
    """timm's name of the encoder."""
    decoders: tuple[Literal["fpn", "unet"], ...] = ("fpn", "unet")
    """Decoders to train it with."""
    modes: tuple[str, ...] = MODES
    """Names of segbench/modes.py; baseline must be among them."""
    steps: int = 400
    """Steps of training, eight slices each."""
    images: int = 64
    """Held-out slices."""
    size: int = 256
    """Side of a slice in pixels, divisible by 32."""
    seed: int = 0
    """Seed of the weights before training."""


@dataclass
class WhereTo:
    out: Annotated[Path, default_is("the script's folder")] = HERE
    """Folder for evidence, CSV and PNG."""
    report: bool = False
    """Make CSV and PNG from the evidence and train nothing."""


@dataclass
class Settings(WhatToCompare, WhereTo):
    pass


def check(settings: Settings) -> Path:
    """Before anything is trained: where the evidence goes. Raises Problem."""
    from benchmarks import catalogue
    from segbench.models.segmenter import DEEPEST

    find_modes(settings.modes)
    if BASELINE not in settings.modes:
        raise Problem(f"--modes without {BASELINE}: differences are from it")
    if not settings.decoders:
        raise Problem("--decoders names no decoder")
    if len(find_models((settings.model,), hint="")) > 1:
        raise Problem(f"--model {settings.model!r} means more than one: name one of them")
    if settings.size % DEEPEST or min(settings.size, settings.steps, settings.images) < 1:
        raise Problem(f"--size must be divisible by {DEEPEST}, --steps and --images positive")
    path = catalogue.evidence_path(settings.out, "images", machine.describe().name)
    check_images(path, settings)
    return path


def check_images(path: Path, settings: Settings) -> None:
    """Raises Problem where evidence of more slices or modes would be replaced by that of fewer."""
    if not path.exists():
        return
    import pandas as pd

    rows = pd.read_csv(path)
    same = rows[(rows.model == settings.model) & rows.decoder.isin(settings.decoders)]
    slices, lost = same.image.nunique(), sorted({*same["mode"]} - {*settings.modes})
    if slices > settings.images or lost:
        what = f"{slices} slices, not {settings.images}" if slices > settings.images else f"modes {', '.join(lost)} too"
        raise Problem(f"{path} has results of {settings.model} with {what}: choose another folder with --out")


def measure(settings: Settings) -> None:
    """Add to this machine's evidence: of the same network with the same decoder it is replaced. Raises Problem."""
    path = check(settings)
    import pandas as pd

    from benchmarks.precision import trial
    from segbench.analysis import tables

    rows = pd.DataFrame(trial.measure(settings))
    if path.exists():
        old = pd.read_csv(path)
        others = (old.model != settings.model) | ~old.decoder.isin(settings.decoders)
        rows = pd.concat([old[others], rows], ignore_index=True)
    tables.write_csv(path, rows)
    print(f"wrote {path}")


def main() -> None:
    warnings.simplefilter("ignore")  # of the libraries that convert
    settings = parse(Settings(), __doc__)
    if not settings.report:
        measure(settings)
    from benchmarks.precision import report

    if not (paths := report.write(settings.out, settings.out)):
        raise Problem(f"{settings.out / 'images'} holds no evidence; run without --report first")
    for path in paths:
        print(f"wrote {path}")
    print(report.terminal(settings.out))


if __name__ == "__main__":
    exit_with(main, kept="networks whose training has ended are kept")
