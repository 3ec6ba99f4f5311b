"""Which scans lie in a folder: files of any format, DICOM series, or a BIDS data set."""

import re
from collections.abc import Iterable
from pathlib import Path

from halebrain.core.errors import DataError
from halebrain.io.files import check_link, dicom_files, is_dicom, is_hidden
from halebrain.io.formats.pair import has_header, is_pair
from halebrain.io.volume import SUFFIXES

_BIDS = re.compile(r"^sub-[a-zA-Z0-9]+_(?!.*part-(phase|real|imag)).*(T1w|T2w|FLAIR|inplaneT2)\.nii(\.gz)?$")
_BIDS_FOLDERS = ("sub-*/anat", "sub-*/ses-*/anat")
_DICOM_INDEX = "DICOMDIR"


def scans_in(folder: Path) -> list[Path]:
    """Return the scans of a folder, sorted.

    - With `dataset_description.json` it is a BIDS data set: all its anatomical T1w, T2w, FLAIR and inplaneT2 images,
      those of its derivatives aside.
    - With DICOM slices, or with a DICOMDIR, it is one DICOM scan (the folder itself).
    - Else: every file of a known ending, every multi-frame DICOM, and every sub-folder with DICOM below it. A folder
      that holds one such sub-folder and nothing else is itself the scan.

    Raises:
        DataError: A symbolic link leads out of the folder or nowhere, or one DICOM series lies in two sub-folders.
    """
    if is_bids(folder):
        return bids_scans(folder)
    entries = sorted(path for path in folder.iterdir() if not is_hidden(path.name))
    for path in entries:
        if path.is_symlink() and _matters(path):
            check_link(path, folder)
    loose = [path for path in entries if path.is_file() and is_dicom(path)]
    images = [path for path in entries if path.is_file() and path not in loose and _is_scan(path)]
    if loose and not _all_multi_frame(loose):
        return [folder, *images]
    below = [path for path in entries if path.is_dir() and not path.is_symlink() and dicom_files(path)]
    if len(below) == 1 and not images and not loose:
        return [folder]
    _check_apart(below, folder)
    return sorted([*loose, *images, *below])


def is_bids(folder: Path) -> bool:
    """Return whether a folder says of itself that it is a BIDS data set."""
    return (folder / "dataset_description.json").is_file()


def bids_scans(folder: Path) -> list[Path]:
    """Return the anatomical T1w, T2w, FLAIR and inplaneT2 images of a BIDS data set, sorted.

    Raises:
        DataError: One of them is a symbolic link that leads out of the folder or nowhere.
    """
    found = [path for place in _BIDS_FOLDERS for path in folder.glob(f"{place}/*") if _BIDS.match(path.name)]
    for path in found:
        check_link(path, folder)
    return sorted(found)


def _matters(link: Path) -> bool:
    """Return whether a link could stand for a scan; a link to a text file concerns nobody."""
    return link.name.lower().endswith(SUFFIXES) or not link.suffix or link.is_dir() or is_dicom(link)


def _is_scan(path: Path) -> bool:
    # A pair is known by its header; an image that lost its own is listed, so that its reader can say so.
    if path.name.lower().endswith(SUFFIXES):
        return True
    return is_pair(path) and not has_header(path)


def _all_multi_frame(files: Iterable[Path]) -> bool:
    from halebrain.io.dicom.headers import is_multi_frame

    return all(file.name.upper() != _DICOM_INDEX and is_multi_frame(file) for file in files)


def _check_apart(folders: list[Path], where: Path) -> None:
    """Raise where one series lies in two folders: either is incomplete, or a copy."""
    from halebrain.io.dicom.headers import series_uids

    owner: dict[str, Path] = {}
    for folder in folders:
        for uid in series_uids(dicom_files(folder)):
            other = owner.setdefault(uid, folder)
            if other != folder:
                raise DataError(
                    "a DICOM series must lie in one sub-folder",
                    received=f"one in '{other.name}' and in '{folder.name}'",
                    where=where,
                    remedy=f"name a series of the whole folder ('{where.name}#NUMBER'), or remove the copy",
                )
