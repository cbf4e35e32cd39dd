"""Run the model on an image, or on the image that it was checked with:

    python run.py [image.npy [labels.npy]]

Needs numpy and the runtime that card.json names; with a fused argmax numba too. The image is float32 and normalised as
card.json says.
"""

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def onnxruntime_outputs(card: dict, image: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = card["threads"]
    session = onnxruntime.InferenceSession(HERE / card["file"], options, providers=["CPUExecutionProvider"])
    return session.run(None, {card["input"]["name"]: image})


def openvino_outputs(card: dict, image: np.ndarray) -> list[np.ndarray]:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": card["threads"]}
    if card["precision"] != "int8":  # without it OpenVINO computes in BF16 wherever the CPU can
        settings["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[card["precision"]]
    compiled = openvino.Core().compile_model(HERE / card["file"], "CPU", settings)
    results = compiled(image)
    outputs = [results[output] for output in compiled.outputs]
    return [output.transpose(0, 3, 1, 2) if output.ndim == 4 else output for output in outputs]  # from NHWC


RUNTIMES = {"onnxruntime": onnxruntime_outputs, "openvino": openvino_outputs}


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


def main() -> None:
    card, check, files = json.loads((HERE / "card.json").read_text()), np.load(HERE / "check.npz"), sys.argv[1:]
    try:
        image = np.load(files[0]) if files else check["image"]
    except (OSError, ValueError):
        sys.exit(f"run.py: {files[0]} is not there or no array of numpy.save")
    if list(image.shape) != card["input"]["shape"]:
        sys.exit(f"run.py: the image is {list(image.shape)}, expected is {card['input']['shape']}")
    first = RUNTIMES[card["runtime"]](card, image.astype(np.float32))[0]  # (B, C, ...), as torch has it
    labels = fused_argmax(card, first, image.shape[2:]) if card["fused_argmax"] else None
    if len(files) > 1:
        if labels is None:
            labels = first.argmax(axis=1).astype(np.uint8 if first.shape[1] <= 256 else np.uint16)
        np.save(files[1], labels)
    elif files:
        print(f"output: {first.shape}; name a second file to save the labels")
    elif labels is not None:
        print(json.dumps({"shape": list(labels.shape), "same_labels": float((labels == check["labels"]).mean())}))
    else:
        values, expected = first.reshape(-1)[check["places"]].astype(np.float64), check["expected"].astype(np.float64)
        error = float(np.linalg.norm(values - expected) / np.linalg.norm(expected))
        print(json.dumps({"shape": list(first.shape), "relative_error": float(f"{error:.3g}")}))


if __name__ == "__main__":
    main()
