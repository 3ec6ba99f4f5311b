"""Opening files with nibabel, by content instead of name, with one-line errors for every failure."""

import gzip
import io
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from halebrain.core.errors import DataError
from halebrain.core.types import FloatArray
from halebrain.io.formats.base import without_trailing_ones

Opener = Callable[[], AbstractContextManager[Any]]
"""Gives a nibabel image, whose files are open as long as the context lasts."""
_UNREADABLE = (
    *(ImageFileError, HeaderDataError, WrapStructError, MGHError, EOFError, OSError, zlib.error, struct.error),
    *(ValueError, TypeError, OverflowError, KeyError, IndexError, MemoryError),
)
# nibabel prints its header corrections on stderr; the relevant ones are checked and reported here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
_GZIP = b"\x1f\x8b"
_MOST_PACKED = 1032
"""Bytes that one byte of gzip can stand for at most."""
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "a file compressed with zstd",
    b"BZh": "a file compressed with bzip2",
    b"\xfd7zXZ\0": "a file compressed with xz",
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file (MINC 2)",
    b"CDF": "a NetCDF file (MINC 1)",
    b"NRRD": "an NRRD file",
    b"ObjectType": "a MetaImage file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
}
"""First bytes of files in other formats."""


def read_header(opener: Opener, path: Path, title: str) -> Any:
    """Return nibabel's image with header and affine alone, its file closed again; `title` is the kind ("NIfTI")."""
    with _translate_errors(path, title), opener() as image:
        kind = image.get_data_dtype()
        if kind.fields is not None or np.issubdtype(kind, np.complexfloating):
            raise DataError(
                "a scan must hold one real number per voxel",
                received=f"data type {kind}",
                where=path,
                remedy="export its magnitude, or one channel of it",
            )
        if any(int(size) < 0 for size in image.shape):
            raise ValueError(f"a shape of {image.shape}")
        return image


def read_values(opener: Opener, path: Path, title: str) -> FloatArray:
    """Return the values of an image as float32, without trailing axes of length one."""
    with _translate_errors(path, title), opener() as image:
        data = np.asanyarray(image.dataobj, dtype=np.float32)
        # To the end, where a packed file has its checksum, which detects corrupted values.
        for holder in image.file_map.values():
            while isinstance(holder.fileobj, gzip.GzipFile) and holder.fileobj.read(1 << 20):
                pass
        return data.reshape(without_trailing_ones(data.shape), order="A")


@contextmanager
def opened(kind: Any, files: Mapping[str, Path | None]) -> Iterator[Any]:
    """Give an image of a nibabel class from open files, packed or not, whatever their names; `None` = an empty file."""
    with ExitStack() as stack:
        holders = kind.make_file_map()
        for part, file in files.items():
            holders[part].fileobj = io.BytesIO() if file is None else stack.enter_context(_stream(file))
        try:
            image = kind.from_file_map(holders)
        except Exception as error:
            # scipy, which reads the .mat beside an SPM image, raises its own errors.
            if type(error).__module__.startswith("scipy.io"):
                raise ValueError(f"its .mat: {error}") from error
            raise
        _check_length(image, files["image"])
        yield image


def first_bytes(path: Path, count: int) -> bytes:
    """Return the start of a file, unpacked where it is gzip; fewer bytes where it is short or damaged."""
    try:
        with _stream(path) as handle:
            return handle.read(count)
    except (OSError, EOFError, zlib.error):
        return b""


def unpacked(path: Path) -> bytes:
    """Return the content of a file that was read before, unpacked where it is gzip."""
    with _stream(path) as handle:
        return handle.read()


def foreign_content(path: Path) -> str | None:
    """Return in words what a file is, where it begins as one of a kind that is not read here."""
    start = first_bytes(path, 10)
    return next((said for magic, said in _OTHERS.items() if start.startswith(magic)), None)


def _stream(path: Path) -> BinaryIO:
    """Open a file for reading, unpacked where it is gzip."""
    handle = path.open("rb")
    packed = handle.read(2) == _GZIP
    handle.seek(0)
    if not packed:
        return handle
    handle.close()
    return gzip.open(path)  # type: ignore[return-value]


@contextmanager
def _translate_errors(path: Path, title: str) -> Iterator[None]:
    """Report in one line why a file is unreadable."""
    try:
        # A damaged header makes nibabel and numpy warn too; what they warn of is checked after this.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except _UNREADABLE as error:
        foreign = foreign_content(path)
        received = foreign or " ".join(str(error).split())[:160] or type(error).__name__
        if path.is_file() and path.stat().st_size == 0:
            received = "an empty file (0 bytes)"
        raise DataError(
            f"a scan must be a readable {title} file",
            received=received,
            where=path,
            remedy="unpack or convert it"
            if foreign
            else f"it is damaged, incomplete or not {title}; copy or convert it again",
        ) from error


def _check_length(image: Any, file: Path | None) -> None:
    """Raise where a header promises more voxels than the file can hold, before memory is asked for them."""
    if file is None:
        return
    size, promised = file.stat().st_size, math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
    with file.open("rb") as handle:
        most = size * (_MOST_PACKED if handle.read(2) == _GZIP else 1)
    if promised > most:
        raise ValueError(f"{promised} bytes of voxels according to the header, {size} bytes in the file")
