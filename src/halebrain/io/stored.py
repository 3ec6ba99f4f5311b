"""The stored form of a scan, and a copy of it with some voxels replaced: all others stay to the last bit.

Of a NIfTI file the bytes themselves are copied, so that header, data type, scaling, units and extensions stay too.
Scans of other formats become NIfTI of 16-bit integers where these hold every value, else of float32.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError

from halebrain.core.files import write_bytes
from halebrain.core.types import FloatArray, MaskArray, Volume
from halebrain.io.formats import FORMATS
from halebrain.io.formats.loading import unpacked
from halebrain.io.nifti import make_image
from halebrain.io.volume import format_of

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class StoredScan:
    """A scan as the bytes of a NIfTI file.

    Args:
        raw: The file, not packed.
    """

    raw: bytes

    @classmethod
    def of(cls, volume: Volume, source: "Path | SpatialImage") -> "StoredScan":
        """Return the stored form of a scan.

        Args:
            volume: The scan as it was read.
            source: Its file, or the nibabel image that it came from.
        """
        if isinstance(source, Path):
            is_nifti = format_of(source) is FORMATS.get("nifti")
            return cls(unpacked(source) if is_nifti else _made_of(volume))
        # Analyze, MGH and NIfTI-2 images in memory have other headers.
        stored = _of_image(source) if type(source) in (nibabel.Nifti1Image, nibabel.Nifti1Pair) else None
        return cls(stored or _made_of(volume))

    def replaced(self, region: MaskArray, values: FloatArray) -> "StoredScan":
        """Return the scan with other intensities in a region; every other byte of the file stays.

        Args:
            region: Bool `(i, j, k)`.
            values: Intensities in the units of the scan, `(n,)`, in the order of `region`. They are rounded to what
                the data type and the scaling can hold.
        """
        held = self.image().dataobj  # where in the file the voxels are, and what they mean
        dtype: np.dtype[Any] = held.dtype
        data = bytearray(self.raw)
        stored = np.frombuffer(data, dtype, count=region.size, offset=int(held.offset))
        voxels = stored.reshape(region.shape, order="F")
        wanted = (values.astype(np.float64) - float(held.inter)) / float(held.slope)
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            wanted = np.clip(np.rint(wanted), limits.min, limits.max)
        voxels[region] = wanted.astype(dtype)
        return StoredScan(bytes(data))

    def image(self) -> nibabel.Nifti1Image:
        """Return it as a nibabel image. nibabel scales integers again when it saves one; `packed` does not."""
        is_second = self.raw[4:8] in (b"n+2\0", b"ni2\0")
        kind = nibabel.Nifti2Image if is_second else nibabel.Nifti1Image
        image: nibabel.Nifti1Image = kind.from_bytes(self.raw)
        return image

    def packed(self) -> bytes:
        """Return the content of a `.nii.gz`; the same scan gives the same bytes."""
        return gzip.compress(self.raw, compresslevel=6, mtime=0)

    def write(self, path: Path) -> None:
        """Write a `.nii.gz`, atomically."""
        write_bytes(path, self.packed())


def _of_image(image: nibabel.Nifti1Image) -> bytes | None:
    """Return an image in memory as a file: voxels as they were stored in the file it came from, else its array.

    `None` where NIfTI cannot hold them.
    """
    proxy = image.dataobj if nibabel.is_proxy(image.dataobj) else None
    voxels = np.asanyarray(image.dataobj) if proxy is None else proxy.get_unscaled()
    header = image.header.copy()
    try:
        header.set_data_dtype(voxels.dtype)
    except HeaderDataError:
        return None
    header["scl_slope"], header["scl_inter"] = (1, 0) if proxy is None else (proxy.slope, proxy.inter)
    header["magic"], header["vox_offset"] = b"n+1", 352
    stored: bytes = voxels.astype(header.get_data_dtype()).tobytes(order="F")
    return bytes(header.binaryblock) + b"\0" * 4 + stored


def _made_of(volume: Volume) -> bytes:
    """Return a scan as NIfTI of the smaller of two data types that holds every value."""
    whole = np.rint(volume.data)
    fits = bool((whole == volume.data).all()) and whole.min() >= _INT16.min and whole.max() <= _INT16.max
    image = make_image(volume.data.astype(np.int16 if fits else np.float32), volume.affine, placement=volume.placement)
    stored = _of_image(image)
    assert stored is not None
    return stored
