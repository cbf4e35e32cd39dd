"""Where the time goes from an image to its labels: a network stage by stage in eager mode and in OpenVINO, each with
argmax behind it, and in OpenVINO with the fused argmax. One call of every stage in turn; a part is what a stage takes
beyond the one before it.

Writes parts/<machine>.csv, from which tools/render.py draws results/time_to_labels.png.

    uv run benchmarks/labels/parts.py
"""

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import pandas as pd
import tyro

from benchmarks.labels.kernels import CLASSES, HERE, in_turn
from segbench import machine, modes, runtimes, zoo
from segbench.cases import FEATURES, Case
from segbench.modes import BASELINE
from segbench.runtimes import SHORT_SPIN

WAYS = {"argmax": ("encoder", "decoder", "logits", "argmax"), "labels": ("encoder", "decoder", "labels")}


@dataclass
class Settings:
    model: str = zoo.FIVE[0]
    turns: int = 15
    """Calls of every stage, in turn."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = HERE


def stages(case: Case) -> dict[str, Callable[[], object]]:
    """Calls of a network with a decoder, under its mode: the encoder alone, with the decoder up to its last linear
    layer, to the logits, with argmax behind them, and the fused argmax behind the decoder."""
    from segbench import inputs, models

    image, mode = inputs.picture(case), modes.find(case.mode)
    network = models.build(case)
    trunk, end = models.labelled(network, "labels", case.size, case.threads)

    def prepared(stage) -> runtimes.Prepared:
        return runtimes.of_mode(mode).prepare(stage, image, mode, case.threads, machine.cache_folder())

    encoder = prepared(models.build(msgspec.structs.replace(case, decoder=FEATURES, classes=0)))
    cut, whole = prepared(trunk), prepared(network)
    argmax = whole.then(lambda logits: logits.argmax(dim=1))
    calls = {"encoder": encoder, "decoder": cut, "logits": whole, "argmax": argmax, "labels": cut.then(end)}
    return {name: stage.call for name, stage in calls.items()}


def rows(case: Case, turns: int) -> list[dict]:
    """A row per way to labels and part of it: the median of what its stage took beyond the one before, ms."""
    taken, found = in_turn(stages(case), turns), []
    for output, parts in WAYS.items():
        before = np.zeros(turns)
        for part in parts:
            ms = 1e3 * np.median(taken[part] - before)
            found.append({"output": output, "part": part, "ms": ms, "turns": turns})
            before = taken[part]
    names = {"model": case.model, "decoder": case.decoder, "mode": case.mode}
    return [names | row for row in found]


def measure(settings: Settings) -> pd.DataFrame:
    import torch

    from segbench.measure import timing

    here, threads = machine.describe(), machine.usable_cores()
    torch.set_num_threads(threads)
    timing.retain_memory(2000)
    found = []
    for decoder in ("fpn", "unet"):
        for mode in (BASELINE, "openvino", *["openvino-bf16"] * here.native_bf16):
            network = {"model": settings.model, "size": (512, 512), "decoder": decoder, "classes": CLASSES}
            found += rows(Case(**network, mode=mode, threads=threads), settings.turns)
    frame = pd.DataFrame(found)
    frame.insert(0, "machine", here.name)
    frame.insert(1, "cpu", here.label)
    return frame


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ.update(SHORT_SPIN)  # before torch: its threads would spin into what comes in turn
    settings = tyro.cli(Settings, description=__doc__)
    if settings.turns < 3:
        sys.exit("parts.py: --turns are 3 or more")
    if settings.model not in zoo.BY_MODEL:
        sys.exit(f"parts.py: {settings.model} is none of the {len(zoo.BY_MODEL)} encoders")
    path = settings.out / "parts" / f"{machine.describe().name}.csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"parts.py: --out {settings.out} cannot be written to ({error.strerror})")
    measure(settings).to_csv(path, index=False, float_format="%.6g")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
