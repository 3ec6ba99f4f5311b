"""Writing NIfTI, complete and reproducible. Scans of any format are read by `halebrain.io.volume`."""

import zlib
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import numpy.typing as npt

from halebrain.core.files import atomic_path
from halebrain.core.mask import box_of
from halebrain.core.types import TEMPLATE_SPACE, Affine, Placement

_LEVEL = 2
"""Of the compression. Level 6 takes 1.6 times as long and makes the maps of a scan 4 % smaller."""
_LAYERS = 8
"""Converted at once, which stay in the cache of a core."""


def write_volume(
    path: Path,
    data: npt.NDArray[Any],
    affine: Affine,
    *,
    dtype: npt.DTypeLike = np.float32,
    space: str = "native",
    scale: float | Literal["auto"] = 1.0,
    placement: Placement | None = None,
) -> None:
    """Write a NIfTI atomically; the same content gives the same bytes.

    Args:
        path: Ends in `.nii` or `.nii.gz`.
        data: Array `(i, j, k)`.
        affine: Voxel-to-world in mm, RAS+.
        dtype: Data type on disk.
        space: "native" (scanner coordinates) or the template's name; becomes the code of the affine.
        scale: Intensity of one stored unit, for integer types; "auto" spreads [0, max] over an int16.
        placement: Of the scan whose grid this is: its sform and qform are repeated with their codes, in mm.
    """
    if scale == "auto":
        scale, dtype = max(float(np.max(data)), 1e-12) / 32000, np.int16
    image = make_image(_as_stored(np.asarray(data), np.dtype(dtype), scale), affine, space=space, placement=placement)
    start, voxels = _header_bytes(image, scale), np.asanyarray(image.dataobj).T.data
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if path.suffix != ".gz":
            file.writelines((start, voxels))
            return
        # Without a time stamp in the gzip header, the same content gives the same bytes.
        packer = zlib.compressobj(_LEVEL, wbits=zlib.MAX_WBITS | 16)
        file.writelines((packer.compress(start), packer.compress(voxels), packer.flush()))


def _as_stored(data: npt.NDArray[Any], dtype: np.dtype[Any], scale: float) -> npt.NDArray[Any]:
    """Return values as a file holds them, the first axis fastest; what is 0 around a brain costs nothing."""
    stored = np.zeros(data.shape, dtype=dtype, order="F")
    used = box_of(data != 0)
    source, target = data[used], stored[used]
    for start in range(0, source.shape[-1], _LAYERS):
        here = (..., slice(start, start + _LAYERS))
        part = source[here]
        if scale != 1.0:
            part = np.asarray(part, dtype=np.float64) / scale
        if np.issubdtype(dtype, np.integer) and np.issubdtype(part.dtype, np.floating):
            part = np.rint(part)
        target[here] = part.astype(dtype)
    return stored


def make_image(
    data: npt.NDArray[Any], affine: Affine, *, space: str = "native", placement: Placement | None = None
) -> nibabel.Nifti1Image:
    """Return an array as a NIfTI image in memory, of the array's own data type; arguments as of `write_volume`."""
    image = nibabel.Nifti1Image(data, affine)
    code = "mni" if space == TEMPLATE_SPACE else "scanner"
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code)
    image.header.set_xyzt_units("mm")
    if placement is not None:
        # As they stand: nibabel would round a quaternion again on its way through a matrix.
        fields = dict(placement.fields)
        image.header["pixdim"][:4] = fields.pop("pixdim")
        for name, value in fields.items():
            image.header[name] = value if len(value) > 1 else value[0]
    return image


def _header_bytes(image: nibabel.Nifti1Image, scale: float) -> bytes:
    """Return what a file holds before its voxels."""
    header = image.header.copy()
    if scale != 1.0:
        # nibabel chooses its own scaling when it writes an image; ours is stated, so header and data are joined here.
        header.set_slope_inter(scale, 0)
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    if scale == 1.0:
        header["scl_slope"], header["scl_inter"] = 1, 0
    return bytes(header.binaryblock) + b"\0" * 4
