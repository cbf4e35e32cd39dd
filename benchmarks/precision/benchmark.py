"""Does lower precision cost accuracy? One small encoder with each decoder is trained on a generated task like a CT's,
and its Dice on held-out slices compared between FP32, BF16 and INT8 in every runtime that offers them.

Writes images/<machine>.csv (the evidence: Dice per image, class and mode), and from those of all machines
benchmark_results.csv and benchmark_plot.png. Training takes some minutes per decoder; what was trained is kept in the
cache, so that the same command goes on.

    uv run benchmarks/precision/benchmark.py
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

try:
    import tyro

    from segbench import machine
    from segbench.modes import BASELINE
    from segbench.problem import Problem
    from segbench.settings import find_models, find_modes
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `uv run benchmark.py`, which installs what is missing") from None

HERE = Path(__file__).resolve().parent
MODES = ("baseline", "autocast", "onnxruntime", "openvino", "openvino-bf16", "ncnn", "mnn")
MODES += ("onnxruntime-int8", "openvino-int8")


@dataclass
class Settings:
    model: str = "mobilenetv4_conv_small"
    """timm's name of the encoder."""
    decoders: tuple[str, ...] = ("fpn", "unet")
    modes: tuple[str, ...] = MODES
    steps: int = 400
    """Of training, eight slices each."""
    images: int = 64
    """Held-out slices."""
    size: int = 256
    """Side of a slice in pixels, divisible by 32."""
    seed: int = 0
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = HERE
    report: bool = False
    """Tables and picture from the evidence that is there, no training."""


def check(settings: Settings) -> None:
    """Before anything is trained. Raises Problem."""
    from segbench.models import segmenter

    find_modes(settings.modes)
    if BASELINE not in settings.modes:
        raise Problem(f"--modes without {BASELINE}: differences are from it")
    if unknown := [name for name in settings.decoders if name not in segmenter.DECODERS]:
        raise Problem(f"unknown decoder {unknown[0]!r}: {' or '.join(segmenter.DECODERS)}")
    if len(find_models((settings.model,))) > 1:
        raise Problem(f"--model {settings.model!r} means more than one: name one of them")
    if settings.size % segmenter.DEEPEST or min(settings.size, settings.steps, settings.images) < 1:
        raise Problem(f"--size must be divisible by {segmenter.DEEPEST}, --steps and --images positive")
    try:
        (settings.out / "images").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem(f"--out {settings.out} cannot be written to ({error.strerror})") from None


def main() -> int:
    warnings.simplefilter("ignore")  # of libraries that are imported, and of what converts
    settings = tyro.cli(Settings, description=__doc__)
    import pandas as pd

    from benchmarks.precision import report

    if not settings.report:
        check(settings)
        from benchmarks.precision import trial

        evidence = settings.out / "images" / f"{machine.describe().name}.csv"
        pd.DataFrame(trial.measure(settings)).to_csv(evidence, index=False)
        print(f"wrote {evidence}")
    elif report.evidence(settings.out).empty:
        raise Problem(f"{settings.out / 'images'} holds no evidence; run without --report first")
    for path in report.write(settings.out, settings.out):
        print(f"wrote {path}")
    print(report.terminal(settings.out))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"benchmark.py: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nbenchmark.py: stopped; what was trained to the end is kept", file=sys.stderr)
        sys.exit(130)
