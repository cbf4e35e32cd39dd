"""Any header of a scan, and any plans of a checkpoint: followed as the tools read them, or refused in one line."""

import copy
from pathlib import Path

import msgspec
import nibabel
import numpy as np
import SimpleITK
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from benchmarks.whole_ct import plans
from benchmarks.whole_ct.scan import Scan
from segbench.problem import Problem

from .test_scan import written
from .test_whole_ct_plans import ARGUMENTS

HEADER = 352  # bytes before the values
STATE = {"seg_outputs.0.weight": torch.zeros(3, 1)}


def one_line(problem: Problem) -> bool:
    return "\n" not in str(problem) and len(str(problem)) < 600


@given(
    st.lists(
        st.tuples(st.integers(0, HEADER - 1), st.sampled_from([0, 127, 128, 255]) | st.integers(0, 255)), max_size=6
    ),
    st.none() | st.integers(0, HEADER + 50),
)
def test_any_header(tmp_path, changes, size):
    raw = bytearray(written(tmp_path / "a.nii").read_bytes())
    for place, value in changes:
        raw[place] = value
    (tmp_path / "a.nii").write_bytes(raw[:size])
    try:
        scan = Scan(tmp_path / "a.nii")
    except Problem as problem:
        assert one_line(problem)
    else:
        other = SimpleITK.ReadImage(str(scan.file(tmp_path)))
        assert np.array_equal(SimpleITK.GetArrayFromImage(other).astype(np.float32), scan.values)
        assert np.allclose(other.GetSpacing()[::-1], scan.spacing_mm, rtol=1e-3)


@given(
    st.tuples(*[st.floats(0.3, 12)] * 3),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.sampled_from([np.int16, np.int32, np.float32, np.float64]),
    st.tuples(*[st.integers(1, 6)] * 3),
)
def test_a_sound_scan_is_read_and_its_labels_have_its_header(tmp_path, spacing, axes, signs, kind, shape):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * spacing)[axes] * signs
    values = np.random.default_rng(0).integers(-1000, 1000, shape).astype(kind)
    scan = Scan(written(tmp_path / "a.nii.gz", values, affine))
    assert np.array_equal(scan.values.transpose(2, 1, 0), values)
    assert np.allclose(scan.spacing_mm[::-1], spacing, rtol=1e-5)
    (tmp_path / "labels.nii.gz").unlink(missing_ok=True)
    scan.save((scan.values > 0).astype(np.uint8), ["positive"], tmp_path / "labels.nii.gz")
    labels = nibabel.load(tmp_path / "labels.nii.gz")
    assert np.allclose(labels.affine, affine, atol=1e-4) and np.array_equal(np.asarray(labels.dataobj), values > 0)


def places(entries: object, before: tuple = ()) -> list[tuple]:
    """Where something can be changed."""
    if not isinstance(entries, dict):
        return []
    return [path for key, inner in entries.items() for path in ((*before, key), *places(inner, (*before, key)))]


VALUES = [
    None,
    0,
    -1,
    3,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "3d_fullres",
    "../../etc",
    [],
    [1],
    [0, 1, 2],
    {},
    {0: {}},
]
VALUES += [True, np.float32(2), np.zeros(3), np.array(["a"], object), torch.zeros(3), (1, 2, 3), b"a", {1}, 10**30]
VALUES += [[1.5] * 3, [128] * 3, [float("nan")] * 3]


@given(st.lists(st.tuples(st.sampled_from(places(ARGUMENTS)), st.sampled_from(VALUES)), max_size=4))
def test_any_plans(changes):
    arguments = copy.deepcopy(ARGUMENTS)
    for (*outer, last), value in changes:
        entries = arguments
        for key in outer:
            entries = entries.get(key) if isinstance(entries, dict) else None
        if isinstance(entries, dict):
            entries[last] = copy.deepcopy(value)
    try:
        read = plans.read(Path("a.pth"), STATE, {"init_args": arguments}, 1.5, ["background", "a", "b"])
    except Problem as problem:
        assert one_line(problem) and "a.pth" in str(problem)
    else:
        assert msgspec.json.decode(msgspec.json.encode(read), type=plans.Plans) == read


@given(
    st.tuples(*[st.floats(0.3, 12)] * 3),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([32, 96, 128])] * 3),
    st.sampled_from(["CTNormalization", "ZScoreNormalization", "NoNormalization"]),
    st.sampled_from([None, True, False]),
)
def test_sound_plans_are_those_that_nnunet_reads(spacing, transpose, patch, scheme, separate):
    arguments = copy.deepcopy(ARGUMENTS)
    backward = [int(axis) for axis in np.argsort(transpose)]
    arguments["plans"] |= {"transpose_forward": list(transpose), "transpose_backward": backward}
    full = arguments["plans"]["configurations"]["3d_fullres"]
    full |= {
        "spacing": list(spacing),
        "patch_size": list(patch),
        "normalization_schemes": [scheme],
        "architecture": None,
    }
    full["resampling_fn_data_kwargs"] = full["resampling_fn_data_kwargs"] | {"force_separate_z": separate}
    read = plans.read(Path("a.pth"), STATE, {"init_args": arguments}, 1.5, [])
    given_to_nnunet, data_set = read.for_nnunet()
    ours, theirs = PlansManager(given_to_nnunet), PlansManager(arguments["plans"])
    assert ours.transpose_forward == theirs.transpose_forward == list(transpose)
    assert ours.transpose_backward == theirs.transpose_backward
    ours, theirs = (manager.get_configuration("3d_fullres") for manager in (ours, theirs))
    for name in ("spacing", "patch_size", "normalization_schemes", "use_mask_for_norm"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.configuration["resampling_fn_data_kwargs"]["force_separate_z"] == separate
    assert data_set["labels"] == arguments["dataset_json"]["labels"]
