"""The stock way: nnU-Net's or TotalSegmentator's own predictor and export, in eager FP32."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet
from scipy.ndimage import zoom
from torch import Tensor

from benchmarks.official.costs import resampled
from benchmarks.whole_ct.common import IMAGES, Laps, Timed, finish, merge, normalised, small
from benchmarks.whole_ct.jobs import Job
from segbench import zoo

# Both of nnU-Net: class by class, its default (with these flags), and by torch.
EXPORTS = {
    "scipy": partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None),
    "torch": resample_torch_fornnunet,
}


def stock(job: Job, volume: np.ndarray, lap: Laps, networks: Iterator[Timed]) -> np.ndarray:
    """Labels (D, H, W) of a volume (D, H, W)."""
    size = resampled(volume.shape, job.spacing_mm, job.resolution_mm)
    with lap("resampling in"):
        if job.way == "nnunet":
            volume = normalised(torch.from_numpy(volume), job, 0).numpy()
        image = torch.from_numpy(IMAGES[job.way](volume, size).astype(np.float32))[None]
        finish(image, volume, job.way, job)
    if job.way == "nnunet":
        network = next(networks)
        with lap("sliding window"):
            logits = predicted(network, job, image)
        with lap("logits resampled"):
            options = {"num_threads": torch.get_num_threads()} if job.export == "torch" else {}
            spacing_mm = [job.resolution_mm] * 3
            logits = EXPORTS[job.export](logits, volume.shape, spacing_mm, list(job.spacing_mm), **options)
        with lap("argmax"):
            return small(torch.as_tensor(logits).argmax(0))
    merged = np.zeros(size, np.uint8)
    for number, network in enumerate(networks):
        with lap("resampling in"):
            network_image = normalised(image, job, number)
        with lap("sliding window"):
            logits = predicted(network, job, network_image)
        with lap("argmax"):
            labels = small(logits.argmax(0))
            del logits
        with lap("labels merged"):
            merge(merged, labels, job.merge[number] if job.merge else ())
    with lap("labels resampled"):
        return zoom(merged, np.divide(volume.shape, size), order=0, mode="nearest")


def predicted(network: Timed, job: Job, image: Tensor) -> Tensor:
    """Logits (C, D, H, W) by nnU-Net's predictor, which calls the type of its sums torch.half."""
    with patch.object(torch, "half", torch.float32) if job.exact else nullcontext():
        return predictor_of(network, job).predict_sliding_window_return_logits(image)


def predictor_of(network: Timed, job: Job) -> nnUNetPredictor:
    """nnU-Net's predictor around a network that it did not train."""
    predictor = nnUNetPredictor(job.step, use_mirroring=False, device=torch.device("cpu"), allow_tqdm=True)
    predictor.network = network
    predictor.configuration_manager = SimpleNamespace(patch_size=zoo.TILE)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=network.classes)
    return predictor
