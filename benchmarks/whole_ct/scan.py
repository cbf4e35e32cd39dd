"""A CT from a NIfTI file, and labels back into one."""

import tempfile
import zlib
from pathlib import Path

import numpy as np

from segbench.problem import Problem


class Scan:
    """A CT as the networks want it: (D, H, W), from head to feet or back, in Hounsfield units or normalised."""

    def __init__(self, path: Path):
        import nibabel

        try:
            self.original = nibabel.load(path)
            canonical = nibabel.as_closest_canonical(self.original)
            values = np.asarray(canonical.dataobj, np.float32)
        except (nibabel.filebasedimages.ImageFileError, EOFError, OSError, zlib.error) as error:
            raise Problem(f"--volume {path}: {error}") from None
        if values.ndim != 3:
            raise Problem(f"--volume {path} has {values.ndim} dimensions, not three")
        if not np.isfinite(values).all():
            raise Problem(f"--volume {path}: {int((~np.isfinite(values)).sum())} voxels are no numbers")
        self.name, self.affine, self.values = path.name, canonical.affine, values.transpose(2, 1, 0)
        self.spacing_mm = tuple(float(side) for side in canonical.header.get_zooms()[::-1])

    def save(self, labels: np.ndarray, names: list[str], path: Path) -> None:
        """Beside the scan: its orientation, its header, and the names and colours of the classes in an extension, as
        TotalSegmentator writes them."""
        import nibabel
        from totalsegmentator.alignment import undo_canonical
        from totalsegmentator.nifti_ext_header import add_label_map_to_nifti

        image = nibabel.Nifti1Image(np.ascontiguousarray(labels.transpose(2, 1, 0)), self.affine)
        image = undo_canonical(image, self.original)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj, np.uint8), self.original.affine)
        nibabel.save(add_label_map_to_nifti(image, names), path)


def check_labels(path: Path) -> None:
    """Raises Problem where labels cannot be written, before anything runs for them."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise Problem(f"--labels {path} is not named as NIfTI, .nii or .nii.gz")
    if path.exists():
        raise Problem(f"--labels {path} is there already: nothing is overwritten")
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise Problem(f"--labels {path} cannot be written ({error.strerror})") from None
