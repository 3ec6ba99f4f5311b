"""NIfTI in a single file."""

from pathlib import Path
from typing import Any

import nibabel

from halebrain.core.types import FloatArray
from halebrain.io.formats.base import FORMATS, Image, ScanFormat, checked_affine, missing_affine
from halebrain.io.formats.loading import load


def read_nifti(path: Path) -> Image:
    """Read a `.nii` or `.nii.gz`.

    Raises:
        DataError: It is damaged, no NIfTI, or its affine is missing or singular.
    """
    return _placed(*load(path, "NIfTI", nibabel.load), path)


def take_image(image: Any, name: Path) -> Image:
    """Take an image of nibabel's that is in memory, or that nibabel will read, as a file of its own would be.

    Args:
        image: Any spatial image of nibabel.
        name: What it is called in messages.

    Raises:
        DataError: Its file is damaged, or its affine is missing or singular.
    """
    return _placed(*load(name, "NIfTI", lambda _: image), name)


def _placed(image: Any, data: FloatArray, path: Path) -> Image:
    nifti = isinstance(image, nibabel.Nifti1Pair)
    if nifti and int(image.header["sform_code"]) == 0 and int(image.header["qform_code"]) == 0:
        raise missing_affine(path, "a header with sform and qform code 0")
    return Image(data, checked_affine(image.affine, path))


FORMATS.register("nifti")(ScanFormat("NIfTI", (".nii", ".nii.gz"), read_nifti))
