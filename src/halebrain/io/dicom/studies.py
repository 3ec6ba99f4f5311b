"""The series of a DICOM folder that could be scans, by the study that they belong to."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from halebrain.io.dicom.headers import open_header, quiet, read_frames
from halebrain.io.dicom.read import dicom_source
from halebrain.io.dicom.series import Series, group_series, scan_series


@dataclass(frozen=True)
class StudySeries:
    """One series that could be a scan.

    Args:
        number: Its number, where it is given.
        key: Eight hexadecimal digits that are its own.
        study: Eight hexadecimal digits of its study; empty where its header states none.
    """

    number: int | None
    key: str
    study: str


def study_series(path: Path) -> list[StudySeries]:
    """Return the series of a folder, archive or file that could be scans, by number.

    Raises:
        MissingInputError: There is no such path, or no DICOM in it.
        DataError: A header is damaged.
    """
    with dicom_source(path) as files:
        frames, _ = read_frames(files, path)
        return [StudySeries(one.info.number, one.info.key, _study(one)) for one in scan_series(group_series(frames))]


def _study(series: Series) -> str:
    """Return a hash of the study of a series: its identifier is compared, and never shown."""
    with quiet():
        uid = str(open_header(series.frames[0].file, ["StudyInstanceUID"]).get("StudyInstanceUID") or "")
    return hashlib.sha256(uid.encode()).hexdigest()[:8] if uid else ""
