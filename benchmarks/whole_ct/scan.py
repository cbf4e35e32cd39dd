"""A CT from a NIfTI file, and labels back into one."""

import sys
import tempfile
from pathlib import Path

import numpy as np

from segbench.problem import Problem

SYNTHETIC = "synthetic"  # what the CT of inputs.hounsfield is called
SYNTHETIC_MM = (1.5, 0.75, 0.75)
UNITS_MM = {0: 1, 1: 1000, 2: 1, 3: 0.001}  # of a header's code: unknown, m, mm, µm
SMALLEST_MM, LARGEST_MM, LARGEST_HU = 0.02, 100, 1e5  # what a voxel measures, and what it may hold
SMALLEST_SLOPE = 1e-6
FARTHEST_MM = 1e5  # from the scanner's origin
SAME_SPACING = 0.01  # pixdim may be rounded
SQUARE = 0.02  # cosine between two axes that rounding may leave; SimpleITK refuses more than 1e-6


class Scan:
    """A CT, checked: (D, H, W) in the order of its file, in Hounsfield units. Raises Problem for a file that cannot be
    read, or not in one way only."""

    def __init__(self, path: Path, name: str = ""):
        import nibabel

        self.path, self.name, at = path, name or path.name, f"--volume {path}"
        try:
            nibabel.imageglobals.logger.disabled = True  # it names what it mends
            self.image = nibabel.load(path)
            if not isinstance(self.image, nibabel.Nifti1Pair):
                raise Problem(f"{at} is {type(self.image).__name__}, not NIfTI of a volume")
            shape, kind, affine = self.image.shape, self.image.get_data_dtype(), np.array(self.image.affine)
            header, raw = self.image.header, raw_header(self.image)
            if 0 in raw["pixdim"][1:4]:
                raise Problem(f"{at}: its pixdim says voxels of 0 mm; mend its header")
            if 0 < abs(raw["scl_slope"]) < SMALLEST_SLOPE:  # SimpleITK takes 1 for it
                raise Problem(f"{at}: its scl_slope of {raw['scl_slope']:g} is not plausible; mend its header")
            unit = UNITS_MM.get(int(header["xyzt_units"]) & 7, 1)
            if len(shape) < 3 or min(shape, default=0) < 1 or any(side != 1 for side in shape[3:]):
                raise Problem(f"{at} has {len(shape)} dimensions ({'x'.join(map(str, shape))}), not three")
            if kind.fields is not None or kind.kind not in "iuf":
                raise Problem(f"{at} holds {kind}, not one number per voxel")
            spacing_mm = unit * np.asarray(header.get_zooms()[:3], float)
            self.affine = affine = np.diag([unit, unit, unit, 1]) @ affine
            check_geometry(at, header, spacing_mm, affine)
            values = np.asarray(self.image.dataobj).reshape(shape[:3])
        except Problem:
            raise
        except Exception as error:  # broken headers raise whatever their fields lead to
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise Problem(f"{at} cannot be read as NIfTI: {reason}") from None
        if not np.isfinite(values).all():
            raise Problem(f"{at}: {int((~np.isfinite(values)).sum())} voxels are no numbers")
        if (peak := np.abs([float(values.min()), float(values.max())]).max()) > LARGEST_HU:
            raise Problem(f"{at}: values of {peak:.3g} are no Hounsfield units")
        self.values = values.astype(np.float32).transpose(2, 1, 0)
        self.spacing_mm = tuple(float(side) for side in spacing_mm[::-1])
        plain = type(self.image) is nibabel.Nifti1Image and len(shape) == 3 and unit == 1
        plain = plain and not type(header).diagnose_binaryblock(raw.binaryblock)
        plain &= path.name.endswith((".nii", ".nii.gz")) and not skew(affine) > 1e-6
        self.is_plain = bool(plain and (header["sform_code"] or header["qform_code"]))
        if self.is_plain:
            check_values(at, path, self.values)
        if name != SYNTHETIC and self.values.min() >= 0:
            problem = f"values of {self.values.min():g} to {self.values.max():g}: Hounsfield units of air are -1000"
            print(f"warning: {at} has {problem}; labels are wrong where these are no Hounsfield units", file=sys.stderr)

    def file(self, folder: Path) -> Path:
        """What every tool reads the same: the file itself, or where it is in metres, has a fourth axis or the like, a
        copy in mm."""
        import nibabel

        if self.is_plain:
            return self.path.absolute()  # a link's target may be named otherwise
        left, _, right = np.linalg.svd(self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0))
        affine = self.affine.copy()
        affine[:3, :3] = left @ right * self.spacing_mm[::-1]
        copy = nibabel.Nifti1Image(self.values.transpose(2, 1, 0), affine)
        copy.header.set_xyzt_units("mm")
        nibabel.save(copy, folder / "scan.nii.gz")
        return folder / "scan.nii.gz"

    def save(self, labels: np.ndarray, names: list[str], path: Path) -> None:
        """Beside the scan: (D, H, W) in its order, with its header, and the names and colours of the classes in an
        extension, as TotalSegmentator writes them."""
        import nibabel
        from totalsegmentator.nifti_ext_header import add_label_map_to_nifti

        kind, header = np.uint8 if labels.max(initial=0) < 256 else np.int16, self.image.header.copy()
        header.set_data_dtype(kind)
        voxels = np.ascontiguousarray(labels.transpose(2, 1, 0), kind).reshape(self.image.shape)
        image = type(self.image)(voxels, None, header)  # with the header's own qform and sform
        nibabel.save(add_label_map_to_nifti(image, names), path)


def raw_header(image):
    """As it stands in the file: nibabel takes 1 for a pixdim of 0, and mends other fields."""
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as file:
        return type(image.header).from_fileobj(file, check=False)


def check_file(flag: str, path: Path) -> None:
    """Raises Problem for what is no file, and for a name that is no text: SimpleITK aborts at it."""
    try:
        str(path.absolute()).encode()
        if not path.is_file():
            raise Problem(f"--{flag} {path} is {'a folder' if path.is_dir() else 'no such file'}")
    except UnicodeEncodeError:
        raise Problem(f"--{flag} {str(path)!r} is not named in UTF-8: rename it") from None
    except OSError as error:
        raise Problem(f"--{flag} {path} cannot be read ({error.strerror})") from None


def check_values(at: str, path: Path, values: np.ndarray) -> None:
    """Raises Problem where SimpleITK, which nnU-Net reads with, cannot read a plain file or sees other values."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        seen = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    except RuntimeError as error:
        raise Problem(f"{at} cannot be read by SimpleITK: {str(error).strip().splitlines()[-1]}") from None
    if seen.shape != values.shape or not np.allclose(seen, values, rtol=1e-5, atol=1e-3):
        raise Problem(f"{at}: SimpleITK reads other values than nibabel; mend its scl_slope, scl_inter or vox_offset")


def check_geometry(at: str, header, spacing_mm: np.ndarray, affine: np.ndarray) -> None:
    """Raises Problem for a spacing that is none, or another one by each part of the header."""
    import nibabel

    of_affine = np.linalg.norm(affine[:3, :3], axis=0)
    text = " x ".join(f"{side:g}" for side in spacing_mm)
    if not np.isfinite(affine).all() or not ((spacing_mm >= SMALLEST_MM) & (spacing_mm <= LARGEST_MM)).all():
        raise Problem(f"{at}: voxels of {text} mm are not plausible; mend its header")
    if np.abs(affine[:3, 3]).max() > FARTHEST_MM:
        raise Problem(f"{at}: an origin at {' '.join(f'{mm:g}' for mm in affine[:3, 3])} mm is not plausible")
    if (np.abs(of_affine / spacing_mm - 1) > SAME_SPACING).any():
        of_affine = " x ".join(f"{side:g}" for side in of_affine)
        raise Problem(f"{at}: its pixdim says voxels of {text} mm, its affine {of_affine} mm; mend its header")
    if skew(affine) > SQUARE:
        raise Problem(f"{at}: its axes are not at right angles (a tilted gantry?); resample it first")
    if header["sform_code"] and header["qform_code"]:
        codes = ["".join(nibabel.aff2axcodes(form)) for form in (header.get_sform(), header.get_qform())]
        if codes[0] != codes[1]:
            raise Problem(f"{at}: its sform says {codes[0]}, its qform {codes[1]}; mend its header")


def skew(affine: np.ndarray) -> float:
    """The largest cosine between two axes."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())


def read(path: str, canonical: bool) -> tuple[np.ndarray, list[float]]:
    """Values (D, H, W) and spacing in mm of a plain file, in its own order or turned to be as near as can be to RAS."""
    import nibabel

    image = nibabel.load(path)
    image = nibabel.as_closest_canonical(image) if canonical else image
    return np.asarray(image.dataobj, np.float32).transpose(2, 1, 0), [float(s) for s in image.header.get_zooms()[::-1]]


def undo_canonical(labels: np.ndarray, path: str) -> np.ndarray:
    """Labels (D, H, W) of a canonical scan, in the order of its file."""
    import nibabel
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    back = ornt_transform(axcodes2ornt("RAS"), io_orientation(nibabel.load(path).affine))
    return apply_orientation(labels.transpose(2, 1, 0), back).transpose(2, 1, 0)


def synthetic(voxels: tuple[int, int, int], folder: Path) -> Scan:
    """The synthetic CT (D, H, W) as a file, which both ways start from."""
    import nibabel

    from segbench import inputs  # torch, which --help does not need

    values = inputs.hounsfield(voxels)[0].round().astype(np.int16)
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([*SYNTHETIC_MM[::-1], 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "synthetic.nii.gz")
    return Scan(folder / "synthetic.nii.gz", SYNTHETIC)


def check_labels(path: Path) -> None:
    """Raises Problem where labels cannot be written, before anything runs for them."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise Problem(f"--labels {path} is not named as NIfTI, .nii or .nii.gz")
    try:
        if path.exists():
            raise Problem(f"--labels {path} is there already: nothing is overwritten")
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: of a link to itself
        raise Problem(f"--labels {path} cannot be written ({getattr(error, 'strerror', error)})") from None
