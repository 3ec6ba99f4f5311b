"""What a scan format is, and the checks that all of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError
from halebrain.core.registry import Registry
from halebrain.core.types import Affine, FloatArray


@dataclass(frozen=True)
class Image:
    """What a file holds, before anything is asked of it as a scan.

    Args:
        data: Values, scaled as the header says; shape as on disk.
        affine: Voxel-to-world matrix `(4, 4)` in mm, RAS+, invertible.
        notes: What had to be assumed, one sentence each.
    """

    data: FloatArray
    affine: Affine
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScanFormat:
    """One way in which a scan lies on disk.

    Args:
        title: What it is called in messages.
        suffixes: Endings that it is known by, lower case.
        read: Reads a path.
        companions: Endings of files that belong to one with a suffix of above; given alone, they are read too.
    """

    title: str
    suffixes: tuple[str, ...]
    read: Callable[[Path], Image]
    companions: tuple[str, ...] = ()


FORMATS: Registry[ScanFormat] = Registry("scan format")


def checked_affine(affine: npt.ArrayLike, path: Path) -> Affine:
    """Return a copy of a voxel-to-world matrix.

    Raises:
        DataError: It is not finite or cannot be inverted.
    """
    matrix: Affine = np.array(affine, dtype=np.float64)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    usable = np.isfinite(matrix).all() and (spacing > 1e-3).all()
    if not usable or abs(np.linalg.det(matrix[:3, :3] / spacing)) < 1e-3:
        raise DataError(
            "an affine must be invertible",
            received=np.array2string(matrix[:3], precision=3, separator=",").replace("\n", ""),
            where=path,
            remedy="the header is damaged; convert the scan again",
        )
    return matrix


def missing_affine(path: Path, header: str) -> DataError:
    """Return the error for a file whose header says nothing of where its voxels lie."""
    return DataError(
        "a scan needs an affine",
        received=header,
        where=path,
        remedy="convert it again with dcm2niix, or set its orientation",
    )
