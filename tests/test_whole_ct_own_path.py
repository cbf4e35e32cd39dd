"""Both ways of whole_ct against nnU-Net's and TotalSegmentator's own, called here as their documentation does."""

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, ornt_transform
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.whole_ct import common, jobs, optimised, plans, segment, stock
from benchmarks.whole_ct.scan import Scan
from segbench import inputs
from segbench.models import totalsegmentator
from segbench.models.volume import Volume

THICK = (0.8, 0.8, 5)  # mm, (x, y, z)
SCIPY = "resample_data_or_seg_to_shape"
CASES = {
    "1.5 mm": ((1.5, 1.5, 1.5), "RAS", {}),
    "0.8 x 0.8 x 5 mm": (THICK, "RAS", {}),
    "0.9 x 0.9 x 3 mm": ((0.9, 0.9, 3), "RAS", {}),
    "0.7 x 0.7 x 1.2 mm": ((0.7, 0.7, 1.2), "RAS", {}),
    "LPS": (THICK, "LPS", {}),
    "PIR": (THICK, "PIR", {}),
    "oblique": (THICK, "oblique", {}),
    "spacing 3": ((1.5, 1.5, 1.5), "RAS", {"spacing": [3, 3, 3]}),
    "transposed": ((1.5, 1.5, 1.5), "RAS", {"transpose_forward": [2, 0, 1]}),
    "patch": ((1.5, 1.5, 1.5), "RAS", {"patch_size": [12, 14, 10]}),
    "ZScore": ((1.5, 1.5, 1.5), "RAS", {"normalization_schemes": ["ZScoreNormalization"]}),
    "105 classes": ((1.5, 1.5, 1.5), "RAS", {"classes": 105}),
    # Beyond the table: thick slices that are transposed, a reader that turns, a mask, and other orders along z.
    "thick and transposed": (THICK, "PIR", {"transpose_forward": [2, 0, 1], "spacing": [4, 1, 1]}),
    "a reader that turns": (THICK, "PIR", {"image_reader_writer": "NibabelIOWithReorient"}),
    "masked": (THICK, "RAS", {"normalization_schemes": ["ZScoreNormalization"], "use_mask_for_norm": [True]}),
    "order 1 along z": (THICK, "RAS", {"order_z": 1}),
    "no separate z": (THICK, "RAS", {"force_separate_z": False}),
}


class Smooth(nn.Module):
    """(1, 1, D, H, W) -> logits that follow the blurred image: few voxels are near ties."""

    def __init__(self, classes: int):
        super().__init__()
        weights = torch.exp(-(torch.arange(-2, 3) ** 2) / 4.0)
        self.blur = nn.Parameter(torch.einsum("i,j,k->ijk", *[weights / weights.sum()] * 3)[None, None])
        self.levels = nn.Parameter(torch.linspace(-2, 2, classes)[torch.randperm(classes)].view(-1, 1, 1, 1))

    def forward(self, tile: Tensor) -> Tensor:
        blurred = F.conv3d(F.pad(tile, [2] * 6, mode="replicate"), self.blur)
        return 2 * blurred * self.levels - self.levels**2


def scan_file(folder, spacing_mm, orientation) -> str:
    """A synthetic CT of 30 mm a side, turned; some planes at its border are 0, which nnU-Net crops."""
    size = [round(30 / mm) for mm in spacing_mm]
    values = inputs.hounsfield(tuple(size[::-1]), seed=1)[0].round().astype(np.int16).transpose(2, 1, 0).copy()
    values[:2] = 0
    affine = np.diag([*spacing_mm, 1.0])
    if orientation == "oblique":
        turn = np.deg2rad(20)
        affine[:2, :2] = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ affine[:2, :2]
    image = nibabel.Nifti1Image(values, affine)
    if orientation in ("LPS", "PIR"):
        image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation)))
    nibabel.save(image, folder / "ct.nii.gz")
    return str(folder / "ct.nii.gz")


def nnunet_files(classes=6, order_z=0, force_separate_z=None, **changed) -> tuple[dict, dict]:
    """Plans and dataset.json as nnU-Net writes them, with entries changed."""
    rule = {"is_seg": False, "order_z": order_z, "force_separate_z": force_separate_z}
    configuration = {
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": [1.5, 1.5, 1.5],
        "patch_size": [16, 16, 16],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": SCIPY,
        "resampling_fn_data_kwargs": rule | {"order": 3},
        "resampling_fn_seg": SCIPY,
        "resampling_fn_seg_kwargs": rule | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": SCIPY,
        "resampling_fn_probabilities_kwargs": rule | {"order": 1},
        "architecture": {},
    }
    known = {"percentile_00_5": -900.0, "percentile_99_5": 300.0, "mean": -80.0, "std": 140.0}
    given = {"image_reader_writer": "SimpleITKIO", "transpose_forward": [0, 1, 2], "label_manager": "LabelManager"}
    given["foreground_intensity_properties_per_channel"] = {"0": known}
    for key, value in changed.items():
        (configuration if key in configuration else given)[key] = value
    backward = [int(axis) for axis in np.argsort(given["transpose_forward"])]
    given |= {"transpose_backward": backward, "configurations": {"3d_fullres": configuration}}
    labels = {"background": 0} | {f"class {n}": n for n in range(1, classes)}
    return given, {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}


def own_labels(file: str, given: dict, data_set: dict, network: nn.Module) -> np.ndarray:
    """Of nnU-Net, from the file."""
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    manager = PlansManager(given)
    configuration, weights = manager.get_configuration("3d_fullres"), [network.state_dict()]
    predictor.manual_initialization(network, manager, configuration, weights, data_set, "nnUNetTrainer", None)
    with stock.sums_in_fp32():  # its sums: half precision decides ties by chance
        return predictor.predict_from_files_sequential([[file]], None)[0]


@pytest.mark.parametrize("name", CASES)
def test_labels_are_nnunets_own(tmp_path, monkeypatch, name):
    spacing_mm, orientation, changed = CASES[name]
    file = scan_file(tmp_path, spacing_mm, orientation)
    given, data_set = nnunet_files(**changed)
    torch.manual_seed(0)
    network = Smooth(len(data_set["labels"])).requires_grad_(False)
    expected = own_labels(file, given, data_set, network)
    if "Reorient" in given["image_reader_writer"]:  # nnU-Net's way back is the writer's
        from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient as Reader

        Reader().write_seg(expected, str(tmp_path / "own.nii.gz"), Reader().read_images([file])[1])
        expected = np.asarray(nibabel.load(tmp_path / "own.nii.gz").dataobj).transpose(2, 1, 0)
    monkeypatch.setattr(common, "network_of", lambda job, number: Volume(network).eval())
    arguments = {"plans": given, "configuration": "3d_fullres", "dataset_json": data_set}
    state = {"seg_outputs.4.weight": network.levels}
    read = plans.read(tmp_path / "a.pth", state, {"init_args": arguments}, 1.5, [])
    task = {"as_in": "nnunet", "model": "stunet_s", "plans": (read,), "resolution_mm": 1.5, "step": 0.5}
    task |= {
        "mode": "baseline",
        "volume": file,
        "voxels": (1,) * 3,
        "spacing_mm": (1.0,) * 3,
        "labels": str(tmp_path / "labels.npy"),
    }
    for way in ("nnunet", "optimised"):
        segment.run(jobs.Job(way=way, export="scipy", exact=way == "nnunet", **task))
        labels = np.load(tmp_path / "labels.npy")
        assert labels.shape == expected.shape and np.unique(expected).size > 2
        assert (labels == expected).mean() >= (1 if way == "nnunet" else 0.999), way


def test_a_volume_of_zeros_is_background_as_in_nnunet(tmp_path, monkeypatch):
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((9, 8, 7), np.int16), np.diag([1.5, 1.5, 1.5, 1])), tmp_path / "ct.nii.gz"
    )
    given, data_set = nnunet_files()
    network = Smooth(6).requires_grad_(False)
    expected = own_labels(str(tmp_path / "ct.nii.gz"), given, data_set, network)
    read = plans.Plans((1.5,) * 3, [*data_set["labels"]], (16,) * 3, intensities=plans.Intensities(-900, 300, -80, 140))
    labels = optimised.segmented(np.zeros((7, 8, 9), np.float32), [1.5] * 3, read, 0.5, network, common.Laps())
    assert np.array_equal(labels, expected)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", ["LPS"])
def test_labels_are_totalsegmentators_own(tmp_path, monkeypatch, orientation):
    """Its function is called in another process, with networks of few channels in a folder that is written here. It
    downloads nothing: it finds what it looks for, and has no way out."""
    monkeypatch.setattr(totalsegmentator, "WIDTHS", (4,) * 6)
    monkeypatch.setattr(totalsegmentator, "STRIDES", (1, 2, 2, 1, 1, 1))
    torch.manual_seed(0)
    net = totalsegmentator.plain_conv_unet(118).eval().requires_grad_(False)
    file = scan_file(tmp_path, THICK, orientation)
    known = plans.Intensities(-900, 300, -80, 140)
    names = ["background", *totalsegmentator.class_names()]
    read = plans.Plans((3.0,) * 3, names, (16, 16, 16), intensities=known)
    monkeypatch.setattr(common, "network_of", lambda job, number: Volume(net))
    task = {"as_in": "official", "model": "totalsegmentator", "plans": (read,), "resolution_mm": 3.0, "step": 0.8}
    task |= {
        "mode": "baseline",
        "volume": str(Scan(tmp_path / "ct.nii.gz").file(tmp_path)),
        "voxels": (1,) * 3,
        "spacing_mm": (1.0,) * 3,
    }
    task |= {"order": jobs.spline_order()}
    labels = {}
    for way in ("official", "optimised"):
        segment.run(jobs.Job(way=way, exact=way == "official", labels=str(tmp_path / f"{way}.npy"), **task))
        labels[way] = np.load(tmp_path / f"{way}.npy")
    assert labels["official"].shape == nibabel.load(file).shape[::-1] and np.unique(labels["official"]).size > 2
    assert (labels["official"] == labels["optimised"]).mean() >= 0.999
