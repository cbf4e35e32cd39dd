"""The artefact that was measured, to take home: model.onnx, or model.xml and model.bin, with a card that says what it
is and the few lines that run it.

    uv run tools/export.py resnet18 --decoder unet --runtime openvino --precision bf16 --out ~/resnet18-unet
    uv run tools/export.py resnet18 --decoder unet --weights trained.pt --in-chans 1 --num-classes 5 --out ct
    uv run tools/export.py resnet18 --decoder unet --output labels --out resnet18-labels
    uv run tools/export.py --network mypackage.models:segmenter --runtime onnxruntime --out mine
    python ~/resnet18-unet/run.py

--weights takes a state dict as training leaves it: that of segbench.models.segmenter.assemble(...), or without a
decoder of timm's model. Before anything is called written, run.py runs it in a process of its own and compares it
with torch.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import tyro

from segbench import custom_network, machine, modes, settings, zoo
from segbench.cases import Case, sides
from segbench.problem import Problem

FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml"}
VALUES = 100_000  # of the output that a card's error is over: check.npz stays below a megabyte


@dataclass
class Settings:
    model: Annotated[str, tyro.conf.Positional] = ""
    """An encoder of the zoo or of timm, or a 3D network."""
    network: str = ""
    """A network of your own instead: package.module:function, which returns an nn.Module."""
    runtime: Literal["openvino", "onnxruntime"] = "openvino"
    precision: Literal["fp32", "bf16", "int8"] = "fp32"
    decoder: Literal["", "fpn", "unet"] = ""
    """Behind the encoder; without one it keeps its classifier."""
    output: Literal["logits", "labels"] = "logits"
    """labels: the network up to its last linear layer, with the kernel that makes a label map of that."""
    size: Annotated[tuple[int, ...], tyro.conf.arg(metavar="H W | D H W")] = (512, 512)
    """Of the input, fixed in the artefact."""
    num_classes: int = 117
    """Of the decoder or the 3D network."""
    in_chans: int = 3
    weights: Path | None = None
    """A state dict; without it weights are random and calibrated, which is good for measuring alone."""
    pretrained: bool = False
    """timm's weights for the encoder (needs the network, once)."""
    seed: int = 0
    threads: int | None = None
    """That run.py uses; by default all physical cores."""
    out: Path | None = None
    """A folder that is not there yet."""


def case_of(given: Settings) -> tuple[Case, str]:
    """What was asked for as a case, and where its weights or its module lie. Raises Problem."""
    if given.out is None:
        raise Problem("--out names no folder")
    if given.out.expanduser().exists():
        raise Problem(f"--out {given.out} is there already: nothing is overwritten")
    if bool(given.model) == bool(given.network):
        raise Problem("name a model, or --network package.module:function")
    if given.weights and not given.weights.is_file():
        raise Problem(f"--weights {given.weights}: no such file")
    if given.output == "labels" and not given.decoder:
        raise Problem("--output labels is for --decoder fpn or unet: only those have a fused argmax")
    mode = next((m for m in modes.MODES.values() if (m.runtime, m.precision) == (given.runtime, given.precision)), None)
    if mode is None:
        raise Problem(f"--runtime {given.runtime} has no --precision {given.precision} here")
    dimensions = (2, 3) if given.network else (2 + (given.model in zoo.VOLUMES),)
    if len(given.size) not in dimensions or min(given.size) < 1:
        raise Problem(f"--size {' '.join(map(str, given.size))}: height and width, of a 3D model depth before them")
    threads = given.threads if given.threads is not None else machine.usable_cores()
    if threads < 1:
        raise Problem(f"--threads {threads} is not positive")
    common = {"mode": mode.name, "size": tuple(given.size), "in_chans": given.in_chans, "seed": given.seed}
    common |= {"threads": threads, "pretrained": given.pretrained, "output": given.output}
    if given.network:
        case, folder = Case(model=given.network, **common), str(Path.cwd())
        digest, classes = custom_network.describe(case, folder)
        case, source = Case(model=given.network, classes=classes, weights=digest, **common), folder
    else:
        is_volume = given.model in zoo.VOLUMES
        (model,) = [given.model] if is_volume else settings.find_models((given.model,))
        classes = given.num_classes if given.decoder or is_volume else 0
        source = str(given.weights or "")
        case = Case(model=model, decoder=given.decoder, classes=classes, weights=digest_of(given.weights), **common)
    if reason := machine_lacks(case):
        raise Problem(reason)
    return case, source


def machine_lacks(case: Case) -> str:
    from segbench import runtimes

    mode = modes.MODES[case.mode]
    return runtimes.of_mode(mode).missing(mode, case, machine.describe())


def digest_of(path: Path | None) -> str:
    return f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}" if path else ""


def write(case: Case, source: str, draft: Path) -> dict:
    """Everything but the verdict, into an empty folder; returns the card."""
    import numpy as np
    import torch

    from segbench import inputs, models, runtimes
    from segbench.runtimes import conversion

    torch.set_num_threads(case.threads)
    network, image, mode = models.build(case, source), inputs.picture(case), modes.MODES[case.mode]
    timed, _ = models.labelled(network, case.output, case.size, case.threads)
    prepared = runtimes.of_mode(mode).prepare(timed, image, mode, case.threads, machine.cache_folder())
    shutil.copytree(prepared.folder, draft, dirs_exist_ok=True)
    with torch.inference_mode():
        outputs = timed(image)
        expected = {"labels": network(image)[0].argmax(1).numpy().astype(np.int16)} if case.output == "labels" else {}
    flat = outputs[0].contiguous().reshape(-1).numpy()
    places = np.sort(np.random.default_rng(0).choice(flat.size, min(VALUES, flat.size), replace=False))
    expected |= {"places": places, "expected": flat[places]}
    np.savez_compressed(draft / "check.npz", image=image.numpy(), **expected)
    end = fused_argmax(network, draft) if case.output == "labels" else None
    shutil.copyfile(Path(__file__).parent / "artefact" / f"run_{mode.runtime}.py", draft / "run.py")
    kind = "(B, C, H, W)" if len(case.size) == 2 else "(B, C, D, H, W)"
    innermost = mode.runtime == "openvino"
    return {
        "network": case.network,
        "runtime": mode.runtime,
        "precision": mode.precision,
        "file": FILES[mode.runtime],
        "threads": case.threads,
        "input": {"name": conversion.INPUT, "shape": list(image.shape), "layout": kind, "dtype": "float32"}
        | {"normalisation": normalisation(case)},
        "outputs": [
            {"shape_in_torch": list(output.shape), "layout": layout(output.dim(), innermost)} for output in outputs
        ],
        "classes": case.classes or None,
        "end": end,
        "opset": conversion.OPSET if mode.runtime == "onnxruntime" else None,
        "versions": runtimes.of_mode(mode).versions() | machine.installed(("timm", "numpy")),
        "weights": {"source": weights_source(case), "digest": conversion.fingerprint(network, image, {})},
        "ran": prepared.ran(),
        "measured": measured(case),
        "written": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def fused_argmax(network, draft: Path) -> dict:
    """What run.py needs to make labels of what the cut network returns: the kernels, and for UNet its last weights."""
    import numpy as np

    from segbench.kernels import labels
    from segbench.models.fpn import STRIDE, SemanticFPN
    from segbench.models.unet import folded

    shutil.copyfile(labels.__file__, draft / "labels.py")
    if isinstance(network.decoder, SemanticFPN):
        return {"kernel": "upsample_labels", "factor": STRIDE}
    weight, bias = folded(network.decoder.last, network.decoder.head)
    np.savez(draft / "end.npz", weight=weight.numpy(), bias=bias.numpy())
    return {"kernel": "head_labels", "weights": "end.npz"}


def layout(dimensions: int, innermost: bool) -> str:
    if dimensions == 4:
        return "(B, H, W, C)" if innermost else "(B, C, H, W)"
    return {3: "(B, N, C)", 2: "(B, C)", 5: "(B, C, D, H, W)"}.get(dimensions, f"{dimensions} dimensions")


def normalisation(case: Case) -> dict | str:
    """Of the check's input; your own network's is your own."""
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
    """What the run logs hold of this network, mode and size, whatever its weights: a row per machine and benchmark."""
    from benchmarks import catalogue

    frame = catalogue.rows(model=case.model)
    if frame.empty:
        return []
    classes = case.classes or float("nan")
    same = (frame.decoder == case.decoder) & (frame["mode"] == case.mode) & (frame["size"] == sides(case.size))
    same &= (frame.model == case.model) & (frame.in_chans == case.channels) & (frame.batch_size == 1)
    same &= (frame.classes == classes) | (frame.classes.isna() & (classes != classes))
    same &= (frame.status == "ok") & (frame.allocator == "retained") & (frame.output == case.output)
    return [
        {"machine": row.machine, "cpu": row.cpu, "threads": row.threads, "benchmark": row.benchmark}
        | {"img_s": round(row.throughput_img_s, 2)}
        | {"interval_95": [round(row.throughput_low, 2), round(row.throughput_high, 2)]}
        for row in frame[same].itertuples()
    ]


def checked(draft: Path) -> dict:
    """What run.py finds in a process of its own: the relative error, or the share of equal labels. Raises Problem."""
    clean = os.environ | {"NUMBA_CACHE_DIR": str(machine.cache_folder() / "numba"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-P", str(draft / "run.py")], capture_output=True, text=True, env=clean)
    if done.returncode:
        raise Problem(f"run.py failed, nothing is written: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def judged(found: dict, case: Case) -> str:
    """The verdict in words. Raises Problem where the artefact is not what was measured."""
    if case.output == "labels":
        share, least = found["same_labels"], modes.min_agreement(case.mode)
        if not share >= least:
            raise Problem(f"{share:.3%} of the labels are torch's, less than {least:.2%}: nothing is written")
        return f"{share:.4%} of the labels are torch's"
    error, bound = found["relative_error"], modes.max_error(case.mode)
    if not error <= bound:
        raise Problem(f"relative error {error:.2g} against torch exceeds {bound:g}: nothing is written")
    return f"relative error against torch {error:.2g}"


def main() -> int:
    warnings.simplefilter("ignore")  # of the exporters
    given = tyro.cli(Settings, description=__doc__)
    case, source = case_of(given)
    out = given.out.expanduser()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".draft-") as folder:
            draft = Path(folder) / "artefact"
            draft.mkdir()
            card = write(case, source, draft)
            (draft / "card.json").write_text(json.dumps(card, indent=1) + "\n")
            found = checked(draft)
            verdict = judged(found, case)
            card |= {key: found[key] for key in ("relative_error", "same_labels") if key in found}
            (draft / "card.json").write_text(json.dumps(card, indent=1) + "\n")
            draft.rename(out)
    except OSError as error:
        raise Problem(f"{out} cannot be written ({error.strerror})") from None
    print(f"wrote {out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    print(f"{verdict}; python {out / 'run.py'} shows it again")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Problem as problem:
        print(f"export.py: {problem}", file=sys.stderr)
        sys.exit(2)
    except (ValueError, RuntimeError) as error:  # of the network or the runtime, as a row of a table would have it
        print(f"export.py: {type(error).__name__}: {str(error).splitlines()[0][:300]}", file=sys.stderr)
        sys.exit(1)
