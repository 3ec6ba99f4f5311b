"""NIfTI in and out: every header checked on the way in, every file whole and reproducible on the way out."""

import gzip
import zlib
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.filebasedimages import ImageFileError

from halebrain.core.atomic import atomic_path
from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.types import TEMPLATE_SPACE, Affine, MaskArray, Volume

SUFFIXES = (".nii", ".nii.gz")
_MIN_VOXELS = 8
"""Fewer voxels than this along an axis are a localiser or a mistake, not a scan."""
_GRID_TOLERANCE_MM = 1e-3
_UNREADABLE = (ImageFileError, EOFError, OSError, zlib.error, gzip.BadGzipFile, ValueError, TypeError, OverflowError)


def read_volume(path: Path) -> Volume:
    """Read one three-dimensional scan in its voxel order on disk.

    A fourth axis of length one is dropped; any data type, scaling and orientation is taken as the header says.

    Raises:
        MissingInputError: There is no such file.
        DataError: It is no NIfTI, damaged, not 3-D, empty, constant, not finite, or its affine is missing or singular.
    """
    image, data = _load(path)
    affine = _checked_affine(image, path)
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(
            "a scan must have three dimensions",
            received=f"shape {data.shape}",
            where=path,
            remedy="give one volume",
        )
    if min(data.shape) < _MIN_VOXELS:
        raise DataError(
            f"a scan needs at least {_MIN_VOXELS} voxels along each axis",
            received=f"shape {data.shape}",
            where=path,
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
        raise DataError("a scan must show something", received=f"an image that is {kind}", where=path)
    return Volume(np.ascontiguousarray(data, dtype=np.float32), affine, name=str(path))


def read_array(path: Path) -> tuple[npt.NDArray[np.float32], Affine]:
    """Read any three-dimensional NIfTI, a map or a label image, with its affine; empty and constant ones too.

    Raises:
        MissingInputError: There is no such file.
        DataError: It is no NIfTI, damaged, not 3-D, or its affine is missing or singular.
    """
    image, data = _load(path)
    affine = _checked_affine(image, path)
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError("an image must have three dimensions", received=f"shape {data.shape}", where=path)
    return np.ascontiguousarray(data, dtype=np.float32), affine


def read_mask(path: Path, like: Volume) -> MaskArray:
    """Read a mask (any value > 0) that lies on the grid of `like`.

    Raises:
        MissingInputError: There is no such file.
        DataError: It is unreadable, or on another grid.
    """
    image, data = _load(path)
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
    affine = _checked_affine(image, path)
    if data.shape != like.shape or not np.allclose(affine, like.affine, atol=_GRID_TOLERANCE_MM):
        raise DataError(
            f"a mask must lie on the grid of its scan {like.shape} of '{like.name}'",
            received=f"shape {data.shape}" + (" with another affine" if data.shape == like.shape else ""),
            where=path,
            remedy="resample the mask to the scan",
        )
    if not np.isfinite(data).all():
        raise DataError("a mask must be finite", received="NaN or infinite voxels", where=path)
    mask: MaskArray = np.asarray(data > 0)
    return mask


def write_volume(
    path: Path,
    data: npt.NDArray[Any],
    affine: Affine,
    *,
    dtype: npt.DTypeLike = np.float32,
    space: str = "native",
    scale: float | Literal["auto"] = 1.0,
) -> None:
    """Write a NIfTI atomically; the same content gives the same bytes.

    Args:
        path: Ends in `.nii` or `.nii.gz`.
        data: Array `(i, j, k)`.
        affine: Voxel-to-world in mm, RAS+.
        dtype: Data type on disk.
        space: "native" (scanner coordinates) or the template's name; becomes the code of the affine.
        scale: Intensity of one stored unit, for integer types; "auto" spreads [0, max] over an int16.
    """
    if scale == "auto":
        scale, dtype = max(float(np.max(data)), 1e-12) / 32000, np.int16
    stored = np.asarray(data, dtype=np.float64) / scale if scale != 1.0 else np.asarray(data)
    if np.issubdtype(np.dtype(dtype), np.integer) and np.issubdtype(stored.dtype, np.floating):
        stored = np.rint(stored)
    image = nibabel.Nifti1Image(stored.astype(dtype), affine)
    code = "mni" if space == TEMPLATE_SPACE else "scanner"
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code)
    image.header.set_xyzt_units("mm")
    if scale != 1.0:
        image.header.set_slope_inter(scale, 0)
    raw = _to_bytes(image, scale)
    with atomic_path(path) as temporary:
        # Without a time stamp in the gzip header, the same content gives the same bytes.
        temporary.write_bytes(gzip.compress(raw, compresslevel=6, mtime=0) if path.suffix == ".gz" else raw)


def _to_bytes(image: nibabel.Nifti1Image, scale: float) -> bytes:
    header = image.header.copy()
    if scale != 1.0:
        # nibabel chooses its own scaling when it writes an image; ours is stated, so header and data are joined here.
        header.set_slope_inter(scale, 0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    if scale == 1.0:
        header["scl_slope"], header["scl_inter"] = 1, 0
    data = np.asanyarray(image.dataobj)
    voxels: bytes = data.astype(header.get_data_dtype()).tobytes(order="F")
    return bytes(header.binaryblock) + b"\0" * 4 + voxels


def _load(path: Path) -> tuple[Any, npt.NDArray[Any]]:
    if not path.exists():
        raise MissingInputError("a scan must exist", where=path, remedy="check the path given")
    if not path.name.endswith(SUFFIXES):
        raise DataError("a scan must be NIfTI (.nii or .nii.gz)", received=repr(path.suffix), where=path)
    try:
        image = nibabel.load(path)
        kind = image.get_data_dtype()
        if kind.fields is not None or np.issubdtype(kind, np.complexfloating):
            raise DataError("a scan must hold one real number a voxel", received=f"data type {kind}", where=path)
        data = np.asanyarray(image.dataobj, dtype=np.float32)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            "a scan must be a readable NIfTI file",
            received=reason,
            where=path,
            remedy="it is damaged, cut off or no NIfTI; copy or convert it again",
        ) from error
    return image, data


def _checked_affine(image: Any, path: Path) -> Affine:
    """Return the header's voxel-to-world matrix, where it has one that can be inverted."""
    header = image.header
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        raise DataError(
            "a scan needs an affine",
            received="a header with sform and qform code 0",
            where=path,
            remedy="convert it again with dcm2niix, or set its orientation",
        )
    affine: Affine = np.asarray(image.affine, dtype=np.float64).copy()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    usable = np.isfinite(affine).all() and (spacing > 1e-3).all()
    if not usable or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise DataError(
            "an affine must be invertible",
            received=np.array2string(affine[:3], precision=3, separator=",").replace("\n", ""),
            where=path,
            remedy="the header is damaged; convert the scan again",
        )
    return affine
