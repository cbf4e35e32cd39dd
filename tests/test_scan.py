"""benchmarks/whole_ct/scan.py: NIfTI as it occurs is read as SimpleITK and nibabel read it, or refused in a line."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from benchmarks.whole_ct import jobs, plans, scan
from benchmarks.whole_ct.scan import Scan
from segbench.problem import Problem

AFFINE = np.diag([0.8, 0.8, 5, 1])
UNITS = np.random.default_rng(0).normal(0, 300, (9, 8, 7)).round().astype(np.int16)  # (W, H, D)


def written(path, values=UNITS, affine=AFFINE, codes=(2, 1), fields=()):
    """A file with its affine as sform and qform, and then with fields of its header changed as they stand in it."""
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, codes[0])
    image.set_qform(affine, codes[1])
    nibabel.save(image, path)
    if fields:
        raw = bytearray(path.read_bytes())
        header = np.frombuffer(raw, nibabel.nifti1.header_dtype, 1)[0]
        for name, place, value in fields:
            if place is None:
                header[name] = value
            else:
                header[name][place] = value
        raw[: header.nbytes] = header.tobytes()
        path.write_bytes(raw)
    return path


NONE = ("sform_code", None, 0)
BROKEN = {
    "quaternion": [NONE, *((f"quatern_{name}", None, 0.9) for name in "bcd")],
    "datatype 0": [("datatype", None, 0)],
    "datatype 1": [("datatype", None, 1)],
    "datatype 999": [("datatype", None, 999)],
    "dim 9": [("dim", 0, 9)],
    "dim 0": [("dim", 0, 0)],
    "a side of 0": [("dim", 2, 0)],
    "a negative side": [("dim", 2, -8)],
    "2D": [("dim", 0, 2)],
    "a sform of zeros": [(f"srow_{name}", None, 0) for name in "xyz"],
    "a sform of NaN": [("srow_y", 1, np.nan)],
    "pixdim NaN": [("pixdim", 3, np.nan)],
    "pixdim inf": [("pixdim", 3, np.inf)],
    "pixdim 0": [("pixdim", 3, 0)],
    "pixdim 0 and nothing else": [("pixdim", 3, 0), NONE, ("qform_code", None, 0)],
    "pixdim of another spacing": [("pixdim", 1, 1.6), ("pixdim", 2, 1.6)],
    "metres that are mm": [("xyzt_units", None, 1)],
    "a qform turned otherwise": [("quatern_d", None, 1)],
    "a tilted gantry": [("srow_y", 2, 1.2)],
    "a slope of nothing": [("scl_slope", None, 1e-38)],
    "no slope but an intercept": [("scl_slope", None, 0), ("scl_inter", None, -1024)],
    "voxels that begin with the header": [("vox_offset", None, 0)],
    "magic": [("magic", None, b"abc")],
    "slope NaN and inter 1e30": [("scl_slope", None, 1), ("scl_inter", None, 1e30)],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_header_is_one_line(tmp_path, name):
    path = written(tmp_path / "ct.nii", fields=BROKEN[name])
    with pytest.raises(Problem) as problem:
        Scan(path)
    assert str(path) in str(problem.value) and "\n" not in str(problem.value)


COLOURS = np.zeros((9, 8, 7), [("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (COLOURS, "not one number per voxel"),
        (np.full((9, 8, 7), 1e30), "1e\\+30 are no Hounsfield units"),
        (np.full((9, 8, 7), np.nan), "504 voxels are no numbers"),
        (np.zeros((9, 8, 7, 2), np.int16), "9x8x7x2"),
        (UNITS.astype(np.complex64), "not one number per voxel"),
    ],
)
def test_values_that_are_no_ct_are_refused(tmp_path, values, says):
    with pytest.raises(Problem, match=says):
        Scan(written(tmp_path / "ct.nii.gz", values))


def test_other_formats_and_torn_files_are_refused(tmp_path):
    nibabel.save(nibabel.MGHImage(UNITS.astype(np.float32), AFFINE), tmp_path / "ct.mgz")
    torn = written(tmp_path / "ct.nii.gz")
    torn.write_bytes(torn.read_bytes()[:400])
    axes = [nibabel.cifti2.ScalarAxis(["a"]), nibabel.cifti2.BrainModelAxis.from_mask(np.ones(3), "thalamus_left")]
    nibabel.save(nibabel.Cifti2Image(np.zeros((1, 3), np.float32), axes), tmp_path / "a.dscalar.nii")
    for name in ("ct.mgz", "ct.nii.gz", "a.dscalar.nii"):
        with pytest.raises(Problem, match=name):
            Scan(tmp_path / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_plain_file_is_used_itself(tmp_path, suffix):
    path = written(tmp_path / f"ct{suffix}")
    read = Scan(path)
    image = SimpleITK.ReadImage(str(path))
    assert read.file(tmp_path) == path
    assert np.array_equal(read.values, SimpleITK.GetArrayFromImage(image))
    assert read.spacing_mm == pytest.approx(image.GetSpacing()[::-1])


def test_a_file_is_read_by_the_name_of_its_link(tmp_path):
    """As data stores have it: the file itself is named by its digest."""
    written(tmp_path / "ct.nii.gz").rename(tmp_path / "d41d8cd9")
    (tmp_path / "ct.nii.gz").symlink_to(tmp_path / "d41d8cd9")
    assert np.array_equal(scan.read(str(Scan(tmp_path / "ct.nii.gz").file(tmp_path)), False)[0], UNITS.T)


def test_a_damaged_file_is_refused(tmp_path):
    path = written(tmp_path / "ct.nii.gz")
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 255  # of its checksum, which nibabel does not read
    path.write_bytes(damaged)
    with pytest.raises(Problem, match="SimpleITK"):
        Scan(path)


SKEWED = AFFINE + np.array([[0, 0, 0, 0], [0, 0, 0.02, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
READABLE = {
    "metres": {"affine": np.diag([0.0008, 0.0008, 0.005, 1]), "fields": [("xyzt_units", None, 1)]},
    "microns": {"affine": np.diag([800, 800, 5000, 1]), "fields": [("xyzt_units", None, 3)]},
    "4D of one volume": {"values": UNITS[..., None]},
    "a negative pixdim": {"fields": [("pixdim", 3, -5)]},
    "no affine at all": {"codes": (0, 0)},
    "axes not quite at right angles": {"affine": SKEWED, "codes": (2, 0)},
}


@pytest.mark.parametrize("name", READABLE)
def test_what_can_be_read_is_read_by_all_tools_alike(tmp_path, name):
    """Of these a copy is made, which SimpleITK and nibabel take for the same 0.8 x 0.8 x 5 mm."""
    read = Scan(written(tmp_path / "ct.nii", **READABLE[name]))
    copy = read.file(tmp_path)
    image = SimpleITK.ReadImage(str(copy))
    assert copy.name == "scan.nii.gz" and image.GetDimension() == 3
    assert image.GetSpacing() == pytest.approx((0.8, 0.8, 5), rel=1e-3)
    assert nibabel.load(copy).header.get_zooms() == pytest.approx((0.8, 0.8, 5), rel=1e-3)
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), UNITS.transpose(2, 1, 0))
    assert read.spacing_mm == pytest.approx((5, 0.8, 0.8), rel=1e-3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "LAS"),
        ({"affine": np.array([[0, 0, -5, 3], [-0.8, 0, 0, 4], [0, 0.8, 0, 5], [0, 0, 0, 1.0]])}, "PSL"),
        ({"values": UNITS[..., None]}, "RAS"),
        ({"affine": np.diag([0.0008, 0.0008, 0.005, 1]), "fields": [("xyzt_units", None, 1)]}, "RAS"),
    ],
)
def test_labels_come_back_with_the_header_of_the_scan(tmp_path, given, expected):
    given = {"affine": np.diag([-0.8, 0.8, 5, 1])} | given if expected == "LAS" else given
    path = written(tmp_path / "ct.nii", **given)
    read = Scan(path)
    labels = np.arange(read.values.size, dtype=np.uint16).reshape(read.values.shape) % 5
    read.save(labels, ["a", "b", "c", "d"], tmp_path / "labels.nii.gz")
    before, after = nibabel.load(path), nibabel.load(tmp_path / "labels.nii.gz")
    assert after.shape == before.shape and after.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(after.dataobj).reshape(read.values.T.shape), labels.transpose(2, 1, 0))
    assert np.allclose(before.affine, after.affine) and nibabel.aff2axcodes(after.affine) == tuple(expected)
    for name in ("sform_code", "qform_code", "xyzt_units", "quatern_b", "quatern_c", "quatern_d", "qoffset_x"):
        assert before.header[name] == after.header[name], name
    assert np.array_equal(before.header["pixdim"], after.header["pixdim"])


@pytest.mark.parametrize("values", [UNITS > 0, np.abs(UNITS) % 256])
def test_a_mask_or_a_picture_is_warned_of(tmp_path, capsys, values):
    Scan(written(tmp_path / "ct.nii", values.astype(np.uint8)))
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and "Hounsfield units" in warning and warning.count("\n") == 1


def test_a_ct_is_not_warned_of(tmp_path, capsys):
    Scan(written(tmp_path / "ct.nii"))
    scan.synthetic((8, 9, 10), tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("resolution_mm", [0, 1.5])
@pytest.mark.parametrize("shape", [(9, 9, 1), (900, 900, 9)])
def test_a_scan_of_nothing_or_of_billions_of_voxels_is_refused(tmp_path, resolution_mm, shape):
    """One slice of 0.6 mm is no slice of 1.5 mm."""
    affine = np.diag([*[0.6 if shape[0] == 9 else 99] * 3, 1])
    read = Scan(written(tmp_path / "ct.nii", np.full(shape, -1000, np.int16), affine))
    with pytest.raises(Problem, match="voxels of 1\\.5 x 1\\.5 x 1\\.5 mm"):
        jobs.check_size(read, resolution_mm, plans.Plans((1.5,) * 3, ["background", "a"]))
