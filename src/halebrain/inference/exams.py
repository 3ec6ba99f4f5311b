"""Exams: the scans of one person at one time, and the exams of an input."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from halebrain.core.errors import DataError, UsageError
from halebrain.core.modality import find_contrast, split_name, standard_modality
from halebrain.core.wording import first_of, printable
from halebrain.inference.scans import PathLike, ScanInput, find_scans, given_scan, scan_of_record
from halebrain.io.bids import DATA_TYPES, BidsName, read_name
from halebrain.io.dicom.studies import study_series
from halebrain.io.discovery import Found, is_bids
from halebrain.io.files import split_selection
from halebrain.io.formats import FORMATS
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tables import is_table
from halebrain.io.volume import format_of, stem_of

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

_SEPARATORS = re.compile(r"[\W_]+")
_SEVERAL_SEPARATORS = re.compile(r"[\W_]{2,}")
_EDGES = "_-. "
Item = TypeVar("Item")
_FOLDER_END = "//"
"""Between the folder of scans with names as in BIDS and their labels; no path holds it."""
_ALONE = "no other scan of the input belongs to it"
_TOGETHER = "given together"


@dataclass(frozen=True)
class Exam:
    """Scans of one person at one time.

    Args:
        name: Name of its results: `sub-01_ses-1`, or what the names of its scans share.
        scans: Its scans, one at least.
        reason: Why they belong together, a clause.
        subject: Label of the person, where the input states one.
        session: Label of the session, where the input states one.
    """

    name: str
    scans: tuple[ScanInput, ...]
    reason: str
    subject: str | None = None
    session: str | None = None

    @property
    def in_dataset(self) -> Path | None:
        """Folder of its results in a BIDS derivative; `None` where its scans are in no data set."""
        places = [scan.in_dataset.parent for scan in self.scans if scan.in_dataset is not None]
        return places[0] if len(places) == len(self.scans) else None

    @property
    def folder(self) -> Path:
        """Folder of its results below that of a run: as in its BIDS data set, else its name."""
        return self.in_dataset or Path(self.name)

    @property
    def is_alone(self) -> bool:
        """Whether it holds a single scan."""
        return len(self.scans) == 1


def find_exams(sources: Sequence[Path]) -> Found[Exam]:
    """Return the exams of an input, in the order of their names, and the images that are left out.

    - Several inputs are the scans of one exam.
    - A manifest, and a BIDS data set: the scans of one subject and session.
    - DICOM: the series of one study.
    - A folder or a list of other files: scans of one folder whose names are equal but for the word for the contrast, or
      state one subject and session (`sub-01_ses-1_T1w`).

    A scan that belongs to no other one is an exam of one scan.

    Raises:
        UsageError: Several inputs are not one scan each, or state different people or sessions.
        MissingInputError: There is nothing, or no scan in it.
        DataError: A manifest or a list cannot be read, or several inputs are series of different studies.
    """
    if len(sources) > 1:
        return Found([_given_together(sources)])
    source = sources[0]
    place, series = split_selection(source)
    if series is None and place.is_file() and is_table(source):
        return Found(exams_of_manifest(Manifest.read(source)))
    found = find_scans(source)
    if place.is_dir() and is_bids(place):
        return Found(exams_of_dataset(found), found.left_out)
    files = [scan for scan in found if not _is_dicom(scan.image)]
    dicom = [scan for scan in found if _is_dicom(scan.image)]
    root = place if place.is_dir() else place.parent
    exams = [*_by_names(files, root), *_by_study(dicom)]
    return Found(_named_apart(exams), found.left_out)


def exams_of_manifest(manifest: Manifest) -> list[Exam]:
    """Return the exams of a manifest: the scans of one subject and session."""
    exams = []
    for name, rows in _grouped(manifest.records, lambda record: record.exam_id):
        first = rows[0]
        scans = tuple(scan_of_record(row) for row in rows)
        reason = _of_session(first.subject, first.session, "manifest") if len(rows) > 1 else _ALONE
        exams.append(Exam(name, scans, reason, first.subject, first.session))
    return exams


def records_by_exam(manifest: Manifest) -> list[tuple[str, list[ScanRecord]]]:
    """Return the rows of each exam of a manifest, by its name."""
    return _grouped(manifest.records, lambda record: record.exam_id)


def is_known_contrast(word: str) -> bool:
    """Return whether a word for a contrast is one that is known ("t1", "FLAIR")."""
    return split_name(standard_modality(word))[0] is not None


def contrast_by_name(scan: ScanInput) -> str | None:
    """Return the contrast that manifest or name of a scan declare; `None` = it must be inferred from the image."""
    return find_contrast("auto", scan.modality, scan.named, None).name


def exams_of_dataset(scans: Iterable[ScanInput]) -> list[Exam]:
    """Return the exams of a BIDS data set: the scans of one subject and session."""

    def session_of(scan: ScanInput) -> str:
        entities = _entities(scan)
        return "_".join(f"{key}-{entities[key]}" for key in ("sub", "ses") if key in entities) or scan.name

    exams = []
    for name, own in _grouped(scans, session_of):
        entities = _entities(own[0])
        subject, session = entities.get("sub"), entities.get("ses")
        reason = _of_session(str(subject), session, "BIDS data set") if len(own) > 1 else _ALONE
        exams.append(Exam(name, tuple(_with_bids_contrast(scan) for scan in own), reason, subject, session))
    return exams


def _entities(scan: ScanInput) -> dict[str, str]:
    read = read_name(scan.name)
    return {} if read is None else read.entities


def _with_bids_contrast(scan: ScanInput) -> ScanInput:
    """Return a scan that states its contrast: a T1w with a contrast agent is T1ce."""
    read: BidsName | None = read_name(scan.name)
    return scan if read is None else replace(scan, modality=read.modality)


def _of_session(subject: str, session: str | None, where: str) -> str:
    whose = f"subject {subject}" if session is None else f"subject {subject}, session {session}"
    return f"all of {whose} in the {where}"


def _by_names(scans: Sequence[ScanInput], root: Path) -> list[Exam]:
    """Return the exams of files: those of one folder whose names differ in the word for the contrast alone.

    Names as in BIDS: those of one subject and session in one folder. Capitals and separators count where a contrast is
    there twice without them.
    """
    paths = {scan.image: scan.image for scan in scans}
    if not all(path.is_relative_to(root) for path in paths):  # a list may name scans of other folders
        paths = {path: path.absolute() for path in paths}
        root = Path(os.path.commonpath([path.parent for path in paths.values()]))
    alike = _grouped(scans, lambda scan: _without_contrast(paths[scan.image], root))
    grouped = [(key, own) for key, those in alike for own in _told_apart(those, paths)]
    labels = Counter(key.rpartition(_FOLDER_END)[2] for key, _ in grouped)
    exams = []
    for key, own in grouped:
        if len(own) == 1:
            exams.append(Exam(own[0].name, tuple(own), _ALONE))
            continue
        _, end, label = key.rpartition(_FOLDER_END)
        # As a scan is: by its label, with its folders if that is taken.
        stated = label if end and labels[label] == 1 else key
        name = re.sub(r"[^\w-]+", "_", stated).strip("_") or printable(root.resolve().name) or "exam"
        exams.append(Exam(name, tuple(own), "their names are equal but for the contrast"))
    return exams


def _without_contrast(image: Path, root: Path) -> str:
    """Return what the path of a scan shares with the others of its exam; its whole path where it states no contrast."""
    path = image.relative_to(root) if image.is_relative_to(root) else image
    if (read := _stated(stem_of(path))) is not None:
        labels = [f"{key}-{read.entities[key]}" for key in ("sub", "ses") if key in read.entities]
        folder = "/".join(_own_folders(path, read, labels))
        return f"{folder}{_FOLDER_END if folder else ''}{'_'.join(labels)}"
    stem = (path.parent / stem_of(path)).as_posix()
    contrast, rest = split_name(stem)
    if contrast is None:
        return stem
    return "/".join(_SEPARATORS.sub("_", part).strip("_").lower() for part in rest.split("/"))


def _stated(stem: str) -> BidsName | None:
    """Return a name as in BIDS that states subject and contrast; `None` = another one."""
    read: BidsName | None = read_name(stem)
    return read if read is not None and "sub" in read.entities and split_name(read.suffix)[0] else None


def _told_apart(scans: list[ScanInput], paths: Mapping[Path, Path]) -> list[list[ScanInput]]:
    """Return scans of one key in groups of one spelling, where one of their contrasts is there twice.

    Capitals and separators may differ between the files of an exam (`Ann-T1`, `ann_FLAIR`); beside a second T1 they
    tell `annA` from `anna`, and `s1_2` from `s1-2`.
    """
    places = [paths[scan.image] for scan in scans]
    names = {path: split_name((path.parent / stem_of(path)).as_posix()) for path in places}
    contrasts = [contrast for contrast, _ in names.values()]
    if len(set(contrasts)) == len(contrasts) or _stated(stem_of(scans[0].image)) is not None:
        return [scans]

    def spelling(scan: ScanInput) -> str:
        parts = names[paths[scan.image]][1].split("/")
        return "/".join(_SEVERAL_SEPARATORS.sub("_", part).strip(_EDGES) for part in parts)

    return [own for _, own in _grouped(scans, spelling)]


def _own_folders(path: Path, read: BidsName, labels: Sequence[str]) -> list[str]:
    """Return the folders of a scan with a name as in BIDS, without those that its name states or that BIDS has."""
    contrasts = (split_name(read.suffix)[0], read.modality)
    folders = []
    for part in path.parent.parts:
        contrast, rest = split_name(part)
        if contrast in contrasts:  # "T1_images" and "FLAIR_images" may hold the scans of one exam
            part = _SEPARATORS.sub("_", rest).strip("_")
        if part and part not in labels and part not in DATA_TYPES:
            folders.append(part)
    return folders


def _by_study(scans: Sequence[ScanInput]) -> list[Exam]:
    """Return the exams of DICOM folders, archives and files: the series of one study."""
    found: list[tuple[str, ScanInput]] = []
    for scan in scans:
        found += _series_of(scan)
    exams = []
    for study, own in _grouped(found, lambda item: item[0]):
        series = tuple(scan for _, scan in own)
        name = series[0].name if len(series) == 1 else _common_name(series) or f"study-{study}"
        exams.append(Exam(name, series, "series of one DICOM study" if len(series) > 1 else _ALONE))
    return exams


def _series_of(scan: ScanInput) -> list[tuple[str, ScanInput]]:
    """Return each series of a DICOM input as a scan, with its study; one that cannot be listed fails on reading."""
    place, chosen = split_selection(scan.image)
    try:
        listed = study_series(place)
    except DataError:
        return [(scan.name, scan)]
    if chosen is not None:
        listed = [one for one in listed if chosen.lower() in (one.key, str(one.number))]
    if len(listed) <= 1:
        return [((listed[0].study if listed else "") or scan.name, scan)]
    numbers = [one.number for one in listed]
    series = []
    for one in listed:
        label = one.key if one.number is None or numbers.count(one.number) > 1 else f"{one.number}"
        named = replace(scan, image=place.with_name(f"{place.name}#{one.key}"), name=f"{scan.name}_{label}")
        series.append((one.study or scan.name, named))
    return series


def _common_name(scans: Sequence[ScanInput]) -> str:
    """Return the words that the names of several scans begin with, contrasts left out; empty where there is none."""
    words = [_SEPARATORS.split(split_name(scan.name)[1].strip("_- ")) for scan in scans]
    shared = []
    for same in zip(*words, strict=False):
        if len(set(same)) > 1:
            break
        shared.append(same[0])
    return "_".join(word for word in shared if word)


def _given_together(sources: Sequence[Path]) -> Exam:
    """Return the exam of several inputs, which the user says belong together."""
    scans: list[ScanInput] = []
    studies: dict[str, str] = {}
    for source in sources:
        found = find_scans(source)
        if len(found) > 1:
            raise UsageError(
                "several inputs of --exam must be one scan each",
                received=f"{len(found)} scans",
                where=source,
                remedy="give that folder alone, or each scan of the exam",
            )
        scan = found[0]
        own = _series_of(scan) if _is_dicom(scan.image) else [("", scan)]
        studies |= {study: scan.name for study, _ in own if study and study != scan.name}
        scans += [one for _, one in own]
    if len(studies) > 1:
        raise DataError(
            "the scans of an exam must be of one person at one time",
            received=f"series of {len(studies)} DICOM studies ({first_of(sorted(studies.values()))})",
            remedy="give each study its own command",
        )
    _check_labels(scans)
    names = [scan.name for scan in scans]
    if len(set(names)) < len(names):
        scans = [replace(scan, name=f"{scan.image.parent.name}_{scan.name}") for scan in scans]
    _check_apart(scans)
    return Exam(_session_name(scans) or _common_name(scans) or "exam", tuple(scans), _TOGETHER)


def given_exam(
    scans: "Mapping[str, SpatialImage | PathLike] | Sequence[SpatialImage | PathLike]",
    brain_masks: "Mapping[str, SpatialImage | PathLike] | None" = None,
) -> Exam:
    """Return the exam of scans that were given in Python: contrast → scan, or scans alone; masks by contrast.

    Raises:
        UsageError: There is no scan, a mask of no scan, or something that is neither a path nor a nibabel image.
        DataError: An image in memory cannot be used.
    """
    if not scans:
        raise UsageError("an exam needs one scan at least", received="none", remedy="give its scans")
    named = dict(scans) if isinstance(scans, Mapping) else dict(enumerate(scans, start=1))
    words = {str(key) for key in named if isinstance(key, str)}
    if lost := sorted({str(key) for key in brain_masks or ()} - words):
        raise UsageError(
            "brain_masks take the words of scans",
            received=", ".join(lost),
            remedy="give scans and brain_masks as mappings with the same contrasts",
        )
    masks, found = brain_masks or {}, list[ScanInput]()
    for key, image in named.items():
        contrast = key if isinstance(key, str) else None
        mask = None if contrast is None else masks.get(contrast)
        scan = given_scan(image, brain_mask=mask, modality=contrast)
        name = scan.name if scan.memory is None else contrast or f"image{key}"
        taken = {other.name for other in found}
        while name in taken:  # another scan may have the first free one
            name = f"{name}_{key}"
        found.append(replace(scan, name=name))
    return Exam("exam", tuple(found), _TOGETHER)


def _session_name(scans: Sequence[ScanInput]) -> str:
    """Return "sub-01_ses-1" where every name states the same one; empty elsewhere."""
    found = {"_".join(f"{k}-{e[k]}" for k in ("sub", "ses") if k in (e := _entities(scan))) for scan in scans}
    return found.pop() if len(found) == 1 else ""


def _check_labels(scans: Sequence[ScanInput]) -> None:
    """Refuse scans whose names state different people or sessions."""
    for key, what in (("sub", "person"), ("ses", "session")):
        stated = {scan.name: label for scan in scans if (label := _entities(scan).get(key)) is not None}
        if len(labels := sorted(set(stated.values()))) > 1:
            raise UsageError(
                f"the scans of an exam must be of one {what}",
                received=", ".join(f"{key}-{label}" for label in labels),
                remedy="give each its own exam, or the whole folder, whose scans are grouped by subject and session",
            )


def _check_apart(scans: Sequence[ScanInput]) -> None:
    names = [scan.name for scan in scans]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            "the scans of an exam need different names", received=f"{twice[0]} twice", remedy="rename one, or remove it"
        )


def _named_apart(exams: Sequence[Exam]) -> list[Exam]:
    """Return exams with different names: a number is added where two would share one."""
    own = {exam.name for exam in exams}
    taken: set[str] = set()
    found = []
    for exam in exams:
        name = exam.name
        if name in taken:
            free = (f"{name}_{number}" for number in count(2))
            name = next(other for other in free if other not in taken and other not in own)
        taken.add(name)
        found.append(replace(exam, name=name))
    return found


def _is_dicom(image: Path) -> bool:
    place, series = split_selection(image)
    return series is not None or (place.exists() and format_of(place) is FORMATS.get("dicom"))


def _grouped(items: Iterable[Item], key: Callable[[Item], str]) -> list[tuple[str, list[Item]]]:
    """Return items by key, keys sorted, each group in its own order."""
    ordered = sorted(items, key=key)
    return [(name, list(own)) for name, own in groupby(ordered, key)]
