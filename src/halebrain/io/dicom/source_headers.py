"""The headers that a DICOM segmentation refers to: UIDs, geometry, and the required patient and study fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from halebrain.core.errors import DataError
from halebrain.core.types import Affine
from halebrain.io.dicom.frames import Frame
from halebrain.io.dicom.headers import open_header, quiet

_REQUIRED_BY_STANDARD = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
)
"""Of patient and study; may be empty, may not be absent."""
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_TAGS = (*_UIDS, *_REQUIRED_BY_STANDARD, "SpecificCharacterSet", "Modality", "Rows", "Columns", "ImagePositionPatient")
_SEXES = ("M", "F", "O", "")
_DIGITS = 16
"""A number in DICOM is a text of at most this length."""


def source_headers(frames: Sequence[Frame], grid: Affine, where: Path) -> list[Any]:
    """Return the headers of sorted frames: one a slice, or one of a multi-frame file.

    Direction, pixel size and distance are those of the grid, so that one slice with other rounding
    does not differ; positions are those of the headers.

    Args:
        frames: All slices of the scan, in order.
        grid: Their affine, `(column, row, slice)` to RAS+ mm.
        where: Where they are, for messages.

    Raises:
        DataError: UIDs are missing, shared or different where they may not be, or the scan is a part of its
            multi-frame files.
    """
    files = list(dict.fromkeys(frame.file for frame in frames))
    with quiet():
        found = [open_header(file, _TAGS) for file in files]
        for header in found:
            _complete(header)
    _check_uids(found, where)
    step_mm = float(np.linalg.norm(grid[:3, 2]))
    if any(frame.index is not None for frame in frames):
        _check_whole(frames, len(files), where)
        found[0].update(_functional_groups(sorted(frames, key=lambda frame: frame.index or 0), step_mm))
        return found
    for header in found:
        header.ImageOrientationPatient = _orientation(frames[0])
        header.PixelSpacing = _texts(frames[0].spacing)
        header.SliceThickness = header.SpacingBetweenSlices = _text(step_mm)
    return found


def _complete(header: Any) -> None:
    for name in _REQUIRED_BY_STANDARD:
        if header.get(name) is None:
            setattr(header, name, "")
    if str(header.PatientSex) not in _SEXES:
        header.PatientSex = ""


def _check_uids(headers: Sequence[Any], where: Path) -> None:
    for name in _UIDS:
        values = {str(header.get(name) or "") for header in headers}
        if "" in values:
            raise _refused(f"no {name} in a header", where)
        if name == "SOPInstanceUID" and len(values) != len(headers):
            raise _refused("slices that share one SOPInstanceUID", where)
        if name != "SOPInstanceUID" and len(values) > 1:
            raise _refused(f"slices with different {name}", where)


def _check_whole(frames: Sequence[Frame], n_files: int, where: Path) -> None:
    """Refuse a scan that is one image of several in a multi-frame file, or that several such files make up."""
    if n_files > 1:
        raise _refused("a scan in several multi-frame files", where)
    with quiet():
        header = open_header(frames[0].file, ["NumberOfFrames"])
    if int(header.get("NumberOfFrames") or 1) != len(frames):
        raise _refused("a multi-frame file that holds other images too", where)


def _functional_groups(frames: Sequence[Frame], step_mm: float) -> Dataset:
    """Return where the frames of a multi-frame file lie, as the standard has it, wherever its writer put that."""
    made, shared, orientation, measures = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _orientation(frames[0])
    measures.PixelSpacing = _texts(frames[0].spacing)
    measures.SliceThickness = measures.SpacingBetweenSlices = _text(step_mm)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    groups = []
    for frame in frames:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = _texts(frame.position)
        group.PlanePositionSequence = [position]
        groups.append(group)
    made.NumberOfFrames = len(frames)
    made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence = [shared], groups
    return made


def _orientation(frame: Frame) -> list[str]:
    return _texts(None if frame.orientation is None else frame.orientation.ravel())


def _texts(values: Any) -> list[str]:
    return [_text(float(value)) for value in values]


def _text(value: float) -> str:
    # Ten decimals of a cosine, or as many as fit.
    return f"{value:.10f}"[:_DIGITS]


def _refused(received: str, where: Path) -> DataError:
    return DataError(
        "DICOM-SEG needs the UIDs and the slices of one whole series",
        received=received,
        where=where,
        remedy="remove --dicom-seg; the NIfTI mask lies on the same grid",
    )
