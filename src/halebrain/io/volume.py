"""Read images of any format, recognised by content, with the same checks for all.

Scans, masks and maps are opened here and nowhere else. What must hold is asked of the header first, before memory is
taken for voxels.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.io.files import check_present, is_dicom, split_selection
from halebrain.io.formats import FORMATS, Image, ScanFormat
from halebrain.io.formats.hdr_img import has_header, is_hdr_img
from halebrain.io.formats.loading import first_bytes, foreign_content
from halebrain.io.formats.nifti import take_image
from halebrain.io.grid import match
from halebrain.io.masks import mask_from

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

SUFFIXES = tuple(suffix for name in FORMATS for suffix in FORMATS.get(name).suffixes)
"""Suffixes of files that are scans when a folder is given; a pair is recognised by its header."""
_ALL_SUFFIXES = SUFFIXES + tuple(suffix for name in FORMATS for suffix in FORMATS.get(name).companions)
MAP_SUFFIXES = tuple(suffix for suffix in SUFFIXES if suffix not in FORMATS.get("dicom").suffixes)
"""Endings of the files that a map or a label image may have."""
_HEAD_BYTES = 540
_MIN_VOXELS = 8
"""Fewer voxels than this along an axis are a localiser or a mistake, not a scan."""
_HEAD_MM = (50.0, 800.0)
"""Longest side of a head's field of view. Stripped brains of preterm infants: from 60; with neck: 350; a mouse: 20."""
_HEAD_SECOND_MM = 40.0
"""The second longest side; the shortest may be a thin slab."""
_IMAGE_MM = (5.0, 800.0)
"""Longest side of a map or labels, which may be cut out of a scan."""
_log = logging.getLogger(__name__)


def read_volume(source: "Path | SpatialImage") -> Volume:
    """Read one three-dimensional scan.

    Voxels keep their order on disk (DICOM: the nearest to right, anterior, superior). Further axes of length one are
    dropped; any data type, scaling, unit and orientation is taken as the header says.

    Args:
        source: NIfTI, a `.hdr`/`.img` pair, MGH, or DICOM (folder, archive, multi-frame file; `PATH#NUMBER`: one
            series); or a nibabel image, of which the same is asked.

    Raises:
        MissingInputError: There is no such file.
        DataError: It is none of these, damaged, not 3-D, empty, constant, not finite, of a size that no head has, or
            its affine is missing or singular.
        UnavailableError: It is compressed in a way that needs another package.
    """
    return _scan(*_file_or_image(source, "image"))


def _scan(image: Image, path: Path) -> Volume:
    _check_axes(image, path, "a scan must have three dimensions")
    if min(image.shape) < _MIN_VOXELS:
        raise DataError(
            f"a scan needs at least {_MIN_VOXELS} voxels along each axis",
            received=f"shape {image.shape}",
            where=path,
            remedy="give the whole scan, not a localiser",
        )
    _check_size(image, path, "a head", _HEAD_MM, _HEAD_SECOND_MM)
    data = _values(image)
    finite = np.isfinite(data)
    if not finite.all():
        raise DataError(
            "intensities must be finite",
            received=f"{int((~finite).sum())} NaN or infinite voxels",
            where=path,
            remedy="find their cause, or set them to 0",
        )
    if data.min() == data.max():
        kind = "empty (all zero)" if not data.any() else f"constant ({data.flat[0]:g})"
        raise DataError(
            "a scan must have varying intensities",
            received=f"an image that is {kind}",
            where=path,
            remedy="give the scan as it was acquired",
        )
    return Volume(data, image.affine, str(path), image.notes, image.placement)


def read_map(path: Path) -> Volume:
    """Read any three-dimensional image, a map or labels; empty and constant ones too."""
    image = _open(path)
    _check_axes(image, path, "an image must have three dimensions")
    _check_size(image, path, "an image of a head", _IMAGE_MM, 0.0)
    return Volume(_values(image), image.affine, str(path), image.notes, image.placement)


def read_array(path: Path) -> tuple[FloatArray, Affine]:
    """Return values and affine of what `read_map` reads; its notes are logged."""
    found = read_map(path)
    with _noted(None) as said:
        said += [f"{path.name}: {note}" for note in found.notes]
    return found.data, found.affine


def read_mask(source: "Path | SpatialImage", like: Volume, notes: list[str] | None = None) -> MaskArray:
    """Read a mask that lies where `like` does, by the rule of `halebrain.io.masks`; every label counts.

    It is a file or a nibabel image; one in another order of voxels is turned. `notes` gets a line for each thing that
    was done to it; `None` = they are logged. A `DataError` where it is unreadable, lies elsewhere, or holds no mask.
    """
    image, path = _file_or_image(source, "brain mask")
    with _noted(notes) as said:
        return mask_from(_on_grid(image, path, like, "a mask must lie on the grid of its scan", said), path, said)


def read_on_grid(path: Path, like: Volume, rule: str, notes: list[str] | None = None) -> FloatArray:
    """Read values that lie where `like` does, turned where their voxels have another order.

    `rule`: what must hold, in words. `notes` gets a line for each thing that was done; `None` = they are logged.
    """
    with _noted(notes) as said:
        return _on_grid(_open(path), path, like, rule, said)


def read_healthy(path: Path, like: Volume, notes: list[str] | None = None) -> FloatArray:
    """Read the scan of the same head without its lesions, on the grid of `like`, turned where its voxels are.

    `notes` as in `read_mask`. A `DataError` for what is no scan or lies elsewhere.
    """
    image = _open(path)
    _scan(image, path)
    with _noted(notes) as said:
        return _on_grid(image, path, like, "a healthy image must lie on the grid of its scan", said)


def _on_grid(image: Image, path: Path, like: Volume, rule: str, notes: list[str]) -> FloatArray:
    found = match(image.shape, image.affine, like.shape, like.affine)
    if found is None or not found.fits:
        off = f" with another affine: {found.distance_mm:.3g} mm ({found.voxels:.2g} voxels) apart" if found else ""
        raise DataError(
            f"{rule} {like.shape} of '{Path(like.name).name}'",
            received=f"shape {image.shape}{off}",
            where=path,
            remedy="resample it to that grid",
        )
    notes += [f"{path.name}: {note}" for note in image.notes]
    if found.turn is not None:
        notes.append(f"{path.name}: reoriented to match {Path(like.name).name}")
    return np.ascontiguousarray(found.turned(image.load()), dtype=np.float32)


def stem_of(path: Path) -> str:
    """Return the name of a scan without the ending of its format; a chosen series stays in it (`a#4` → `a-series4`)."""
    place, series = split_selection(path)
    name = place.name or place.resolve().name
    # Unlike `Path.is_dir`, this is silent about a name that no file can have.
    suffix = "" if os.path.isdir(place) else _suffix_of(name)  # noqa: PTH112
    return name[: len(name) - len(suffix)] + (f"-series{series}" if series else "")


def format_of(path: Path) -> ScanFormat:
    """Return the format of a scan by its content, else by its name."""
    place, series = split_selection(path)
    if place.is_dir() or series is not None:
        return FORMATS.get("dicom")
    if is_hdr_img(place) and has_header(place) and _suffix_of(place.name) in FORMATS.get("hdr_img").companions:
        return FORMATS.get("hdr_img")  # voxels alone, which may look like anything
    known = [FORMATS.get(name) for name in FORMATS]
    head = first_bytes(place, _HEAD_BYTES)
    for kind in known:
        if kind.recognises(head):
            return kind
    if is_dicom(place):
        return FORMATS.get("dicom")
    suffix = _suffix_of(place.name)
    for kind in known:
        if suffix and suffix in kind.suffixes + kind.companions:
            return kind
    raise DataError(
        f"a scan must be one of {', '.join(sorted(kind.title for kind in known))}",
        received=foreign_content(place) or repr(place.suffix),
        where=path,
        remedy=f"known endings are {', '.join(SUFFIXES)}",
    )


def _suffix_of(name: str) -> str:
    return max((s for s in _ALL_SUFFIXES if name.lower().endswith(s)), key=len, default="")


def _file_or_image(source: "Path | SpatialImage", name: str) -> tuple[Image, Path]:
    """Return a file or a nibabel image, opened, with its path; that of an image is `name`."""
    if isinstance(source, Path):
        return _open(source), source
    return take_image(source, Path(name)), Path(name)


def _open(path: Path) -> Image:
    place, _ = split_selection(path)
    check_present(place)
    return format_of(path).read(path)


def _values(image: Image) -> FloatArray:
    return np.ascontiguousarray(image.load(), dtype=np.float32)


def _check_axes(image: Image, path: Path, rule: str) -> None:
    if len(image.shape) != 3:
        raise DataError(rule, received=f"shape {image.shape}", where=path, remedy="give one volume")
    if 0 in image.shape:
        raise DataError(
            "an image must have voxels", received=f"shape {image.shape}", where=path, remedy="export it again"
        )


def _check_size(image: Image, path: Path, what: str, limits_mm: tuple[float, float], second_mm: float) -> None:
    """Raise where no head has the size of a field of view, before voxels are read."""
    sides = np.linalg.norm(image.affine[:3, :3], axis=0) * image.shape
    _, second, longest = sorted(float(side) for side in sides)
    low, high = limits_mm
    if low <= longest <= high and second >= second_mm:
        return
    wrong = next((unit for unit, factor in (("m", 1e3), ("µm", 1e-3)) if 100 <= longest * factor <= 400), "")
    raise DataError(
        f"{what} is {low:g} to {high:g} mm long",
        received=" x ".join(f"{side:.3g}" for side in sides) + " mm",
        where=path,
        remedy=f"its header seems to hold {wrong}: set its unit or voxel size"
        if wrong
        else "check the voxel size and the unit in its header",
    )


@contextmanager
def _noted(notes: list[str] | None) -> Iterator[list[str]]:
    """Give a list for notes, which are logged if the caller passes none."""
    said: list[str] = [] if notes is None else notes
    yield said
    if notes is None:
        for note in said:
            _log.warning("%s", note)
