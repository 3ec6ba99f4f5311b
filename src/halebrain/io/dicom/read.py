"""From a DICOM folder, archive or file to one volume."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np

from halebrain.core.errors import DataError, MissingInputError, UnavailableError
from halebrain.core.types import Affine, FloatArray
from halebrain.io.dicom.archive import unpacked
from halebrain.io.dicom.converter import chosen_converter, convert
from halebrain.io.dicom.geometry import TILTED, is_tilted, sorted_grid
from halebrain.io.dicom.headers import Frame, read_frames
from halebrain.io.dicom.pixels import read_pixels
from halebrain.io.dicom.series import Series, choose, group_series
from halebrain.io.files import dicom_files

_ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")


def read_series(path: Path, series: str | None) -> tuple[FloatArray, Affine, tuple[str, ...]]:
    """Read one series.

    Args:
        path: A folder (searched through), a `.zip` or `.tar.gz`, or a multi-frame file.
        series: Number or key of the series, where there are several.

    Returns:
        The values, whose axes are those nearest to right, anterior and superior; the affine, RAS+ mm; and the notes.

    Raises:
        MissingInputError: There is no such path, or no DICOM in it.
        DataError: The series is not MR, not the only one, incomplete or damaged.
        UnavailableError: It is compressed in a way that nothing installed decodes.
    """
    with open_series(path, series) as chosen:
        ordered, affine = sorted_grid(chosen.frames, path)
        data = _values(ordered, affine, path)
        notes = chosen.notes + ((TILTED,) if is_tilted(affine) else ())
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, affine))
    values = np.ascontiguousarray(image.dataobj, dtype=np.float32)
    return values, np.asarray(image.affine, dtype=np.float64), notes


@contextmanager
def open_series(path: Path, series: str | None) -> Iterator[Series]:
    """Give the frames of one series while their files are there; arguments and errors are those of `read_series`."""
    with dicom_source(path) as files:
        frames, others = read_frames(files, path)
        chosen = choose(group_series(frames), series, path, others=others)
        if not all(frame.placed for frame in chosen.frames):
            raise DataError(
                "slices must have a position in space",
                received="headers without position, orientation or pixel spacing",
                where=path,
                remedy="export the original images, not screen captures",
            )
        yield chosen


def _values(frames: list[Frame], affine: Affine, where: Path) -> FloatArray:
    choice = chosen_converter()
    data = None if choice == "pydicom" else convert(frames, affine)
    if data is not None and _agrees(data, frames, where):
        return data
    if choice == "dcm2niix":
        raise UnavailableError(
            "dcm2niix must convert the series onto the grid of its headers",
            where=where,
            remedy="unset HALEBRAIN_DICOM to read it without dcm2niix",
        )
    return read_pixels(frames, where)


def _agrees(data: FloatArray, frames: list[Frame], where: Path) -> bool:
    """Return whether first, middle and last slice have the files' values; true if nothing installed decodes them."""
    slots = sorted({0, len(frames) // 2, len(frames) - 1})
    try:
        own = read_pixels([frames[slot] for slot in slots], where)
    except UnavailableError:
        return True
    return bool(np.allclose(data[:, :, slots], own, rtol=1e-4, atol=1e-4 * float(np.abs(own).max())))


@contextmanager
def dicom_source(path: Path) -> Iterator[list[Path]]:
    """Give the DICOM files of a folder, an archive or a single file while they are there."""
    if not path.exists():
        raise MissingInputError("a scan must exist", where=path, remedy="check the path given")
    if path.is_dir():
        yield _some(dicom_files(path), path)
    elif path.name.lower().endswith(_ARCHIVES):
        with unpacked(path) as folder:
            yield _some(dicom_files(folder), path)
    else:
        yield [path]


def _some(files: list[Path], where: Path) -> list[Path]:
    if not files:
        raise MissingInputError(
            "a DICOM scan must hold DICOM files", received="none", where=where, remedy="check the path given"
        )
    return files
