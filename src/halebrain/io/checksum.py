"""Fingerprints of files, scans and settings, for provenance."""

import hashlib
import json
from pathlib import Path
from typing import Any

from halebrain.io.files import dicom_files, missing_file, split_selection
from halebrain.io.formats import FORMATS
from halebrain.io.formats.hdr_img import is_hdr_img, parts_of
from halebrain.io.volume import format_of


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise missing_file(path, what="the file") from error


def json_sha256(value: Any) -> str:
    """Return the sha256 of JSON data; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def scan_sha256(path: Path) -> str:
    """Return the sha256 of what a scan is made of, whatever its format.

    That of a single file is the file's own. A pair counts with both files, and of Analyze with the `.mat` beside them;
    a DICOM folder with all its DICOM files, whatever their names and order; a chosen series with its number.
    """
    place, series = split_selection(path)
    if place.is_dir():
        parts = sorted(file_sha256(file) for file in dicom_files(place))
    elif is_hdr_img(place) and format_of(place) is FORMATS.get("hdr_img"):
        parts = [file_sha256(file) for file in parts_of(place)]
    else:
        parts = [file_sha256(place)]
    if len(parts) == 1 and series is None and not place.is_dir():
        return parts[0]
    return hashlib.sha256("\n".join([*parts, f"#{series or ''}"]).encode()).hexdigest()
