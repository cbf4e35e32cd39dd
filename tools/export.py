"""Write the artefact that was measured, to take home.

That is model.onnx, or model.xml and model.bin, with a card that describes it, run.py, which runs it, and
requirements.txt, which says what that needs.

    uv run tools/export.py resnet18 --decoder unet --out ~/resnet18-unet
    uv run tools/export.py resnet18 --decoder unet --weights trained.pt --out ct
    uv run tools/export.py resnet18 --decoder unet --output labels --out labels
    uv run tools/export.py --network mypackage.models:segmenter --out mine
    python ~/resnet18-unet/run.py

--weights takes a state dict as training leaves it: that of segbench.models.segmenter.assemble(...), or without a
decoder that of timm's model. Before the artefact counts as written, run.py runs it in a process of its own and the
result is compared with torch's.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tyro

from benchmarks.official.benchmark import digest
from segbench import custom_network, machine, modes, runtimes, settings, zoo
from segbench.cases import Case, sides
from segbench.measure import errors
from segbench.problem import Problem, exit_with

FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml"}
VALUES = 100_000  # of the output that the relative error is over: check.npz stays below a megabyte
MOST_LABELS = 2**15  # int16, see segbench/kernels/labels.py
LAYOUTS = {2: "(B, C)", 3: "(B, N, C)", 4: "(B, C, H, W)", 5: "(B, C, D, H, W)"}
NHWC_LAYOUTS = LAYOUTS | {4: "(B, H, W, C)"}


@dataclass
class WhatToExport:
    model: Annotated[str, tyro.conf.Positional, settings.default_is("none")] = ""
    """An encoder of the zoo or of timm, or a 3D network."""
    network: Annotated[str, settings.default_is("none")] = ""
    """A network of your own instead: package.module:function, which returns an nn.Module."""
    decoder: Annotated[Literal["", "fpn", "unet"], settings.default_is("none")] = ""
    """Behind the encoder; without one it keeps its classifier."""
    output: Literal["logits", "labels"] = "logits"
    """logits; or labels: the network up to its last linear layer, with the kernel that makes a label map of that."""
    size: Annotated[tuple[int, ...], tyro.conf.arg(metavar="H W | D H W")] = (512, 512)
    """Height and width of the input, of a 3D network depth before them; fixed in the artefact."""
    num_classes: Annotated[int | None, settings.default_is("117")] = None
    """Classes of the decoder or of the 3D network."""
    in_chans: int = 3
    """Channels of the input."""


@dataclass
class Weights:
    weights: Annotated[Path | None, settings.default_is("random and calibrated, for measuring alone")] = None
    """File with a state dict."""
    pretrained: bool = False
    """Use timm's weights for the encoder, downloaded once."""
    seed: int = 0
    """Seed of random weights."""


@dataclass
class Artefact:
    runtime: Literal["openvino", "onnxruntime"] = "openvino"
    """What runs it."""
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    """What it computes in."""
    nhwc: bool = False
    """Outputs of images with their channels last, (B, H, W, C), which OpenVINO writes faster; always with --output
    labels."""
    threads: Annotated[int | None, settings.default_is("all physical cores")] = None
    """Threads that run.py uses."""
    out: Annotated[Path | None, settings.default_is("none, must be given")] = None
    """A folder that does not exist yet."""


@dataclass
class Settings(WhatToExport, Weights, Artefact):
    pass


def case_of(given: Settings) -> tuple[Case, str]:
    """The case to export, and where its weights or its module lie. Raises Problem."""
    mode = mode_of(given)
    common = {"mode": mode.name, "size": tuple(given.size), "in_chans": given.in_chans, "seed": given.seed}
    common |= {"threads": machine.usable_cores() if given.threads is None else given.threads}
    common |= {"pretrained": given.pretrained, "output": given.output}
    if given.network:
        case, source = Case(model=given.network, **common), str(Path.cwd())
        identity, classes = custom_network.describe(case, source)
        case = msgspec.structs.replace(case, classes=classes, weights=identity)
    else:
        is_volume = given.model in zoo.VOLUMES
        models = [given.model] if is_volume else settings.find_models((given.model,), hint="")
        if len(models) > 1:
            raise Problem(f"{given.model!r} means {len(models)} models: name one of them")
        (model,), classes = models, 0
        if given.decoder or is_volume:
            classes = 117 if given.num_classes is None else given.num_classes
        source, weights = (str(given.weights), digest(given.weights)) if given.weights else ("", "")
        case = Case(model=model, decoder=given.decoder, classes=classes, weights=weights, **common)
    if reason := runtimes.missing(mode, case, machine.describe()):
        raise Problem(reason)
    return case, source


def mode_of(given: Settings) -> modes.Mode:
    """The mode of a runtime and a precision. Raises Problem for what cannot be exported."""
    if given.out is None:
        raise Problem("--out names no folder")
    if given.out.expanduser().exists():
        raise Problem(f"--out {given.out} exists already: choose another folder")
    if bool(given.model) == bool(given.network):
        raise Problem("name a model, or --network package.module:function")
    for flag in ("decoder", "weights", "pretrained", "num_classes"):
        if given.network and getattr(given, flag) not in ("", None, False):
            raise Problem(f"--{flag.replace('_', '-')} is not for --network: your function returns the whole network")
    if "," in given.model:
        raise Problem(f"{given.model!r}: name one model")
    if min(1 if given.num_classes is None else given.num_classes, given.in_chans) < 1:
        raise Problem("--num-classes and --in-chans must be positive")
    if given.output == "labels" and (given.num_classes or 0) > MOST_LABELS:
        raise Problem(f"--output labels is for up to {MOST_LABELS:,} classes")
    if given.weights and not given.weights.is_file():
        raise Problem(f"--weights {given.weights}: no such file")
    if given.output == "labels" and not given.decoder:
        raise Problem("--output labels is for --decoder fpn or unet: only those have a fused argmax")
    dimensions = (2, 3) if given.network else (2 + (given.model in zoo.VOLUMES),)
    if len(given.size) not in dimensions or min(given.size) < 1:
        raise Problem(f"--size {' '.join(map(str, given.size))}: height and width, of a 3D model depth before them")
    if given.threads is not None and given.threads < 1:
        raise Problem(f"--threads {given.threads} is not positive")
    for mode in modes.BASES:
        if (mode.runtime, mode.precision) == (given.runtime, given.precision):
            return modes.MODES[f"{mode.name}+{modes.NHWC}"] if given.nhwc or given.output == "labels" else mode
    raise Problem(f"--runtime {given.runtime} has no --precision {given.precision} here")


def write(case: Case, source: str, draft: Path) -> dict:
    """Write everything but the card into an empty folder; returns the card without the check's result."""
    import torch

    from segbench import inputs, models
    from segbench.measure import check
    from segbench.runtimes import conversion

    torch.set_num_threads(case.threads)
    network, image, mode = models.build(case, source), inputs.picture(case), modes.MODES[case.mode]
    runtime = runtimes.of_mode(mode)
    exported, _ = models.labelled(network, case.output, case.size, case.threads)
    prepared = runtime.prepare(exported, image, mode, case.threads, machine.cache_folder())
    for path in prepared.folder.iterdir():
        shutil.copyfile(path, draft / path.name)  # without the cache's permissions
    shutil.copyfile(Path(__file__).parent / "artefact" / "run.py", draft / "run.py")
    outputs = write_check(network, exported, image, case, draft)
    if case.own and (reason := check.on_another_input(exported, image, prepared, case.mode)):
        raise Problem(f"on another input: {reason} against torch; nothing is written")
    versions = runtime.versions() | machine.installed(("timm", "numpy", "numba"))
    needed = [mode.runtime, "numpy"] + ["numba"] * (case.output == "labels")
    (draft / "requirements.txt").write_text("".join(f"{name}=={versions[name]}\n" for name in needed))
    layouts = NHWC_LAYOUTS if mode.options.get(modes.NHWC) else LAYOUTS
    return {
        "network": case.network,
        "runtime": mode.runtime,
        "precision": mode.precision,
        "file": FILES[mode.runtime],
        "threads": case.threads,
        "input": {
            "name": conversion.INPUT,
            "shape": list(image.shape),
            "layout": LAYOUTS[image.dim()],
            "dtype": "float32",
            "normalisation": normalisation(case),
        },
        "outputs": [
            {"shape_in_torch": list(output.shape), "layout": layouts.get(output.dim(), f"{output.dim()} dimensions")}
            | {"dtype": str(output.dtype).removeprefix("torch.")}
            for output in outputs
        ],
        "classes": case.classes or None,
        "labels": labels_of(outputs[0], case),
        "fused_argmax": write_kernels(network, draft) if case.output == "labels" else None,
        "opset": conversion.OPSET if mode.runtime == "onnxruntime" else None,
        "versions": versions,
        "weights": {"source": weights_source(case), "digest": conversion.fingerprint(network, image, {})},
        "ran": prepared.ran(),
        "measured": measured(case),
        "written": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def labels_of(first, case: Case) -> str:
    """How run.py makes labels (B, ...) of the first output: `fused argmax`, `argmax` over the classes, `as it is`,
    `above 0` of a logit or `above 0.5` of a probability; or `none: ` and why."""
    shape, lengths = tuple(first.shape), tuple(case.size)
    if case.output == "labels":
        return "fused argmax"
    if shape[-len(lengths) :] != lengths or len(shape) not in (len(lengths) + 1, len(lengths) + 2):
        return f"none: the first output is {shape}, no map of the image's size {sides(case.size)}"
    if not first.is_floating_point():
        one_map = len(shape) == len(lengths) + 1 or shape[1] == 1
        return "as it is" if one_map else f"none: the first output is whole numbers of {shape}, not one map"
    if len(shape) == len(lengths) + 2 and shape[1] > 1:
        return "argmax"
    return "above 0.5" if float(first.min()) >= 0 and float(first.max()) <= 1 else "above 0"


def write_check(network, exported, image, case: Case, draft: Path) -> tuple:
    """Write check.npz, by which run.py compares: the input, values of each of torch's outputs, and labels. Returns
    torch's outputs. Raises Problem where these differ from call to call."""
    import numpy as np
    import torch

    from segbench.measure import check
    from segbench.modes import BASELINE

    with torch.inference_mode():
        outputs, again = exported(image.clone()), exported(image.clone())
        if unsteady := check.difference(again, outputs, BASELINE):
            raise Problem(f"the network differs from call to call: {unsteady} on the same input; nothing is written")
        expected = {"labels": network(image)[0].argmax(1).numpy().astype(np.int16)} if case.output == "labels" else {}
    for number, output in enumerate(outputs):
        values = output.contiguous().reshape(-1).numpy()
        places = np.sort(np.random.default_rng(0).choice(values.size, min(VALUES, values.size), replace=False))
        expected |= {f"places{number}": places, f"expected{number}": values[places]}
    np.savez_compressed(draft / "check.npz", image=image.numpy(), **expected)
    return outputs


def write_kernels(network, draft: Path) -> dict:
    """Write what run.py makes labels with: the kernels, and for UNet its last weights. Returns the card's entry."""
    import numpy as np

    from segbench.kernels import labels
    from segbench.models.fpn import STRIDE, SemanticFPN
    from segbench.models.unet import folded

    shutil.copyfile(labels.__file__, draft / "labels.py")
    if isinstance(network.decoder, SemanticFPN):
        return {"kernel": "upsample_labels", "factor": STRIDE}
    weight, bias = folded(network.decoder.last, network.decoder.head)
    np.savez(draft / "fused_argmax.npz", weight=weight.numpy(), bias=bias.numpy())
    return {"kernel": "head_labels", "weights": "fused_argmax.npz"}


def normalisation(case: Case) -> dict | str:
    """Of the check's input."""
    from segbench import inputs

    if case.own:
        return "as your network was trained; the check's input is that of the benchmark"
    if len(case.size) == 3:
        return "as nnU-Net does a CT: clipped to the 0.5 and 99.5 % quantiles of the foreground, then z-scored"
    return {"scale": "pixel / 255", "mean": inputs.MEAN, "std": inputs.STD}


def weights_source(case: Case) -> str:
    if case.weights and not case.own:
        return case.weights.split(":")[0]
    if case.own:
        return "of the function that returns the network"
    return "timm's" if case.pretrained else "random, calibrated: for measuring alone"


def measured(case: Case) -> list[dict]:
    """Throughput of this network, mode and size in the run logs, with any weights: one entry per machine and benchmark,
    in images per second."""
    from benchmarks import catalogue

    frame = catalogue.rows(model=case.model)
    if frame.empty:
        return []
    classes = case.classes or float("nan")
    same = (frame.decoder == case.decoder) & (frame["mode"] == case.mode) & (frame["size"] == sides(case.size))
    same &= (frame.model == case.model) & (frame.in_chans == case.channels) & (frame.batch_size == 1)
    same &= (frame.classes == classes) | (frame.classes.isna() & (classes != classes))
    same &= (frame.status == "ok") & (frame.output == case.output)
    return [
        {"machine": row.machine, "cpu": row.cpu, "threads": row.threads, "benchmark": row.benchmark}
        | {"img_s": round(row.throughput_img_s, 2)}
        | {"interval_95": [round(row.throughput_low, 2), round(row.throughput_high, 2)]}
        for row in frame[same].itertuples()
    ]


def run_check(draft: Path) -> dict:
    """Run run.py in a process of its own: the relative error, or the share of equal labels. Raises Problem."""
    clean = os.environ | {"NUMBA_CACHE_DIR": str(machine.cache_folder() / "numba"), "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.run([sys.executable, "-P", str(draft / "run.py")], capture_output=True, text=True, env=clean)
    if child.returncode:
        raise Problem(f"run.py failed, nothing is written: {(child.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(child.stdout.splitlines()[-1])


def verdict(result: dict, case: Case) -> str:
    """In words. Raises Problem where the artefact does not compute what torch does."""
    least, bound = modes.min_agreement(case.mode), modes.max_error(case.mode)
    texts = []
    for key, what in (("same_labels", "labels"), ("same_values", "whole numbers")):
        if key in result:
            if not result[key] >= least:
                raise Problem(f"{result[key]:.3%} of the {what} are torch's, less than {least:.2%}: nothing is written")
            texts.append(f"{result[key]:.4%} of the {what} are torch's")
    if "relative_error" in result:
        if not result["relative_error"] <= bound:
            error = result["relative_error"]
            raise Problem(f"relative error {error:.2g} against torch exceeds {bound:g}: nothing is written")
        texts.append(f"relative error against torch {result['relative_error']:.2g}")
    return ", ".join(texts)


def export(case: Case, source: str, out: Path) -> str:
    """Write the artefact; returns the verdict. Nothing is left where it fails. Raises Problem."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".draft-") as folder:
            draft = Path(folder) / "artefact"
            draft.mkdir()
            card = write(case, source, draft)
            (draft / "card.json").write_text(json.dumps(card, indent=1) + "\n")
            result = run_check(draft)
            text = verdict(result, case)
            del result["shapes"], result["call_ms"]  # beside an export nothing can be timed
            (draft / "card.json").write_text(json.dumps(card | result, indent=1) + "\n")
            draft.rename(out)
    except OSError as error:
        raise Problem(f"{out} cannot be written ({error.strerror})") from None
    return text


def main() -> int:
    warnings.simplefilter("ignore")  # of the exporters
    given = settings.parse(Settings(), __doc__)
    case, source = case_of(given)
    out = given.out.expanduser()
    try:
        text = export(case, source, out)
    except Problem:
        raise
    except Exception as error:  # of the network or the runtime, as a row of a table would have it
        print(f"export.py: {errors.one_line(error, case)[:300]}", file=sys.stderr)
        return 1
    print(f"wrote {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    needed = ", ".join((out / "requirements.txt").read_text().split())
    print(f"{text}; python {typed(out / 'run.py')} checks it again")
    print(f"it needs {needed}: pip install -r {typed(out / 'requirements.txt')}")
    return 0


def typed(path: Path) -> str:
    """As a shell and a program take it: in quotes where it holds a space, never like a flag."""
    text = shlex.quote(str(path))
    return f"./{text}" if text.startswith("-") else text


if __name__ == "__main__":
    exit_with(main)
