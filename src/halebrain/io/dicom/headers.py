"""DICOM headers read: where each frame lies and how its pixels are to be taken, nothing of the person.

Everything else stays unread on disk; messages count files instead of naming them, as names of files are often names of
people.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom

from halebrain.core.errors import DataError
from halebrain.io.dicom.frames import TAGS, Frame, frames_of

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
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(TAGS))
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
            received=f"{damaged} of {len(files)} files that are not",
            where=where,
            remedy="export them again",
        )
    return list(frames.values()), others


def is_multi_frame(file: Path) -> bool:
    """Return whether a DICOM file holds more than one frame; `False` where its header is damaged."""
    with quiet():
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["NumberOfFrames"])
            return int(header.get("NumberOfFrames") or 1) > 1
        except Exception:  # reading it as a scan will tell
            return False


def series_uids(files: list[Path]) -> set[str]:
    """Return the series that DICOM files belong to, to compare and never to show; damaged files are left out."""
    found = set()
    with quiet():
        for file in files:
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Rows"])
            except Exception:  # reading it as a scan will tell
                continue
            if "Rows" in header:
                found.add(str(header.get("SeriesInstanceUID", "")))
    return found - {""}
