"""Writing NIfTI, complete and reproducible. Scans of any format are read by `halebrain.io.volume`."""

import gzip
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import numpy.typing as npt

from halebrain.core.files import atomic_path
from halebrain.core.types import TEMPLATE_SPACE, Affine, Placement


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
    stored = np.asarray(data, dtype=np.float64) / scale if scale != 1.0 else np.asarray(data)
    if np.issubdtype(np.dtype(dtype), np.integer) and np.issubdtype(stored.dtype, np.floating):
        stored = np.rint(stored)
    image = make_image(stored.astype(dtype), affine, space=space, placement=placement)
    if scale != 1.0:
        image.header.set_slope_inter(scale, 0)
    raw = _to_bytes(image, scale)
    with atomic_path(path) as temporary:
        # Without a time stamp in the gzip header, the same content gives the same bytes.
        temporary.write_bytes(gzip.compress(raw, compresslevel=6, mtime=0) if path.suffix == ".gz" else raw)


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
