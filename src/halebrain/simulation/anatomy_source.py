"""Anatomies other than the template: real brains and label maps become tissue maps for any contrast.

A source turns files into tissue fractions once; what is made of them is drawn like the template's own brains, by
moderate deformations, and needs no invented folds, since real ones are there.
"""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.failures import Failures
from halebrain.core.files import atomic_path
from halebrain.core.messages import Notify, log_message
from halebrain.core.registry import Registry
from halebrain.core.types import FloatArray
from halebrain.io.checksum import scan_sha256
from halebrain.io.manifest import Manifest
from halebrain.simulation.fields import Shape

_LEAST_BRAIN_ML = 600.0


@dataclass(frozen=True)
class AnatomyFile:
    """One brain of a source, and what is stated of it.

    Args:
        name: Its name in messages and in the cohort.
        image: The scan or the label map.
        brain_mask: Mask on its grid; `None` where none is stated.
        space: "native", or the template's name where the image is registered already.
    """

    name: str
    image: Path
    brain_mask: Path | None = None
    space: str = "native"

    def fingerprint(self) -> str:
        """Return a hash of the image, and of mask and space where they are stated."""
        image = scan_sha256(self.image)
        if self.brain_mask is None and self.space == "native":
            return image
        mask = "" if self.brain_mask is None else scan_sha256(self.brain_mask)
        return hashlib.sha256("\n".join((image, mask, self.space)).encode()).hexdigest()


class AnatomySource(ABC):
    """Files to tissues, on a working grid in template space."""

    @abstractmethod
    def files(self, place: Path | Manifest) -> list[AnatomyFile]:
        """Return each brain of a folder, a table or a manifest in memory, sorted; say which images are left out.

        Raises:
            MissingInputError: There is none.
        """

    @abstractmethod
    def read(self, file: AnatomyFile, *, shape: Shape, spacing_mm: float) -> FloatArray:
        """Return the tissue fractions of one brain, `(5, i, j, k)`.

        Raises:
            DataError: It is not what this source takes; the message names the file.
        """


ANATOMY_SOURCES: Registry[type[AnatomySource]] = Registry("anatomy source")


def gather_anatomies(
    kind: str, place: Path | Manifest, folder: Path, *, shape: Shape, spacing_mm: float, notify: Notify = log_message
) -> tuple[str, ...]:
    """Bring every brain of a source into `folder`, one file each, and return their names, sorted.

    Args:
        kind: One of `ANATOMY_SOURCES.names()`.
        place: Folder or table of the source, or a manifest.
        folder: Where they are kept; those that are there already stay.
        shape: Voxels of the working grid.
        spacing_mm: Its voxel size.
        notify: Receives a line for each brain that cannot be used.

    Raises:
        ConfigError: The kind is unknown.
        MissingInputError: There is no brain.
        DataError: None can be used; the message names the first.
        PartialFailureError: Some cannot be used; the others are kept for the next run.
    """
    source = ANATOMY_SOURCES.get(kind)()
    names: list[str] = []

    def gather(found: AnatomyFile) -> None:
        name = f"{kind}-{found.name}-{found.fingerprint()[:8]}"
        kept = folder / f"{name}.npz"
        # A run that ended early may have left brains of another voxel size.
        if not (kept.exists() and load_base(folder, name).shape[1:] == tuple(shape)):
            tissues = source.read(found, shape=shape, spacing_mm=spacing_mm)
            _check(tissues, found.image, spacing_mm)
            with atomic_path(kept) as temporary:
                np.savez_compressed(temporary, tissues=tissues.astype(np.float16))
        names.append(name)

    files, failures = source.files(place), Failures(folder, notify)
    failures.each(gather, files, name=lambda found: found.name, description="Anatomies")
    failures.refuse(
        "every brain should become an anatomy",
        len(files),
        where=place.source if isinstance(place, Manifest) else place,
        remedy="fix the problem in each line or remove those scans; the others are kept",
    )
    return tuple(sorted(names))


def load_base(folder: Path, name: str) -> FloatArray:
    """Return the tissue fractions of an anatomy that was gathered, `(5, i, j, k)` in the order of `anatomy.TISSUES`."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise MissingInputError("an anatomy of the cohort must exist", where=path, remedy="make the cohort again")
    with np.load(path) as stored:
        return np.asarray(stored["tissues"], dtype=np.float32)


def _check(tissues: FloatArray, path: Path, spacing_mm: float) -> None:
    brain_ml = float(tissues.sum()) * spacing_mm**3 / 1000
    if brain_ml < _LEAST_BRAIN_ML:
        raise DataError(
            "an anatomy must show a whole brain",
            received=f"{brain_ml:.0f} ml on the working grid",
            where=path,
            remedy="remove it, or give a scan of the whole brain",
        )
