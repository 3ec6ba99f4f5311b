"""Single-file NIfTI, and the geometry and units of NIfTI headers."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from halebrain.core.types import Affine, Placement
from halebrain.io.formats.base import (
    FORMATS,
    Image,
    ScanFormat,
    checked_affine,
    missing_affine,
    without_trailing_ones,
)
from halebrain.io.formats.loading import Opener, first_bytes, opened, read_header, read_values

_UNITS_MM = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
"""Codes of `xyzt_units` that are not mm; files without a unit are taken as mm, the common practice."""
DAMAGED_QFORM = "its qform cannot be read; its sform is used"


def read_nifti(path: Path) -> Image:
    """Read the header of a NIfTI file, packed or not."""
    second = first_bytes(path, 8)[4:] in (b"n+2\0", b"ni2\0")
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    return placed_image(partial(opened, kind, {"image": path}), path)


def take_image(image: Any, name: Path) -> Image:
    """Take a nibabel image in memory, or one that nibabel will read, like a file."""
    return placed_image(lambda: nullcontext(image), name)


# What is infinite in a header is refused below; on the way there numpy would warn of it on stderr.
@np.errstate(all="ignore")
def placed_image(opener: Opener, path: Path) -> Image:
    """Return a nibabel image whose header says where it lies, in mm whatever its units."""
    image = read_header(opener, path, "NIfTI")
    shape, load = without_trailing_ones(image.shape), partial(read_values, opener, path, "NIfTI")
    if not isinstance(image, nibabel.Nifti1Pair):
        return Image(shape, checked_affine(image.affine, path), load)
    header = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise missing_affine(path, "a header with sform and qform code 0")
    unit, scale = _UNITS_MM.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    affine: Affine = np.diag([scale, scale, scale, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    notes = () if scale == 1.0 else (f"its header gives {unit}: taken as such and converted to mm",)
    placement, damaged = _placement(header, scale)
    return Image(shape, checked_affine(affine, path), load, notes + damaged, placement)


def _placement(header: Any, scale: float) -> tuple[Placement, tuple[str, ...]]:
    """Return both placements of a header in mm, and a note where one is damaged."""
    sides = np.diag([scale, scale, scale, 1.0])
    matrices: dict[str, Affine | None] = {"sform": None, "qform": None}
    damaged: tuple[str, ...] = ()
    if int(header["sform_code"]) > 0:
        matrices["sform"] = sides @ header.get_sform()
    if int(header["qform_code"]) > 0:
        try:
            matrices["qform"] = _finite(sides @ header.get_qform())
        except (HeaderDataError, ValueError):
            damaged = (DAMAGED_QFORM,)
    fields = {
        "pixdim": header["pixdim"][:4] * np.array([1.0, scale, scale, scale]),
        **{f"quatern_{letter}": header[f"quatern_{letter}"] for letter in "bcd"},
        **{f"qoffset_{letter}": header[f"qoffset_{letter}"] * scale for letter in "xyz"},
        **{f"srow_{letter}": header[f"srow_{letter}"] * scale for letter in "xyz"},
        **{f"{form}_code": header[f"{form}_code"] for form in ("qform", "sform")},
    }
    listed = {name: tuple(float(v) for v in np.atleast_1d(value)) for name, value in fields.items()}
    return Placement(listed, **matrices), damaged


def _finite(matrix: Affine) -> Affine:
    if not np.isfinite(matrix).all():
        raise ValueError("a matrix that is not finite")
    return matrix


def _is_single(head: bytes) -> bool:
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


FORMATS.register("nifti")(ScanFormat("NIfTI", (".nii", ".nii.gz"), read_nifti, recognises=_is_single))
