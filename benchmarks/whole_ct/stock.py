"""The stock way: nnU-Net's or TotalSegmentator's own path from the file, as its documentation calls it, in eager FP32.

Neither is pointed at a folder of the user's, for both unpickle what they find there: weights were read without that
(segbench/models/states.py).
"""

import contextlib
import json
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from benchmarks.whole_ct import common
from benchmarks.whole_ct.common import Laps
from benchmarks.whole_ct.jobs import Job
from benchmarks.whole_ct.plans import CONFIGURATION
from benchmarks.whole_ct.scan import undo_canonical
from segbench.models import totalsegmentator


def stock(job: Job, lap: Laps) -> np.ndarray:
    """Labels (D, H, W) in the order of the job's file."""
    with contextlib.ExitStack() as stack:
        for target, name, part in (
            (nnUNetPredictor, "predict_sliding_window_return_logits", "sliding window"),
            (nnUNetPredictor, "_internal_maybe_mirror_and_predict", "network"),
            (LabelManager, "convert_logits_to_segmentation", "argmax"),
        ):
            stack.enter_context(patch.object(target, name, lap.of(part, getattr(target, name))))
        if job.exact:
            stack.enter_context(sums_in_fp32())
        return official(job, lap) if job.way == "official" else nnunet(job, lap)


class TorchWithoutHalf:
    """torch for one module, which adds tiles up in torch.half."""

    half = torch.float32

    def __getattr__(self, name: str) -> object:
        return getattr(torch, name)


def sums_in_fp32() -> contextlib.AbstractContextManager:
    """nnU-Net's predictor with sums in FP32 meanwhile. Only its own name of torch is changed: torch's tables of types
    would be made wrong for good."""
    return patch.object(predict_from_raw_data, "torch", TorchWithoutHalf())


def nnunet(job: Job, lap: Laps) -> np.ndarray:
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    given, data_set = job.plans[0].for_nnunet(by_torch=job.export == "torch")
    plans = PlansManager(given)
    configuration = plans.get_configuration(CONFIGURATION)
    with lap("preparing"):
        network = common.network_of(job, 0).net
        predictor = nnUNetPredictor(job.step, use_mirroring=False, device=torch.device("cpu"))
        weights = [network.state_dict()]
        predictor.manual_initialization(network, plans, configuration, weights, data_set, "nnUNetTrainer", None)
    with lap("resampling in"):
        preprocessor = configuration.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case([job.volume], None, plans, configuration, data_set)
    logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    with lap("logits resampled"):
        labels = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, plans, configuration, predictor.label_manager, properties, num_threads_torch=torch.get_num_threads()
        )
    return undo_canonical(labels, job.volume) if job.plans[0].reader.endswith("WithReorient") else labels


def official(job: Job, lap: Laps) -> np.ndarray:
    """Its networks lie in a folder that is written here; it downloads nothing and reports nothing."""
    from totalsegmentator import nnunet, python_api

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        with lap("preparing"):
            write_networks(job, Path(folder))
        environment = {"TOTALSEG_HOME_DIR": folder, "TOTALSEG_WEIGHTS_PATH": folder}
        stack.enter_context(patch.dict("os.environ", environment))
        for name in ("download_pretrained_weights", "send_usage_stats"):
            stack.enter_context(patch.object(python_api, name, lambda *_, **__: None))
        change_spacing, load = nnunet.change_spacing, nnUNetPredictor.initialize_from_trained_model_folder

        def timed_change(*arguments, **keywords):
            with lap("labels resampled" if len(arguments) > 2 else "resampling in"):
                return change_spacing(*arguments, **keywords)

        stack.enter_context(patch.object(nnunet, "change_spacing", timed_change))
        stack.enter_context(
            patch.object(nnUNetPredictor, "initialize_from_trained_model_folder", lap.of("preparing", load))
        )
        how = {"task": job.task, "model_size": job.size, "fast": len(job.plans) == 1}
        image = python_api.totalsegmentator(job.volume, None, ml=True, device="cpu", quiet=True, **how)
    return np.asarray(image.dataobj).transpose(2, 1, 0)


def write_networks(job: Job, folder: Path) -> None:
    """As nnU-Net's training leaves them, in the places where TotalSegmentator looks."""
    from totalsegmentator.python_api import get_task_config

    task = get_task_config(job.task, fast=len(job.plans) == 1, quiet=True, model_size=job.size)
    plans_name = task["plans"] or "nnUNetPlans"
    tasks = task["task_id"] if isinstance(task["task_id"], list) else [task["task_id"]]
    for number, (plans, identifier) in enumerate(zip(job.plans, tasks, strict=True)):
        place = folder / f"Dataset{identifier}_of_job" / f"{task['trainer']}__{plans_name}__{CONFIGURATION}"
        (place / "fold_0").mkdir(parents=True)
        given, data_set = plans.for_nnunet(architecture(job.size))
        (place / "plans.json").write_text(json.dumps(given))
        (place / "dataset.json").write_text(json.dumps(data_set))
        checkpoint = {"trainer_name": task["trainer"], "init_args": {"configuration": CONFIGURATION}}
        weights = common.network_of(job, number).net.state_dict()
        torch.save(checkpoint | {"network_weights": weights}, place / "fold_0" / "checkpoint_final.pth")


def architecture(size: str) -> dict:
    """Of the networks in models/totalsegmentator.py, as plans have it; nnU-Net adds channels and classes."""
    stages, is_small = len(totalsegmentator.STRIDES), size == "small"
    blocks = (
        {"n_blocks_per_stage": list(totalsegmentator.RESIDUALS)} if is_small else {"n_conv_per_stage": [2] * stages}
    )
    keywords = blocks | {
        "n_stages": stages,
        "features_per_stage": list(totalsegmentator.SMALL_WIDTHS if is_small else totalsegmentator.WIDTHS),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[stride] * 3 for stride in totalsegmentator.STRIDES],
        "n_conv_per_stage_decoder": [1 if is_small else 2] * (stages - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    network = "ResidualEncoderUNet" if is_small else "PlainConvUNet"
    name = f"dynamic_network_architectures.architectures.unet.{network}"
    imported = ["conv_op", "norm_op", "dropout_op", "nonlin"]
    return {"network_class_name": name, "arch_kwargs": keywords, "_kw_requires_import": imported}
