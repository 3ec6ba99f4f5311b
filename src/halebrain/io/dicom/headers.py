"""Reading of DICOM headers: geometry and pixel format of each frame, without personal data.

Everything else stays unread on disk; messages count files instead of naming them, as names of files are often names of
people.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from halebrain.core.errors import DataError

TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Modality", "ImageType", "Rows", "Columns"),
    *("NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "EchoTime", "InversionTime"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ComplexImageComponent"),
    *(0x00430010, 0x0043102F),
)
"""All header fields that are read; none identifies the person, the site or the operator."""
_GE_OWNER, _GE_PART = (0x0043, 0x0010), (0x0043, 0x102F)
"""Where GE says whose private group it is, and which part of a complex image: numbers in the order of `PARTS`."""
PARTS = ("magnitude", "phase", "real", "imaginary")
_WORDS = {
    **{"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"},
    **{"MAGNITUDE": "magnitude", "PHASE": "phase", "PHASE MAP": "phase", "REAL": "real", "IMAGINARY": "imaginary"},
}
"""Values of ImageType and of ComplexImageComponent that name a part."""
MODALITIES = {
    *("CR", "CT", "DX", "MG", "MR", "NM", "OT", "PT", "PX", "RF", "SC", "US", "XA"),
    *("SEG", "SR", "PR", "KO", "REG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE"),
}
"""Values that may appear in a message; other values of that field could be personal data."""
_MR_IMAGES = {f"1.2.840.10008.5.1.4.1.1.4{tail}" for tail in ("", ".1", ".4")}
"""Classes of objects that must have pixels."""

Numbers = npt.NDArray[np.float64]


_MOST_FRAMES = 100_000
"""A file cannot hold more; a larger number means a damaged header."""


@dataclass(frozen=True)
class Frame:
    """One plane of pixels.

    Args:
        file: Where it is.
        index: Number within a multi-frame file; `None` for the only one.
        uid: Unique identifier; never shown.
        series_uid: The series that it belongs to; never shown.
        number: Series number, where it is given.
        modality: "MR", "CT", …, or "unknown" for what the standard does not list.
        image_type: Values of ImageType (and of FrameType), upper case.
        contrast: Echo and inversion time, by which one series may hold several images.
        part: Which part of a complex image it is, one of `PARTS`.
        shape: Rows and columns.
        grey: Whether a pixel is one number, more being brighter.
        position: Centre of the first pixel in mm, LPS `(3,)`; `None` where it is not given.
        orientation: Direction along a row, then along a column, LPS `(2, 3)`; `None` where it is not given.
        spacing: Distance between rows and between columns in mm.
        slope: What a stored unit is worth.
        intercept: What a stored zero is worth.
    """

    file: Path
    index: int | None
    uid: str
    series_uid: str
    number: int | None
    modality: str
    image_type: tuple[str, ...]
    contrast: tuple[object, ...]
    part: str
    shape: tuple[int, int]
    grey: bool
    position: Numbers | None
    orientation: Numbers | None
    spacing: Numbers | None
    slope: float
    intercept: float

    @property
    def placed(self) -> bool:
        """Whether the header says where the frame lies."""
        return self.position is not None and self.orientation is not None and self.spacing is not None


def frames_of(header: Any, file: Path) -> Iterator[Frame]:
    """Yield the frames of a header read with `TAGS`, none for an object that is no image; damage raises any error."""
    if "Rows" not in header or "Columns" not in header:
        kind = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
        if not kind or kind in _MR_IMAGES:
            raise ValueError("an image without dimensions, or no image")
        return
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    count = int(header.get("NumberOfFrames") or 1)
    if count > _MOST_FRAMES:
        raise ValueError(f"{count} frames")
    if per_frame is None:
        for index in range(count):
            yield _frame(header, [header], file, index if count > 1 else None, enhanced=False)
        return
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    for index, groups in enumerate(per_frame):
        yield _frame(header, [groups, *shared], file, index, enhanced=True)


def _frame(header: Any, places: list[Any], file: Path, index: int | None, *, enhanced: bool) -> Frame:
    modality = str(header.get("Modality", ""))
    kinds = [str(v).upper() for v in _values(header.get("ImageType"))]
    kinds += [str(v).upper() for v in _values(_find(places, "MRImageFrameTypeSequence", "FrameType", enhanced))]
    position = _floats(_find(places, "PlanePositionSequence", "ImagePositionPatient", enhanced), 3)
    orientation = _floats(_find(places, "PlaneOrientationSequence", "ImageOrientationPatient", enhanced), 6)
    echo = _find(places, "MREchoSequence", "EffectiveEchoTime", True) if enhanced else header.get("EchoTime")
    slope = _find(places, "PixelValueTransformationSequence", "RescaleSlope", enhanced)
    intercept = _find(places, "PixelValueTransformationSequence", "RescaleIntercept", enhanced)
    number = header.get("SeriesNumber")
    series = str(header.get("SeriesInstanceUID", ""))
    uid = str(header.get("SOPInstanceUID", "")) or hashlib.sha256(str(file).encode()).hexdigest()
    component = _find(places, "MRImageFrameTypeSequence", "ComplexImageComponent", enhanced)
    return Frame(
        file=file,
        index=index,
        # With its series and place: some ways to take names out of headers give all slices of a study one UID.
        uid=f"{uid}/{series}/{_rounded(echo)}/{_rounded(header.get('InversionTime'))}/{index or 0}/{position}",
        series_uid=series,
        number=None if number in (None, "") else int(number),
        modality=modality if modality in MODALITIES else "unknown",
        image_type=tuple(kinds),
        contrast=(_rounded(echo), _rounded(header.get("InversionTime"))),
        part=_part(header, [*kinds[2:], *(str(v).upper() for v in _values(component))]),
        shape=(int(header.Rows), int(header.Columns)),
        grey=int(header.get("SamplesPerPixel") or 1) == 1
        and str(header.get("PhotometricInterpretation", "MONOCHROME2")) == "MONOCHROME2",
        position=position,
        orientation=None if orientation is None else orientation.reshape(2, 3),
        spacing=_floats(_find(places, "PixelMeasuresSequence", "PixelSpacing", enhanced), 2),
        slope=1.0 if slope in (None, "") else float(slope),
        intercept=0.0 if intercept in (None, "") else float(intercept),
    )


def _part(header: Any, kinds: list[str]) -> str:
    """Return which part of a complex image a frame is: by its type, or where GE says it; else the magnitude."""
    named = [_WORDS[kind] for kind in kinds if kind in _WORDS and _WORDS[kind] != PARTS[0]]
    if named:
        return named[0]
    owner, number = (header[tag].value if tag in header else None for tag in (_GE_OWNER, _GE_PART))
    if str(owner).strip() == "GEMS_PARM_01" and isinstance(number, int) and 0 <= number < len(PARTS):
        return PARTS[number]
    return PARTS[0]


def _find(places: list[Any], group: str, name: str, enhanced: bool) -> Any:
    """Return a value from the frame's own functional groups, else from the shared ones, else from the header."""
    for place in places:
        holder = (place.get(group) or [None])[0] if enhanced else place
        if holder is not None and holder.get(name) is not None:
            return holder.get(name)
    return None


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def _floats(value: Any, count: int) -> Numbers | None:
    numbers = np.array([float(v) for v in _values(value)])
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _rounded(value: Any) -> float | None:
    return None if value in (None, "") else round(float(value), 1)


_CLASSES = "1.2.840.10008."
"""How the UIDs of the standard begin, those of classes of objects among them."""
_LOGGERS = ("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "highdicom")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom and its decoders from warning and logging: their messages quote values."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def open_header(file: Path, tags: Sequence[Any]) -> Any:
    """Return some tags of a header, also where nothing says before it that it is one; raises whatever pydicom does."""
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(tags), force=True)


def is_bare_header(file: Path) -> bool:
    """Return whether a file without the mark of DICOM holds an object of it all the same: by its class and modality."""
    with quiet():
        try:
            header = open_header(file, ["SOPClassUID", "Modality"])
            kind, modality = str(header.get("SOPClassUID") or ""), str(header.get("Modality") or "")
        except Exception:  # what is no DICOM fails in ways that pydicom does not list
            return False
    return kind.startswith(_CLASSES) or (not kind and modality in MODALITIES)


def read_frames(files: list[Path], where: Path) -> tuple[list[Frame], int]:
    """Return the frames of all images among DICOM files, each once, and the number of other objects."""
    frames: dict[str, Frame] = {}
    others = damaged = 0
    with quiet():
        for file in files:
            try:
                header = open_header(file, TAGS)
                found = list(frames_of(header, file))
            except Exception:  # pydicom fails on a bad header in ways that it does not list
                damaged += 1
                continue
            others += not found
            for frame in found:
                frames.setdefault(frame.uid, frame)
    if damaged:
        raise DataError(
            "every DICOM header must be readable",
            received=f"{damaged} of {len(files)} files are not readable",
            where=where,
            remedy="export them again",
        )
    return list(frames.values()), others


def is_multi_frame(file: Path) -> bool:
    """Return whether a DICOM file holds more than one frame; `False` where its header is damaged."""
    with quiet():
        try:
            header = open_header(file, ["NumberOfFrames"])
            return int(header.get("NumberOfFrames") or 1) > 1
        except Exception:  # reading it as a scan reports the error
            return False


def series_uids(files: list[Path]) -> set[str]:
    """Return the series that DICOM files belong to, to compare and never to show; damaged files are left out."""
    found = set()
    with quiet():
        for file in files:
            try:
                header = open_header(file, ["SeriesInstanceUID", "Rows"])
            except Exception:  # reading it as a scan reports the error
                continue
            if "Rows" in header:
                found.add(str(header.get("SeriesInstanceUID", "")))
    return found - {""}
