"""Scans in a folder: files of any format, DICOM series, or a BIDS data set; and the images that are left out."""

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

from halebrain.core.errors import DataError
from halebrain.core.exam_provenance import ENDING as EXAM_ENDING
from halebrain.core.provenance import ENDING as SCAN_ENDING
from halebrain.io.bids import SUFFIXES as BIDS_SUFFIXES
from halebrain.io.bids import BidsName, read_name
from halebrain.io.bids_derivative import DESCRIPTION, NAME, read_description
from halebrain.io.files import is_dicom
from halebrain.io.tree import NIFTI, FileTree, LeftOut
from halebrain.io.volume import MAP_SUFFIXES, stem_of

_MASKS = re.compile(
    r"(?:.*[^a-z])?(?:(?:brain|lesion|tumou?r|wmh|stroke|roi|head|skull)?mask|[dp]?seg|probseg|roi|labels?|labelmap|"
    r"lesions?|segmentation|annotations?|gt|ground[-_ ]?truth)"
    r"(?:[-_. ](?:bin|binary|binari[sz]ed|final|auto|manual|edited|corrected))*",
    re.IGNORECASE,
)
"""Names whose last word is that of a mask or a map of labels, or such a word and one for its state ("mask_bin")."""
_FREESURFER_BRAIN = "brainmask.mgz"
"""An image, despite its name: FreeSurfer's stripped T1."""
_MASK_FOLDERS = re.compile(r"(?:.*/)?(?:labels(?:tr|ts)?|masks?|segmentations?)/.*", re.IGNORECASE | re.DOTALL)
"""Paths below a folder of masks, whose files may have the names of their scans, as nnU-Net has it."""
_OWN = (SCAN_ENDING, EXAM_ENDING)
"""Beside each result of ours."""
_RESULTS = "results of HaleBrain"
_NOT_RAW = ("derivatives", "sourcedata", "code", "stimuli")
"""Folders of a BIDS data set that hold no raw scans."""
_MAPS = ("pseudohealthy", "residual", "uncertainty")
"""Descriptions of those results that have the suffix of their scan."""
_FILLED = re.compile(r".+_desc-[^_]*filled_[^_]+")
"""Names of lesion-filled scans."""
_HEALTHY = "healthy"
"""Description of the true healthy image of a virtual patient: a part of that scan, as its lesion mask is."""
_SHARED = "folders that share a DICOM series with another one"
_PARTS = ("phase", "real", "imag")
_DERIVED = ("desc", "label", "res", "den", "seg", "atlas", "from")
_DICOM_SUFFIX = ".dcm"
_DICOM_INDEX = "DICOMDIR"
Item = TypeVar("Item")


class Found(list[Item], Generic[Item]):
    """What was looked for in a folder: the items that are used, and the images that are not, with the reason."""

    def __init__(self, items: Iterable[Item] = (), left_out: Iterable[LeftOut] = ()) -> None:
        super().__init__(items)
        self.left_out = tuple(left_out)


def is_named_as_mask(image: Path) -> bool:
    """Return whether the name of an image is that of a mask or of a map of labels: "P1_seg", "lesion_mask_bin"."""
    return image.name != _FREESURFER_BRAIN and _MASKS.fullmatch(stem_of(image)) is not None


def scans_in(folder: Path, *, masks: bool = False) -> Found[Path]:
    """Return the scans of a folder, sorted; every other image below it is left out with a reason.

    - With `dataset_description.json` it is a BIDS data set: its T1w, T2w, FLAIR and inplaneT2 images (`bids_images`).
    - With DICOM slices, or with a DICOMDIR, all DICOM below it is one scan (the folder itself).
    - Else: every multi-frame DICOM, and every sub-folder with DICOM below it. A folder that holds one such sub-folder
      and nothing else is itself the scan.
    - Beside them, every file of a known ending, however deep; one that is named as a mask, or its folder, is left out.
    - Lesion-filled scans of ours beside other scans are left out, as their scans may be among those.
    - Sub-folders that share a DICOM series are left out: each is incomplete, or one is a copy.

    Files that cannot be read are among them: each is to fail alone.

    Args:
        folder: An existing folder.
        masks: Whether files that are named as masks are wanted too.

    Raises:
        DataError: One DICOM series lies in two sub-folders, and there is nothing else.
    """
    tree = FileTree(folder)
    if is_bids(folder):
        found = bids_images(tree)
        return Found([folder / name for name, _ in found], found.left_out)
    dicom = [name for name in tree.names if _is_dicom(tree, name)]
    slices = [name for name in dicom if "/" not in name and name not in tree.broken]
    images, left_out = _images(tree, set(dicom), masks=masks)
    if slices and not _all_multi_frame(folder / name for name in slices):
        return Found([folder, *images], left_out)
    below: dict[str, list[str]] = {}
    for name in dicom:
        if "/" in name:
            below.setdefault(name.partition("/")[0], []).append(name)
    if len(below) == 1 and not images and not slices:
        return Found([folder], left_out)
    shared = _sharing(tree, below)
    apart = [name for name in below if name not in shared]
    scans = sorted([folder / name for name in (*slices, *apart)] + images)
    if shared and not scans:
        one, other = next(iter(shared.items()))
        raise DataError(
            "a DICOM series must lie in one sub-folder",
            received=f"a series in both '{other}' and '{one}'",
            where=tree.root,
            remedy=f"name a series of the whole folder ('{tree.root.name}#NUMBER'), or remove the copy",
        )
    return Found(scans, [*left_out, *(LeftOut(name, _SHARED) for name in sorted(shared))])


def is_bids(folder: Path) -> bool:
    """Return whether a folder is declared as a BIDS data set."""
    return (folder / DESCRIPTION).is_file()


def bids_images(
    tree: FileTree, *, suffixes: Collection[str] = BIDS_SUFFIXES, derived: bool | None = None
) -> Found[tuple[str, BidsName]]:
    """Return the scans of a BIDS data set: relative path and name, sorted; every other image is left out with a reason.

    `derived`: whether images count that are derived by name (`desc-`, `res-`, …); `None` = where the data set describes
    itself as a derivative.
    """
    if derived is None:
        derived = _is_derivative(tree.root)
    wanted = {suffix.lower() for suffix in suffixes}
    found: list[tuple[str, BidsName]] = []
    left_out = list(tree.left_out)
    for name in tree.images():
        parts = name.split("/")
        if parts[0] in _NOT_RAW:
            left_out.append(LeftOut(name, _RESULTS if NAME in "/".join(parts[1:2]) else f"in {parts[0]}"))
            continue
        read = read_name(stem_of(tree.root / name))
        reason = _no_scan(parts[-1], read, wanted, derived=derived)
        if reason is None and read is not None:
            found.append((name, read))
        else:
            left_out.append(LeftOut(name, reason or "without a BIDS name"))
    return Found(found, left_out)


def _is_derivative(dataset: Path) -> bool:
    try:
        return read_description(dataset).get("DatasetType") == "derivative"
    except DataError:  # what is wrong with a description is for the validation to say
        return False


def _no_scan(file: str, read: BidsName | None, wanted: Collection[str], *, derived: bool) -> str | None:
    """Return why an image of a BIDS data set is no scan; `None` where it is one."""
    if read is None:
        return "without a BIDS name"
    if read.suffix.lower() not in wanted:
        return "named as masks" if _MASKS.fullmatch(read.suffix) else "with a suffix that is not processed"
    if not re.search(f"{NIFTI}$", file):
        return "not NIfTI, which BIDS requires"
    if read.entities.get("part") in _PARTS:
        return "the phase, the real or the imaginary part of an image"
    if not derived and any(key in read.entities for key in _DERIVED):
        return 'named as derived, in a data set that does not state "DatasetType": "derivative"'
    if read.entities.get("desc") == _HEALTHY:
        return "true healthy images of virtual patients"
    return _RESULTS if read.entities.get("desc", "").endswith(_MAPS) else None


def _images(tree: FileTree, dicom: Collection[str], *, masks: bool) -> tuple[list[Path], list[LeftOut]]:
    """Return the images of a folder that are scans in their own files, and what is left out."""
    results = {name.rpartition("/")[0] for name in tree.names if name.endswith(_OWN)}
    images, left_out = [], list(tree.left_out)
    for name in tree.images():
        folder, _, file = name.rpartition("/")
        if name in dicom:
            continue
        if folder in results and "_desc-" in file:
            left_out.append(LeftOut(name, _RESULTS))
        elif name not in tree.broken and name.lower().endswith(_DICOM_SUFFIX):
            left_out.append(LeftOut(name, "not DICOM, despite the name"))
        elif not masks and is_named_as_mask(tree.root / name):
            left_out.append(LeftOut(name, "named as masks"))
        elif not masks and _MASK_FOLDERS.fullmatch(name):
            left_out.append(LeftOut(name, "in a folder that is named as one of masks"))
        else:
            images.append(tree.root / name)
    filled = {path for path in images if _is_filled(path)}
    if not dicom and len(filled) == len(images):  # they are what was meant
        return images, left_out
    left_out += [LeftOut(tree.relative(path), _RESULTS) for path in sorted(filled)]
    return [path for path in images if path not in filled], left_out


def _is_filled(image: Path) -> bool:
    """Return whether an image is a scan that was filled here, as its sidecar says."""
    stem = stem_of(image)
    if not _FILLED.fullmatch(stem):
        return False
    try:
        stated = json.loads(image.with_name(f"{stem}.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(stated, dict) and "FilledVolumeMl" in stated


def _is_dicom(tree: FileTree, name: str) -> bool:
    """Return whether a file is a DICOM slice, or stands for one that is not fetched."""
    if name.lower().endswith(MAP_SUFFIXES):
        return False
    if name not in tree.broken:
        return is_dicom(tree.root / name)
    return "/" in name and PurePosixPath(name).suffix.lower() in ("", ".dcm", ".ima")


def _all_multi_frame(files: Iterable[Path]) -> bool:
    from halebrain.io.dicom.headers import is_multi_frame

    return all(file.name.upper() != _DICOM_INDEX and is_multi_frame(file) for file in files)


def _sharing(tree: FileTree, below: dict[str, list[str]]) -> dict[str, str]:
    """Return folder → another one in which a series of it lies, too: either is incomplete, or a copy."""
    from halebrain.io.dicom.headers import series_uids

    owner: dict[str, str] = {}
    shared: dict[str, str] = {}
    for folder, names in below.items():
        for uid in series_uids([tree.root / name for name in names if name not in tree.broken]):
            other = owner.setdefault(uid, folder)
            if other != folder:
                shared |= {folder: other, other: folder}
    return shared
