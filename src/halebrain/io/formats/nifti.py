"""NIfTI in a single file."""

from pathlib import Path

import nibabel

from halebrain.io.formats.base import FORMATS, Image, ScanFormat, checked_affine, missing_affine
from halebrain.io.formats.loading import load


def read_nifti(path: Path) -> Image:
    """Read a `.nii` or `.nii.gz`.

    Raises:
        DataError: It is damaged, no NIfTI, or its affine is missing or singular.
    """
    image, data = load(path, "NIfTI", nibabel.load)
    if int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
        raise missing_affine(path, "a header with sform and qform code 0")
    return Image(data, checked_affine(image.affine, path))


FORMATS.register("nifti")(ScanFormat("NIfTI", (".nii", ".nii.gz"), read_nifti))
