"""Run the model on an image, or on the image that it was checked with:

    python run.py [image.npy [labels.npy]]

Needs what requirements.txt names. The image is float32 and normalised as card.json says, which also says how labels are
made of the first output. Without an image it prints how far the outputs are from torch's, and how long a call took.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def onnxruntime_call(card: dict) -> Callable[[np.ndarray], list[np.ndarray]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = card["threads"]
    session = onnxruntime.InferenceSession(HERE / card["file"], options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {card["input"]["name"]: image})


def openvino_call(card: dict) -> Callable[[np.ndarray], list[np.ndarray]]:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": card["threads"]}
    if card["precision"] != "int8":  # without it OpenVINO computes in BF16 wherever the CPU can
        settings["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[card["precision"]]
    compiled = openvino.Core().compile_model(HERE / card["file"], "CPU", settings)

    def call(image: np.ndarray) -> list[np.ndarray]:
        results = compiled(image)
        return [results[output] for output in compiled.outputs]

    return call


def nchw(outputs: list[np.ndarray], card: dict) -> list[np.ndarray]:
    """(B, H, W, C) as (B, C, H, W), in the same memory, where the card says so."""
    layouts = [output["layout"] for output in card["outputs"]]
    return [
        output.transpose(0, 3, 1, 2) if layout == "(B, H, W, C)" else output
        for output, layout in zip(outputs, layouts, strict=True)
    ]


RUNTIMES = {"onnxruntime": onnxruntime_call, "openvino": openvino_call}


def labels_of(card: dict, first: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Labels (B, *size) of the first output, as the card says."""
    how = card["labels"]
    if how == "fused argmax":
        return fused_argmax(card, first, size)
    if how == "argmax":
        return first.argmax(axis=1).astype(np.uint8 if first.shape[1] <= 256 else np.uint16)
    one_map = first.reshape(first.shape[0], *size)
    return (one_map > float(how.removeprefix("above "))).astype(np.uint8) if how.startswith("above") else one_map


def fused_argmax(card: dict, first: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Labels (B, *size) of the output of the network's last but one linear layer, without writing the logits."""
    sys.path.insert(0, str(HERE))
    import labels as kernels

    maps = np.ascontiguousarray(first)
    if card["fused_argmax"]["kernel"] == "upsample_labels":
        labels = kernels.upsample_labels(maps, card["fused_argmax"]["factor"], card["threads"])
    else:
        weights = np.load(HERE / card["fused_argmax"]["weights"])
        labels = kernels.head_labels(maps, weights["weight"], weights["bias"], card["threads"])
    return labels[:, : size[0], : size[1]]


def compared(card: dict, outputs: list[np.ndarray], check: dict) -> dict:
    """How far the outputs are from torch's: the largest relative error of those in floating point, and the smallest
    share of equal values of others."""
    expected_shapes = [output["shape_in_torch"] for output in card["outputs"]]
    if (shapes := [list(output.shape) for output in outputs]) != expected_shapes:
        sys.exit(f"run.py: the outputs are {shapes}, torch's {expected_shapes}")
    errors, shares = [], []
    for number, output in enumerate(outputs):
        expected = check[f"expected{number}"]
        values = output.reshape(-1)[check[f"places{number}"]]
        if expected.dtype.kind != "f":
            shares.append(float((values == expected).mean()) if expected.size else 1.0)
            continue
        expected = expected.astype(np.float64)
        error = float(np.linalg.norm(values - expected) / (np.linalg.norm(expected) or 1))
        errors.append(float(f"{error:.3g}"))
    result = {"relative_error": float(np.max(errors))} if errors else {}  # NaN where one is
    return result | ({"same_values": min(shares)} if shares else {})


def main() -> None:
    card, check, files = json.loads((HERE / "card.json").read_text()), np.load(HERE / "check.npz"), sys.argv[1:]
    try:
        image = np.load(files[0]) if files else check["image"]
    except (OSError, ValueError):
        sys.exit(f"run.py: {files[0]} is not there or no array of numpy.save")
    if list(image.shape) != card["input"]["shape"]:
        sys.exit(f"run.py: the image is {list(image.shape)}, expected is {card['input']['shape']}")
    if len(files) > 1 and card["labels"].startswith("none"):
        sys.exit(f"run.py: no labels can be made, {card['labels'].removeprefix('none: ')}")
    image, size = np.ascontiguousarray(image, np.float32), image.shape[2:]
    call = RUNTIMES[card["runtime"]](card)
    ends_in_labels = len(files) > 1 or card["labels"] == "fused argmax"
    for _ in range(2):  # the first call prepares
        start = time.perf_counter()
        outputs = nchw(call(image), card)  # (B, C, ...), as torch has them
        labels = labels_of(card, outputs[0], size) if ends_in_labels else None
        call_ms = round(1e3 * (time.perf_counter() - start), 2)
    if files:
        print(f"a call took {call_ms} ms with {card['threads']} threads; output: {outputs[0].shape}", end="")
        print("" if len(files) > 1 else "; name a second file to save the labels")
    if len(files) > 1:
        np.save(files[1], labels)
    elif not files:
        same = {"same_labels": float((labels == check["labels"]).mean())} if card["fused_argmax"] else None
        shapes = [list(output.shape) for output in ([labels] if same else outputs)]
        print(json.dumps({"shapes": shapes, "call_ms": call_ms} | (same or compared(card, outputs, check))))


if __name__ == "__main__":
    main()
