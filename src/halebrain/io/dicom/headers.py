"""Reading of DICOM headers: geometry and pixel format of each frame, without personal data.

Everything else stays unread on disk; messages count files instead of naming them, as names of files are often names of
people.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom

from halebrain.core.errors import DataError
from halebrain.io.dicom.frames import MODALITIES, TAGS, Frame, frames_of

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
    """Return the frames of all images among DICOM files, each once, and the number of other objects.

    Raises:
        DataError: A header is damaged; the message says how many are.
    """
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
