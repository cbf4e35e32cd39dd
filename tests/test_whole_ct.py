"""benchmarks/whole_ct: the pieces against independent computations, and a scan all the way."""

import runpy
import shutil
import sys
from pathlib import Path

import msgspec
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from scipy.ndimage import zoom
from skimage.transform import resize
from torch import nn
from torch.nn import functional as F

from benchmarks.official.costs import resampled
from benchmarks.whole_ct import benchmark, common, jobs, optimised, plans, report, segment
from segbench.models import totalsegmentator, volume
from segbench.problem import Problem
from segbench.settings import parse

from .conftest import ROOT

FOLDER = ROOT / "benchmarks" / "whole_ct"


def plans_of(classes: int, **changed) -> plans.Plans:
    names = ["background", *(f"class {n}" for n in range(1, classes))]
    return plans.Plans(**({"spacing_mm": (1.5,) * 3, "names": names, "patch": (16, 16, 16)} | changed))


def job(**changed) -> jobs.Job:
    given = {"way": "optimised", "as_in": "nnunet", "model": "stunet_s", "plans": (plans_of(5),), "volume": ""}
    given |= {"step": 0.5, "mode": "baseline", "voxels": (8, 8, 8), "labels": "", "resolution_mm": 1.5}
    given["spacing_mm"] = (1.5,) * 3
    return jobs.Job(**(given | changed))


def written(path: Path, values: np.ndarray, affine: np.ndarray) -> str:
    """A NIfTI file of (D, H, W)."""
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), affine), path)
    return str(path)


@pytest.mark.parametrize("size", [(20, 13, 31), (7, 40, 18)])
@pytest.mark.parametrize("order", [1, 3])
def test_resampling_by_matrices_is_that_of_totalsegmentator(order, size):
    image = np.random.default_rng(0).normal(size=(20, 26, 18)).astype(np.float32)
    expected = zoom(image, np.divide(size, image.shape), order=order, mode="nearest")
    for axis in range(3):
        image = optimised.along(image, axis, optimised.zoom_matrix(image.shape[axis], size[axis], order))
    assert np.abs(image - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("spacing", "wanted"),
    [
        ((5, 0.8, 0.8), (1.5, 1.5, 1.5)),
        ((0.9, 3, 0.9), (1.5, 1.5, 1.5)),
        ((1.5, 1.5, 1.5), (1.0, 1.0, 6.0)),
        ((2.0, 0.9, 0.9), (1.5, 1.5, 1.5)),
        ((5, 5, 0.8), (1.5, 1.5, 1.5)),
    ],
)
@pytest.mark.parametrize(
    ("order", "order_z", "apart"), [(3, 0, None), (3, 1, None), (3, 3, True), (1, 0, None), (3, 0, False)]
)
def test_resampling_is_nnunets(spacing, wanted, order, order_z, apart):
    image = np.random.default_rng(0).normal(size=(20, 30, 26)).astype(np.float32)
    size = tuple(round(count * mm / to) for count, mm, to in zip(image.shape, spacing, wanted, strict=True))
    keywords = {"order": order, "order_z": order_z, "force_separate_z": apart}
    expected = resample_data_or_seg_to_shape(image[None], size, spacing, wanted, is_seg=False, **keywords)[0]
    found = optimised.resampled(image, size, spacing, wanted, plans.Resampling(**keywords))
    assert np.abs(found.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize(("count", "wanted"), [(7, 19), (19, 7), (5, 5), (1, 4), (40, 61)])
def test_the_nearest_voxel_is_scipys(count, wanted):
    values = np.arange(count, dtype=np.uint8)
    assert np.array_equal(
        values[optimised.nearest(count, wanted)], zoom(values, wanted / count, order=0, mode="nearest")
    )


@pytest.fixture
def network():
    """One layer that sees its neighbours: edges of tiles matter."""
    torch.manual_seed(0)
    return nn.Conv3d(1, 5, 3, padding=1).requires_grad_(False)


def whole_logits(network: nn.Module, image: torch.Tensor, step: float) -> torch.Tensor:
    """By the book: nnU-Net's padding, tiles and weights, with all logits in memory, in FP64."""
    missing = [max(0, 16 - side) for side in image.shape]
    before = [gap // 2 for gap in missing]
    pairs = [*zip(before, (gap - start for gap, start in zip(missing, before, strict=True)), strict=True)]
    padded = F.pad(image, [amount for pair in pairs[::-1] for amount in pair])
    steps = optimised.compute_steps_for_sliding_window(tuple(padded.shape), (16, 16, 16), step)
    weight = optimised.compute_gaussian((16, 16, 16), 1 / 8, 10, device=torch.device("cpu")).double()
    sums, weights = torch.zeros(5, *padded.shape, dtype=torch.double), torch.zeros(padded.shape, dtype=torch.double)
    for z in steps[0]:
        for y in steps[1]:
            for x in steps[2]:
                there = (..., slice(z, z + 16), slice(y, y + 16), slice(x, x + 16))
                sums[there] += network(padded[there][None, None])[0].double() * weight
                weights[there] += weight
    inner = tuple(slice(start, start + side) for start, side in zip(before, image.shape, strict=True))
    return (sums / weights)[(..., *inner)]


@pytest.mark.parametrize("size", [(45, 20, 33), (16, 16, 16), (10, 40, 12), (33, 16, 40)])
@pytest.mark.parametrize("step", [0.5, 0.8])
def test_slabs_are_the_logits_of_the_whole(network, size, step):
    image = torch.randn(size, generator=torch.Generator().manual_seed(1))
    expected, seen = whole_logits(network, image, step), 0
    for first, logits in optimised.slabs(image, (16, 16, 16), step, 5, network, common.Laps()):
        assert first == max(seen - 1, 0), "a slab begins with the last plane of the one before"
        seen = first + logits.shape[1]
        assert (logits - expected[:, first:seen]).abs().max() < 1e-5
    assert seen == size[0]


def test_labels_are_those_of_resampled_logits(network):
    values = np.random.default_rng(0).normal(size=(30, 40, 25)).astype(np.float32)
    given = plans_of(5, scheme="NoNormalization")
    labels = optimised.segmented(values, [1, 1, 1], given, 0.5, network, common.Laps())
    size = resampled(values.shape, (1, 1, 1), 1.5)
    image = resize(values, size, order=3, mode="edge", anti_aliasing=False)
    logits = whole_logits(network, torch.from_numpy(image).float(), 0.5)
    expected = F.interpolate(logits[None], size=values.shape, mode="trilinear").argmax(1)[0]
    assert labels.shape == values.shape and (labels == expected.numpy()).mean() > 0.9999


def test_every_network_sees_the_scan_normalised_by_its_own_plans(tmp_path, monkeypatch):
    """TotalSegmentator's five were trained on other structures, and clip at other HU."""
    values = np.random.default_rng(0).normal(0, 400, size=(16, 16, 16)).round().astype(np.float32)
    known = [plans.Intensities(-900, 300, -80, 140), plans.Intensities(-100, 1200, 60, 250)]
    seen = []

    def network(tile):
        seen.append(tile[0, 0].clone())
        return torch.zeros(1, 5, 16, 16, 16)

    monkeypatch.setattr(optimised, "prepared", lambda job, number: network)
    volume = written(tmp_path / "ct.nii", values, np.diag([1.5, 1.5, 1.5, 1]))
    both = tuple(plans_of(5, intensities=of_network) for of_network in known)
    optimised.optimised(job(as_in="official", plans=both, merge=((0,) * 5,) * 2, volume=volume), common.Laps())
    for tile, given in zip(seen, known, strict=True):
        expected = (values.clip(given.percentile_00_5, given.percentile_99_5) - given.mean) / given.std
        assert np.allclose(tile, expected, atol=1e-5)


def test_a_later_part_wins_where_it_sees_something():
    merged = np.array([0, 3, 3, 0], np.uint8)
    optimised.merge(merged, np.array([0, 0, 2, 1], np.uint8), (0, 5, 6))
    assert merged.tolist() == [0, 3, 6, 5]
    parts = jobs.tables_of_parts()
    assert [len(part) for part in parts] == [25, 27, 19, 24, 27] and all(part[0] == 0 for part in parts)
    assert sorted(label for part in parts for label in part[1:]) == [*range(1, 118)]


def test_a_ratio_is_over_the_same_repeat_and_memory_beside_it():
    def run(way: str, repeat: int, whole: float, peak: float) -> dict:
        row = {"machine": "m", "cpu": "c", "threads": 2, "model": "stunet_s", "ct": "a", "voxels": "8x8x8", "step": 0.5}
        row |= {"way": way, "mode": "baseline" if way != "optimised" else "openvino", "export": "", "repeat": repeat}
        row |= {"classes": 5, "network_s": whole / 2, "labels_s": whole / 2, "whole_s": whole, "peak_mb": 500}
        row |= {"sliding_window_mb": peak, "preparing_mb": 500}
        return row | {"prepare_s": 1, "tiles": 1, "same_labels": 1}

    runs = pd.DataFrame(
        [run("nnunet", 1, 8, 100), run("optimised", 1, 4, 30), run("nnunet", 2, 4, 90), run("optimised", 2, 1, 30)]
    )
    row = report.summary(runs).set_index("way").loc["optimised"]
    assert row.ratio == pytest.approx((2 * 4) ** 0.5) and row.ratio_low < row.ratio < row.ratio_high
    assert row.memory_ratio == pytest.approx(30 / 100) and row.parts_over_whole == pytest.approx(1)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--volume", "nowhere.nii.gz"), "no such file"),
        (("--labels", "labels.nii.gz"), "--labels is for a CT of --volume"),
        (("--volume", str(ROOT)), "is a folder"),
        (("--models", "stunet_s", "--volume", __file__, "--labels", "labels.txt"), "is not named as NIfTI"),
        (("--models", "stunet_s", "--volume", __file__, "--labels", "/proc/1.nii"), "cannot be written"),
        (("--volume", __file__, "--labels", "labels.nii"), "takes those of one model"),
        (("--weights", str(ROOT / "README.md"), str(ROOT / "README.md")), "has 1 networks, 2 files are named"),
        (("--models", "stunet_s", "--weights", str(ROOT / "README.md")), "README.md holds more than tensors"),
        (("--models", "stunet_s", "--volume", __file__, "--labels", f"{'x' * 300}.nii"), "too long"),
        (("--volume", "/\udcff.nii"), "not named in UTF-8"),
        (("--modes", "openvin"), "did you mean openvino"),
        (("--modes", "ncnn"), "ncnn has no fast 3D convolution"),
        (("--out", "/proc/nowhere"), "cannot be written to"),
    ],
)
def test_bad_flags_are_one_line(flags, says):
    with pytest.raises(Problem) as problem:
        benchmark.check(parse(benchmark.Settings(), "", flags))
    assert says in str(problem.value) and "\n" not in str(problem.value)


def test_nothing_to_report_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--report", "--out", "/nonexistent-folder"])
    with pytest.raises(Problem, match="holds no run"):
        benchmark.main()


def test_the_optimised_way_alone_has_no_ratio_and_another_scan_is_another_setting(tmp_path):
    row = {"machine": "m", "cpu": "c", "threads": 2, "model": "stunet_s", "voxels": "8x8x8", "step": 0.5, "repeat": 1}
    row |= {
        "way": "optimised",
        "mode": "openvino",
        "export": "",
        "classes": 5,
        "network_s": 1,
        "whole_s": 1,
        "tiles": 1,
    }
    row |= {"sliding_window_mb": 9, "preparing_mb": 9, "prepare_s": 1, "same_labels": np.nan, "tiles": 1}
    (tmp_path / "runs").mkdir()
    pd.DataFrame([row, row | {"ct": "a.nii"}, row | {"ct": "b.nii"}]).to_csv(tmp_path / "runs" / "m.csv", index=False)
    frame = report.summary(report.evidence(tmp_path))
    assert len(frame) == 3 and frame.ratio.isna().all()
    assert len(report.write(tmp_path, tmp_path)) == 2 and "a.nii, 8x8x8" in report.terminal(tmp_path)
    assert benchmark.turns_before(tmp_path / "runs" / "m.csv", "stunet_s", "a.nii", "8x8x8") == 1
    assert benchmark.turns_before(tmp_path / "runs" / "m.csv", "stunet_s", "c.nii", "8x8x8") == 0


@pytest.mark.slow
def test_a_scan_all_the_way_with_weights_of_its_own(tmp_path, monkeypatch):
    """Voxels of 3 mm, turned as a scanner may: labels come back in its orientation, with its header and the names of
    the classes. Runs are made in this process, with tiles of 64 voxels a side."""
    stock = []

    def started(job):
        if job.way == "official" and stock:  # once is enough: its runs differ by the precision of their sums alone
            shutil.copy(stock[0], job.labels)
            return stock[1]
        result = segment.run(job)
        stock.extend([job.labels, result] if job.way == "official" else [])
        return result

    monkeypatch.setattr(benchmark, "started", started)
    monkeypatch.setattr(totalsegmentator, "WIDTHS", (4,) * 6)
    torch.manual_seed(3)
    net = volume.assemble("totalsegmentator", 118)
    given = {"configurations": {"3d_fullres": {"patch_size": [64, 64, 64], "spacing": [3, 3, 3]}}}
    known = {"percentile_00_5": -900, "percentile_99_5": 300, "mean": -80, "std": 140}
    given["foreground_intensity_properties_per_channel"] = {"0": known}
    checkpoint = {"network_weights": net.state_dict(), "init_args": {"plans": given, "configuration": "3d_fullres"}}
    torch.save(checkpoint, tmp_path / "checkpoint.pth")
    units = np.random.default_rng(0).normal(0, 400, (40, 44, 36)).astype(np.int16)
    affine = np.array([[-3.0, 0, 0, 50], [0, 0, 3.0, -40], [0, 3.0, 0, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(units, affine)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "ct.nii.gz")
    flags = ["--models", "totalsegmentator_fast", "--volume", tmp_path / "ct.nii.gz", "--repeats", "1"]
    flags += ["--weights", tmp_path / "checkpoint.pth", "--modes", "baseline", "--labels", tmp_path / "labels.nii.gz"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, flags), "--out", str(tmp_path)])
    benchmark.main()
    labels = nibabel.load(tmp_path / "labels.nii.gz")
    assert labels.shape == units.shape and np.allclose(labels.affine, affine)
    for name in ("sform_code", "qform_code", "xyzt_units"):
        assert labels.header[name] == image.header[name], name
    assert labels.get_data_dtype() == np.uint8 and np.unique(np.asarray(labels.dataobj)).size > 3
    assert b"spleen" in labels.header.extensions[0].get_content()
    runs = pd.read_csv(next((tmp_path / "runs").glob("*.csv")))
    assert set(runs.way) == {"official", "optimised"} and runs.same_labels.min() > 0.99
    assert (tmp_path / "benchmark_plot.png").exists()


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(0, 400, (8, 8, 8)).astype(np.float32)
    given = plans_of(5, patch=(64, 64, 64), intensities=plans.Intensities(-900, 300, -80, 140))
    task = job(plans=(given,), labels=str(tmp_path / "labels.npy"))
    task.volume = written(tmp_path / "ct.nii", values, np.diag([1.5, 1.5, 1.5, 1]))
    result = benchmark.started(task)
    assert np.load(tmp_path / "labels.npy").shape == (8, 8, 8) and result.tiles == 1
    assert result.whole_s == pytest.approx(sum(result.parts_s.values()), rel=0.2)
    wrong = msgspec.json.encode(msgspec.structs.replace(task, weights=(__file__,))).decode()
    monkeypatch.setattr(sys, "argv", ["segment.py", wrong])
    with pytest.raises(SystemExit, match=r"^segment\.py: test_whole_ct\.py holds more than tensors"):
        runpy.run_path(str(FOLDER / "segment.py"), run_name="__main__")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Problem, match="ended with status 1"):
        benchmark.started(task)


def test_thick_slices_need_the_memory_of_the_networks_voxels():
    """117 classes at 1.5 mm of 300 slices of 5 mm, 512 x 512 of 0.75 mm: 4 bytes each there, 6 here."""
    task = job(way="nnunet", plans=(plans_of(117),), voxels=(300, 512, 512), spacing_mm=(5, 0.75, 0.75))
    expected = 117 * 300 * 512 * 512 * (4 + 6 * 5 / 1.5 / 4) / 1e9 + 2
    assert jobs.too_large(task, expected + 1) == "" and f"{expected:.0f} GB" in jobs.too_large(task, expected - 1)
