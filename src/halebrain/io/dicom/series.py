"""Grouping of DICOM frames into images, and selection of the scan."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError
from halebrain.io.dicom.geometry import count_positions
from halebrain.io.dicom.headers import PARTS, Frame

MIN_SLICES = 8
"""A series with fewer slices is a localiser."""
_SAME_DIRECTION = 1e-2
_LOCALISER = "LOCALIZER"
_PHASE = "phase"
_SAME = ("series_uid", "contrast", "part", "modality")
"""What frames of one image share."""


@dataclass(frozen=True)
class SeriesInfo:
    """Description of a series without personal data.

    Args:
        number: Series number, where it is given.
        modality: "MR", "CT", ….
        slices: Number of slices.
        key: Eight hexadecimal digits that are this series' own.
        eligible: Whether it could be the scan: MR, no localiser, no phase, one image of at least `MIN_SLICES` slices.
        part: Which part of a complex image it is: "magnitude", "phase", "real" or "imaginary".
    """

    number: int | None
    modality: str
    slices: int
    key: str
    eligible: bool
    part: str = PARTS[0]

    def __str__(self) -> str:
        """Return "4 (MR, 176 slices, key 0a1b2c3d)"."""
        number = "without number" if self.number is None else str(self.number)
        part = "" if self.part == PARTS[0] else f"{self.part}, "
        return f"{number} ({self.modality}, {part}{self.slices} slices, key {self.key})"


@dataclass(frozen=True)
class Series:
    """The frames of one image, with its description."""

    info: SeriesInfo
    frames: tuple[Frame, ...]
    notes: tuple[str, ...] = ()


def group_series(frames: list[Frame]) -> list[Series]:
    """Return the images among frames, by number.

    Frames belong together that share the series, the echo, the inversion time and the part of a complex image, and the
    direction of the slices (a three-plane scout becomes three).
    """
    groups: list[list[Frame]] = []
    for frame in frames:
        home = next((group for group in groups if _belongs(frame, group[0])), None)
        if home is None:
            groups.append([frame])
        else:
            home.append(frame)
    series = [Series(_describe(group), tuple(group)) for group in groups]
    return sorted(series, key=lambda s: (s.info.number is None, s.info.number or 0, s.info.key))


def choose(series: list[Series], wanted: str | None, where: Path, *, others: int = 0) -> Series:
    """Return the one image that is meant by a number or key; `None` = the only one that could be a scan.

    Where there is none, or several, the error lists them; `others` is the number of objects that are no images.
    """
    if not series:
        also = f"; {others} other objects" if others else ""
        raise DataError(
            "a DICOM scan must hold images",
            received=f"none{also}",
            where=where,
            remedy="give the folder of the series itself",
        )
    if wanted is not None:
        return _wanted(series, wanted, where)
    magnetic = [one for one in series if one.info.modality == "MR"]
    if not magnetic:
        found = ", ".join(sorted({one.info.modality for one in series}))
        raise DataError("a scan must be MR", received=f"modality {found}", where=where, remedy="give the MR series")
    eligible = _magnitudes([one for one in magnetic if one.info.eligible])
    if len(eligible) == 1:
        return _noted(eligible[0], magnetic)
    if eligible:
        raise _ambiguous(eligible, where)
    # Nothing fits; a single candidate is read, as this gives the most specific error.
    placed = [one for one in magnetic if one.frames[0].placed and _LOCALISER not in one.frames[0].image_type]
    if placed and all(one.info.part == _PHASE for one in placed):
        raise _only_phase(placed, where)
    if len(placed) == 1:
        return placed[0]
    raise DataError(
        f"a DICOM scan needs {MIN_SLICES} slices with a position in space, one at each place",
        received=_listed(magnetic),
        where=where,
        remedy="localisers, projections and time series are not scans",
    )


def scan_series(series: list[Series]) -> list[Series]:
    """Return the images that could be scans: MR, no localisers, and no part of a complex image beside its magnitude."""
    return _magnitudes([one for one in series if one.info.eligible])


def _belongs(frame: Frame, first: Frame) -> bool:
    if any(getattr(frame, name) != getattr(first, name) for name in _SAME):
        return False
    if frame.orientation is None or first.orientation is None or not (frame.placed and first.placed):
        return frame.placed == first.placed
    return bool(np.allclose(frame.orientation, first.orientation, atol=_SAME_DIRECTION))


def _describe(group: list[Frame]) -> SeriesInfo:
    first = group[0]
    text = f"{first.series_uid} {(*first.contrast, first.part[0].upper())}"
    if first.orientation is not None:
        text += f" {np.abs(np.round(first.orientation, 1))}"
    usable = first.placed and first.modality == "MR" and all(frame.grey for frame in group)
    usable &= first.part != _PHASE
    usable &= not any(_LOCALISER in frame.image_type for frame in group)
    eligible = usable and len(group) >= MIN_SLICES and count_positions(group) == len(group)
    key = hashlib.sha256(text.encode()).hexdigest()[:8]
    return SeriesInfo(first.number, first.modality, len(group), key, eligible, first.part)


def _magnitudes(series: list[Series]) -> list[Series]:
    """Return the images without those parts of a complex image whose magnitude is among them."""
    whole = {(one.frames[0].series_uid, one.frames[0].contrast) for one in series if one.info.part == PARTS[0]}
    return [
        one
        for one in series
        if one.info.part == PARTS[0] or (one.frames[0].series_uid, one.frames[0].contrast) not in whole
    ]


def _noted(one: Series, series: list[Series]) -> Series:
    """Return a series with a note on what else of a complex image lies in it."""
    uid = one.frames[0].series_uid
    others = {other.info.part for other in series if other.frames[0].series_uid == uid} - {one.info.part}
    if not others:
        return one
    said = " and ".join(part for part in PARTS if part in others)
    return replace(one, notes=(f"the series holds {said} images too; its {one.info.part} images are used",))


def _only_phase(series: list[Series], where: Path) -> DataError:
    return DataError(
        "a scan must be a magnitude image",
        received=f"phase images only, {_listed(series)}",
        where=where,
        remedy="give the magnitude series of the same acquisition",
    )


def _wanted(series: list[Series], wanted: str, where: Path) -> Series:
    found = [one for one in series if one.info.key == wanted.lower()]
    found = found or [one for one in series if one.info.number is not None and str(one.info.number) == wanted]
    if not found:
        raise DataError(
            "the chosen series must exist",
            received=repr(wanted),
            where=where,
            remedy=f"there are {_listed(series)}",
        )
    if all(one.info.part == _PHASE for one in found):
        raise _only_phase(found, where)
    eligible = _magnitudes([one for one in found if one.info.eligible])
    if len(found) > 1 and len(eligible) != 1:
        raise _ambiguous(eligible or found, where)
    one = eligible[0] if len(found) > 1 else found[0]
    if one.info.modality != "MR":
        raise DataError(
            "a scan must be MR", received=f"modality {one.info.modality}", where=where, remedy="give the MR series"
        )
    return _noted(one, found)


def _ambiguous(series: list[Series], where: Path) -> DataError:
    numbers = [one.info.number for one in series]
    by_number = numbers[0] is not None and numbers.count(numbers[0]) == 1
    example = numbers[0] if by_number else series[0].info.key
    return DataError(
        "a DICOM scan must be one series",
        received=_listed(series),
        where=where,
        remedy=f"choose one by number or key, as '{where.name}#{example}'",
    )


def _listed(series: list[Series]) -> str:
    named = ", ".join(str(one.info) for one in series[:12])
    return f"{len(series)} series: {named}" + (" and more" if len(series) > 12 else "")
