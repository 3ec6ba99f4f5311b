"""Opening what nibabel reads, with every way in which that fails told in one line."""

import gzip
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from halebrain.core.errors import DataError
from halebrain.core.types import FloatArray

_UNREADABLE = (
    *(ImageFileError, HeaderDataError, EOFError, OSError, zlib.error, gzip.BadGzipFile, struct.error),
    *(ValueError, TypeError, OverflowError, KeyError, IndexError, MemoryError),
)
_GZIP = b"\x1f\x8b"


def load(path: Path, title: str, opener: Callable[[Path], Any]) -> tuple[Any, FloatArray]:
    """Return nibabel's image and its values as float32.

    Args:
        path: The file.
        title: What it should be ("NIfTI").
        opener: Opens it.

    Raises:
        DataError: It is damaged, something else, or does not hold one real number a voxel.
    """
    try:
        # A damaged header makes nibabel and numpy warn too; what they warn of is checked after this.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            image = opener(path)
            kind = image.get_data_dtype()
            if kind.fields is not None or np.issubdtype(kind, np.complexfloating):
                raise DataError(
                    "a scan must hold one real number a voxel",
                    received=f"data type {kind}",
                    where=path,
                    remedy="export its magnitude, or one channel of it",
                )
            data = np.asanyarray(image.dataobj, dtype=np.float32)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(
            f"a scan must be a readable {title} file",
            received=reason,
            where=path,
            remedy=f"it is damaged, cut off or no {title}; copy or convert it again",
        ) from error
    return image, data


def first_bytes(path: Path, count: int) -> bytes:
    """Return the start of a file, unpacked where it is gzip; fewer bytes where it is short or damaged."""
    try:
        with path.open("rb") as handle:
            if handle.read(2) != _GZIP:
                handle.seek(0)
                return handle.read(count)
        with gzip.open(path) as unpacked:
            return unpacked.read(count)
    except (OSError, EOFError, zlib.error):
        return b""
