"""Where the time goes from an image to its labels.

A network stage by stage in eager mode and in OpenVINO, each with argmax behind it, and in OpenVINO with the fused
argmax. One call of every stage in turn; a part is what a stage takes beyond the one before it. Writes
parts/<machine>.csv, from which tools/render.py draws results/image_to_labels.png.

    uv run benchmarks/labels/parts.py
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from benchmarks.labels.interleaved import CLASSES, HERE, in_turn, set_up
from segbench import machine, modes, runtimes, zoo
from segbench.cases import FEATURES, Case
from segbench.modes import BASELINES
from segbench.problem import Problem, exit_with
from segbench.settings import default_is, did_you_mean, parse

# The parts of each output, in the order of the work.
PARTS = {"argmax": ("encoder", "decoder", "logits", "argmax"), "labels": ("encoder", "decoder", "labels")}


@dataclass
class Settings:
    model: str = zoo.FIVE[0]
    """Encoder of the zoo."""
    turns: int = 15
    """Calls of every stage, in turn; 3 at least."""
    out: Annotated[Path, default_is("the script's folder")] = HERE
    """Folder for the evidence."""


def stages(case: Case) -> dict[str, Callable[[], object]]:
    """Calls of a network with a decoder, under its mode: the encoder alone, with the decoder up to its last linear
    layer, to the logits, with argmax behind them, and the fused argmax behind the decoder."""
    from segbench import inputs, models

    image, mode = inputs.picture(case), modes.find(case.mode)
    network = models.build(case)
    trunk, to_labels = models.labelled(network, "labels", case.size, case.threads)

    def prepared(stage) -> runtimes.Prepared:
        return runtimes.of_mode(mode).prepare(stage, image, mode, case.threads, machine.cache_folder())

    encoder = prepared(models.build(msgspec.structs.replace(case, decoder=FEATURES, classes=0)))
    decoder, logits = prepared(trunk), prepared(network)
    return {
        "encoder": encoder.call,
        "decoder": decoder.call,
        "logits": logits.call,
        "argmax": logits.then(lambda values: values.argmax(dim=1)).call,
        "labels": decoder.then(to_labels).call,
    }


def rows(case: Case, turns: int) -> list[dict]:
    """A row per output and part: the median of what its stage took beyond the one before, in ms."""
    import numpy as np

    seconds, rows = in_turn(stages(case), turns), []
    network = {"model": case.model, "decoder": case.decoder, "mode": case.mode}
    for output, parts in PARTS.items():
        before = np.zeros(turns)
        for part in parts:
            ms = 1e3 * np.median(seconds[part] - before)
            rows.append(network | {"output": output, "part": part, "ms": ms, "turns": turns})
            before = seconds[part]
    return rows


def check(settings: Settings) -> None:
    """Raises Problem."""
    if settings.turns < 3:
        raise Problem("--turns is less than 3, too few for a median")
    if settings.model not in zoo.BY_MODEL:
        hint = did_you_mean(settings.model, [*zoo.BY_MODEL])
        raise Problem(f"--model {settings.model} is not an encoder of the zoo{hint}")


def main() -> None:
    settings, here, threads = parse(Settings(), __doc__), machine.describe(), machine.usable_cores()
    check(settings)
    from benchmarks.catalogue import evidence_path

    path = evidence_path(settings.out, "parts", here.name)
    set_up(threads)
    import pandas as pd

    common = {"model": settings.model, "size": (512, 512), "classes": CLASSES, "threads": threads}
    names = modes.without_emulation((BASELINES[1], "openvino+nhwc", "openvino-bf16+nhwc"), here.native_bf16)
    cases = [Case(**common, decoder=decoder, mode=mode) for decoder in ("fpn", "unet") for mode in names]
    about = {"machine": here.name, "cpu": here.title}
    measured = [about | row for case in cases for row in rows(case, settings.turns)]
    pd.DataFrame(measured).to_csv(path, index=False, float_format="%.6g")
    print(f"wrote {path}")


if __name__ == "__main__":
    exit_with(main)
