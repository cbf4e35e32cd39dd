"""Runs model.onnx, on an image or on the one that it was checked with: python run.py [image.npy [labels.npy]]

Needs onnxruntime and numpy; with a fused argmax numba too. The image is float32 and normalised as card.json says.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

here = Path(__file__).resolve().parent
card, check = json.loads((here / "card.json").read_text()), np.load(here / "check.npz")
try:
    image = np.load(sys.argv[1]) if len(sys.argv) > 1 else check["image"]
except (OSError, ValueError):
    sys.exit(f"run.py: {sys.argv[1]} is not there or no array of numpy.save")
if list(image.shape) != card["input"]["shape"]:
    sys.exit(f"run.py: the image is {list(image.shape)}, wanted is {card['input']['shape']}")

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = card["threads"]
session = onnxruntime.InferenceSession(here / card["file"], options, providers=["CPUExecutionProvider"])
outputs = session.run(None, {card["input"]["name"]: image.astype(np.float32)})

# Afterwards the outputs are (B, C, ...), as torch has them.
first, end = outputs[0], card["end"]
if end:  # the network was cut off at its last linear layer: what is behind it makes labels at once
    sys.path.insert(0, str(here))
    import labels as fused

    if end["kernel"] == "upsample_labels":
        labels = fused.upsample_labels(np.ascontiguousarray(first), end["factor"], card["threads"])
    else:
        weights = np.load(here / "end.npz")
        labels = fused.head_labels(np.ascontiguousarray(first), weights["weight"], weights["bias"], card["threads"])
    labels = labels[:, : image.shape[2], : image.shape[3]]
elif len(sys.argv) > 2:
    labels = first.argmax(axis=1).astype(np.uint8 if first.shape[1] <= 256 else np.uint16)

if len(sys.argv) > 2:
    np.save(sys.argv[2], labels)
elif len(sys.argv) == 2:
    print(f"{first.shape} came out; name a file for the labels to keep them")
elif len(sys.argv) == 1 and end:
    print(json.dumps({"shape": list(labels.shape), "same_labels": float((labels == check["labels"]).mean())}))
elif len(sys.argv) == 1:
    values, expected = first.reshape(-1)[check["places"]].astype(np.float64), check["expected"].astype(np.float64)
    error = float(np.linalg.norm(values - expected) / np.linalg.norm(expected))
    print(json.dumps({"shape": list(first.shape), "relative_error": float(f"{error:.3g}")}))
