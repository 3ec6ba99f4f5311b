"""Interface of the scan formats, and their shared checks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError
from halebrain.core.registry import Registry
from halebrain.core.types import Affine, FloatArray, Placement


@dataclass(frozen=True)
class Image:
    """The header of a file, before it is checked as a scan; its voxels are read when `load` is called.

    Args:
        shape: As on disk, without trailing axes of length one after the third.
        affine: Voxel-to-world matrix `(4, 4)` in mm, RAS+, invertible.
        load: Returns the values, scaled as the header says, of `shape`; raises a `DataError` where they are damaged.
        notes: What had to be assumed, one sentence each.
        placement: Both placements of a NIfTI header; `None` for other formats.
    """

    shape: tuple[int, ...]
    affine: Affine
    load: Callable[[], FloatArray]
    notes: tuple[str, ...] = ()
    placement: Placement | None = None


@dataclass(frozen=True)
class ScanFormat:
    """One way in which a scan lies on disk.

    Args:
        title: Its name in messages.
        suffixes: Endings that it is known by, lower case.
        read: Reads the header of a path.
        companions: Endings of files that belong to one with a suffix of above; given alone, they are read too.
        recognises: Whether the first bytes of a file, unpacked, are this format's; its name does not matter then.
    """

    title: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Image]
    companions: tuple[str, ...] = ()
    recognises: Callable[[bytes], bool] = lambda _: False


def without_trailing_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without axes of length one after the third: `(x, y, z, 1, 1)` is a volume."""
    sizes = [int(size) for size in shape]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)


FORMATS: Registry[ScanFormat] = Registry("scan format")


# What is too large overflows on the way to being refused.
@np.errstate(all="ignore")
def checked_affine(affine: npt.ArrayLike, path: Path) -> Affine:
    """Return a copy of a voxel-to-world matrix; refuse one that is not finite or cannot be inverted."""
    if np.iscomplexobj(affine):
        affine = np.full((4, 4), np.nan)
    matrix: Affine = np.array(affine, dtype=np.float64)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    usable = np.isfinite(matrix).all() and (spacing > 1e-9).all()  # whether a head has that size is asked elsewhere
    if not usable or abs(np.linalg.det(matrix[:3, :3] / spacing)) < 1e-3:
        raise DataError(
            "an affine must be invertible",
            received=np.array2string(matrix[:3], precision=3, separator=",").replace("\n", ""),
            where=path,
            remedy="the header is damaged; convert the scan again",
        )
    return matrix


def missing_affine(path: Path, header: str) -> DataError:
    """Return the error for a file whose header has no affine."""
    return DataError(
        "a scan needs an affine",
        received=header,
        where=path,
        remedy="convert it again with dcm2niix, or set its orientation",
    )
