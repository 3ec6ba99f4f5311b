"""Any scan into memory, whatever its format; the same is asked of all of them."""

from pathlib import Path
from typing import Any

import numpy as np

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.io.files import is_dicom
from halebrain.io.formats import FORMATS, Image, ScanFormat
from halebrain.io.formats.nifti import take_image
from halebrain.io.selection import split_selection

SUFFIXES = tuple(suffix for name in FORMATS for suffix in FORMATS.get(name).suffixes)
"""Endings of the files that stand for a scan in a folder; a pair is known by its header."""
_ALL_SUFFIXES = SUFFIXES + tuple(suffix for name in FORMATS for suffix in FORMATS.get(name).companions)
MAP_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix not in FORMATS.get("dicom").suffixes)
"""Endings of the files that a map or a label image may have."""
_MIN_VOXELS = 8
"""Fewer voxels than this along an axis are a localiser or a mistake, not a scan."""
_GRID_TOLERANCE_MM = 1e-3


def read_volume(path: Path) -> Volume:
    """Read one three-dimensional scan.

    Voxels keep their order on disk (DICOM: the nearest to right, anterior, superior). A fourth axis of length one is
    dropped; any data type, scaling and orientation is taken as the header says.

    Args:
        path: NIfTI, a `.hdr`/`.img` pair, MGH, or DICOM (folder, archive, multi-frame file; `PATH#NUMBER`: one series).

    Raises:
        MissingInputError: There is no such file.
        DataError: It is none of these, damaged, not 3-D, empty, constant, not finite, or its affine is missing or
            singular.
        UnavailableError: It is compressed in a way that needs another package.
    """
    return _checked(_load(path), path)


def volume_of(image: Any, name: str = "image") -> Volume:
    """Take a scan from an image of nibabel's; the same is asked of it as of a file.

    Args:
        image: Any spatial image of nibabel, with one volume.
        name: What it is called in messages.

    Raises:
        DataError: As `read_volume`.
    """
    return _checked(take_image(image, Path(name)), Path(name))


def _checked(image: Image, path: Path) -> Volume:
    data = _three_dimensional(image.data, path, "a scan must have three dimensions")
    if min(data.shape) < _MIN_VOXELS:
        raise DataError(
            f"a scan needs at least {_MIN_VOXELS} voxels along each axis",
            received=f"shape {data.shape}",
            where=path,
            remedy="give the whole scan, no localiser",
        )
    finite = np.isfinite(data)
    if not finite.all():
        raise DataError(
            "intensities must be finite",
            received=f"{int((~finite).sum())} NaN or infinite voxels",
            where=path,
            remedy="find out what made them, or set them to 0",
        )
    if data.min() == data.max():
        kind = "empty (all zero)" if not data.any() else f"constant ({data.flat[0]:g})"
        raise DataError(
            "a scan must show something",
            received=f"an image that is {kind}",
            where=path,
            remedy="give the scan as it was acquired",
        )
    return Volume(data, image.affine, name=str(path), notes=image.notes)


def read_array(path: Path) -> tuple[FloatArray, Affine]:
    """Read any three-dimensional image, a map or labels, with its affine; empty and constant ones too.

    Raises:
        MissingInputError: There is no such file.
        DataError: It is in no known format, damaged, not 3-D, or its affine is missing or singular.
    """
    image = _load(path)
    return _three_dimensional(image.data, path, "an image must have three dimensions"), image.affine


def read_mask(path: Path, like: Volume) -> MaskArray:
    """Read a mask (any value > 0) that lies on the grid of `like`.

    Raises:
        MissingInputError: There is no such file.
        DataError: It is unreadable, or on another grid.
    """
    return _checked_mask(_load(path), path, like)


def mask_of(image: Any, like: Volume, name: str = "brain mask") -> MaskArray:
    """Take a mask (any value > 0) on the grid of `like` from an image of nibabel's.

    Raises:
        DataError: It is unreadable, or on another grid.
    """
    return _checked_mask(take_image(image, Path(name)), Path(name), like)


def _checked_mask(image: Image, path: Path, like: Volume) -> MaskArray:
    data = image.data[..., 0] if image.data.ndim == 4 and image.data.shape[3] == 1 else image.data
    if data.shape != like.shape or not np.allclose(image.affine, like.affine, atol=_GRID_TOLERANCE_MM):
        raise DataError(
            f"a mask must lie on the grid of its scan {like.shape} of '{like.name}'",
            received=f"shape {data.shape}" + (" with another affine" if data.shape == like.shape else ""),
            where=path,
            remedy="resample the mask to the scan",
        )
    if not np.isfinite(data).all():
        raise DataError(
            "a mask must be finite", received="NaN or infinite voxels", where=path, remedy="set those voxels to 0"
        )
    mask: MaskArray = np.asarray(data > 0)
    return mask


def stem_of(path: Path) -> str:
    """Return the name of a scan without the ending of its format; a chosen series stays in it (`a#4` → `a-series4`)."""
    place, series = split_selection(path)
    name = place.name or place.resolve().name
    suffix = "" if place.is_dir() else _suffix_of(name)
    return name[: len(name) - len(suffix)] + (f"-series{series}" if series else "")


def format_of(path: Path) -> ScanFormat:
    """Return the format of a scan, by its name or, for DICOM, by what it is.

    Raises:
        DataError: It is in none that is known.
    """
    place, series = split_selection(path)
    if place.is_dir() or series is not None:
        return FORMATS.get("dicom")
    known = [FORMATS.get(name) for name in FORMATS]
    suffix = _suffix_of(place.name)
    for kind in known:
        if suffix and suffix in kind.suffixes + kind.companions:
            return kind
    if is_dicom(place):
        return FORMATS.get("dicom")
    raise DataError(
        f"a scan must be one of {', '.join(sorted(kind.title for kind in known))}",
        received=repr(place.suffix),
        where=path,
        remedy=f"known endings are {', '.join(SUFFIXES)}",
    )


def _suffix_of(name: str) -> str:
    return max((s for s in _ALL_SUFFIXES if name.lower().endswith(s)), key=len, default="")


def _load(path: Path) -> Image:
    place, _ = split_selection(path)
    if not place.exists():
        raise MissingInputError("a scan must exist", where=path, remedy="check the path given")
    return format_of(path).read(path)


def _three_dimensional(data: FloatArray, path: Path, rule: str) -> FloatArray:
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(rule, received=f"shape {data.shape}", where=path, remedy="give one volume")
    return np.ascontiguousarray(data, dtype=np.float32)
