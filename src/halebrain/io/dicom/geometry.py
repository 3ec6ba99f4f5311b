"""The grid of a series, from the positions of its slices alone: order, distance, gaps, affine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.types import Affine
from halebrain.io.dicom.headers import Frame, Numbers

_SAME_PLACE_MM = 1e-2
"""Two slices closer than this are at the same position."""
_UNEVEN = 0.1
"""Tolerance of the slice position, as a fraction of the spacing: scanners round positions."""
TILTED = "the slices are shifted against each other (a tilted gantry): the grid is not rectangular"
_TILT = np.sin(np.deg2rad(0.5))
_AGAIN = "export the complete series again"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def depths(frames: Sequence[Frame]) -> Numbers:
    """Return how far each frame lies along the normal of the slices, in mm."""
    first = frames[0].orientation
    assert first is not None
    normal = np.cross(first[0], first[1])
    return np.array([float(frame.position @ normal) for frame in frames if frame.position is not None])


def count_positions(frames: Sequence[Frame]) -> int:
    """Return at how many places along the normal there are slices."""
    return 1 + int((np.diff(np.sort(depths(frames))) > _SAME_PLACE_MM).sum())


def sorted_grid(frames: Sequence[Frame], where: Path) -> tuple[list[Frame], Affine]:
    """Return the frames in order along the normal, and the affine of the array `(column, row, slice)`, RAS+ mm.

    The step from slice to slice is that between the first and the last position, so that slices that are shifted
    against each other (a tilted gantry) have an exact affine too. SliceThickness is not used. A `DataError` where
    slices are missing, doubled, too few, uneven, or differ in matrix, pixel size or orientation.
    """
    _check_alike(frames, where)
    along = depths(frames)
    order = np.argsort(along, kind="stable")
    ordered = [frames[n] for n in order]
    along = along[order]
    if len(ordered) < 2:
        raise DataError(
            "a DICOM scan needs several slices", received="1", where=where, remedy="give the folder with all of them"
        )
    _check_gaps(along, where)
    positions = np.array([frame.position for frame in ordered])
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    ideal = positions[0] + np.arange(len(ordered))[:, None] * step
    off = float(np.linalg.norm(positions - ideal, axis=1).max())
    if off > _UNEVEN * float(np.linalg.norm(step)):
        raise DataError(
            "slices must lie on one line", received=f"a slice {off:.2f} mm off the line", where=where, remedy=_AGAIN
        )
    first = ordered[0]
    assert first.orientation is not None
    assert first.spacing is not None
    lps = np.eye(4)
    # PixelSpacing is (between rows, between columns); a column index grows along a row.
    lps[:3, 0] = first.orientation[0] * first.spacing[1]
    lps[:3, 1] = first.orientation[1] * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = positions[0]
    return ordered, _LPS_TO_RAS @ lps


def is_tilted(affine: Affine) -> bool:
    """Return whether the axis along the slices is not at right angles to them."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes[:, :2].T @ axes[:, 2]).max() > _TILT)


def _check_alike(frames: Sequence[Frame], where: Path) -> None:
    for name, values in (
        ("matrix size", {frame.shape for frame in frames}),
        ("pixel size", {tuple(np.round(frame.spacing, 4)) for frame in frames if frame.spacing is not None}),
    ):
        if len(values) > 1:
            shown = " and ".join(" × ".join(f"{v:g}" for v in value) for value in sorted(values)[:3])
            raise DataError(f"the slices of a series must have one {name}", received=shown, where=where, remedy=_AGAIN)


def _check_gaps(along: Numbers, where: Path) -> None:
    """Raise where slices are doubled, missing or uneven; slices are counted from 1 along the normal."""
    gaps = np.diff(along)
    doubled = int((gaps <= _SAME_PLACE_MM).sum())
    if doubled:
        raise DataError(
            "a series must have one slice at each position",
            received=f"{len(along)} slices at {len(along) - doubled} positions",
            where=where,
            remedy="it holds several volumes or copies; keep one volume",
        )
    usual = float(np.median(gaps))
    units = np.rint(gaps / usual)
    uneven = np.abs(gaps - units * usual) > _UNEVEN * usual
    if uneven.any() or (units < 1).any():
        place = int(np.argmax(uneven)) + 1
        raise DataError(
            "slices must be evenly spaced",
            received=f"{gaps[place - 1]:.2f} mm after slice {place} where {usual:.2f} mm is usual",
            where=where,
            remedy=_AGAIN,
        )
    holes = np.flatnonzero(units > 1)
    if len(holes):
        missing = int((units - 1).sum())
        named = ", ".join(f"{int(units[n]) - 1} after slice {n + 1}" for n in holes[:5])
        more = f" and {len(holes) - 5} more gaps" if len(holes) > 5 else ""
        raise DataError(
            "a series must be complete",
            received=f"{missing} missing of {len(along) + missing} slices ({named}{more})",
            where=where,
            remedy=_AGAIN,
        )
