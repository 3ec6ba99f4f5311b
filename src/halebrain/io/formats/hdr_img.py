"""Header and image in two files: NIfTI pairs, and Analyze 7.5, also of SPM."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
from nibabel.spm2analyze import Spm2AnalyzeImage

from halebrain.core.errors import DataError, MissingInputError
from halebrain.io.formats.base import FORMATS, Image, ScanFormat, checked_affine, without_trailing_ones
from halebrain.io.formats.loading import first_bytes, opened, read_header, read_values
from halebrain.io.formats.nifti import placed_image

_HEADERS = (".hdr", ".hdr.gz")
_IMAGES = (".img", ".img.gz")
_ORIENT = 252
"""Offset of Analyze's byte for the slice orientation: 0 is axial, unflipped."""
_ANALYZE = "Analyze or NIfTI"
ASSUMED_ORIENTATION = "Analyze states no orientation: axes are taken as left, anterior, superior (SPM's default)"
STATED_ORIENTATION = "Analyze states no orientation: axes are taken from the .mat file beside it"


def read_hdr_img(path: Path) -> Image:
    """Read a `.hdr` with its `.img` (either may be packed); any file of the two may be given.

    An Analyze header has no trustworthy orientation; the one that is assumed is among the notes.
    """
    header, image = both_files(path)
    raw = first_bytes(header, 540)
    files: dict[str, Path | None] = {"header": header, "image": image}
    if _is_nifti_header(raw):
        kind = nibabel.Nifti1Pair if raw[344:348] == b"ni1\0" else nibabel.Nifti2Pair
        return placed_image(partial(opened, kind, files), path)
    return _read_analyze(path, raw, files)


def is_hdr_img(path: Path) -> bool:
    """Return whether a name is that of a header or an image of a pair."""
    return path.name.lower().endswith(_HEADERS + _IMAGES)


def has_header(path: Path) -> bool:
    """Return whether a file of a pair is a header or has one beside it."""
    base, suffix = _split(path)
    return suffix in _HEADERS or _beside(path, base, _HEADERS) is not None


def both_files(path: Path) -> tuple[Path, Path]:
    """Return the header and the image that a file of a pair belongs to."""
    base, suffix = _split(path)
    wanted, kind = (_IMAGES, "image") if suffix in _HEADERS else (_HEADERS, "header")
    other = _beside(path, base, wanted)
    if other is None:
        raise MissingInputError(
            f"a pair needs its {kind} in the same folder",
            received="/".join(base + ending for ending in wanted) + " missing",
            where=path,
            remedy="copy both files",
        )
    return (path, other) if suffix in _HEADERS else (other, path)


def parts_of(path: Path) -> list[Path]:
    """Return every file that a scan is made of: header, image, and the `.mat` from which Analyze takes its affine."""
    header, image = both_files(path)
    mat = None if _is_nifti_header(first_bytes(header, 540)) else _transform_beside(header)
    return [header, image] if mat is None else [header, image, mat]


def _transform_beside(header: Path) -> Path | None:
    """Return the file with SPM's own affine; `None` where there is none."""
    path = header.with_name(_split(header)[0] + ".mat")
    return path if path.exists() else None


def _split(path: Path) -> tuple[str, str]:
    suffix = max((s for s in _HEADERS + _IMAGES if path.name.lower().endswith(s)), key=len)
    return path.name[: -len(suffix)], suffix


def _beside(path: Path, base: str, endings: tuple[str, ...]) -> Path | None:
    names = [base + ending for ending in (*endings, *(s.upper() for s in endings))]
    return next((path.with_name(name) for name in names if path.with_name(name).exists()), None)


def _read_analyze(path: Path, raw: bytes, files: dict[str, Path | None]) -> Image:
    header = files["header"]
    assert header is not None  # a pair has one
    stated = _transform_beside(header)
    files = files | {"mat": stated}

    @contextmanager
    def opener() -> Iterator[Any]:
        if not Spm2AnalyzeImage.header_class.may_contain_header(raw):
            raise ValueError("a header that is neither Analyze nor NIfTI")
        with opened(Spm2AnalyzeImage, files) as image:
            yield image

    found = read_header(opener, path, _ANALYZE)
    orient = raw[_ORIENT]
    # SPM and most others leave the byte at 0; another documented value turns or flips the axes.
    if orient in range(1, 6) and stated is None:
        raise DataError(
            "an Analyze scan must have axial, unflipped slices",
            received=f"orientation code {orient}",
            where=path,
            remedy="convert it to NIfTI, where the orientation is stated",
        )
    note = ASSUMED_ORIENTATION if stated is None else STATED_ORIENTATION
    load = partial(read_values, opener, path, _ANALYZE)
    return Image(without_trailing_ones(found.shape), checked_affine(found.affine, path), load, (note,))


def _is_nifti_header(head: bytes) -> bool:
    return head[344:348] == b"ni1\0" or head[4:8] == b"ni2\0"


FORMATS.register("hdr_img")(
    ScanFormat("a .hdr/.img pair", _HEADERS, read_hdr_img, companions=_IMAGES, recognises=_is_nifti_header)
)
