"""Any BIDS data set: anatomical scans, people from `participants.tsv` and `sessions.tsv`, masks from `derivatives`.

Layout: BIDS 1.x, `sub-01[/ses-1]/anat/sub-01[_ses-1][_acq-x][_run-1]_T1w.nii.gz`. Masks lie in `derivatives/*/`
or beside the scan, and carry its entities: `…_desc-brain_mask`, `…_label-L_mask` (the standard's own) or
`…_label-lesion_mask`, `…_label-lesion_dseg`, `…_label-lesion_roi` (any label above 0 is lesion). A `dseg` that does not
say lesion is a map of tissues, and is not taken for one. Labels with other signs than the standard allows, and suffixes
in another case, are read as what they mean.
"""

import functools
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halebrain.core.config import Config
from halebrain.core.errors import DataError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.core.wording import counted
from halebrain.data.datasets.base import SOURCES, Draft, Source, read_source
from halebrain.data.datasets.tables import column, parse_age, parse_pathology, parse_sex, read_rows
from halebrain.io.bids import SUFFIXES, read_name
from halebrain.io.discovery import bids_images
from halebrain.io.manifest import HEALTHY, Manifest, ScanRecord
from halebrain.io.tables import Row
from halebrain.io.tree import NIFTI, FileTree, summed_left_out
from halebrain.io.volume import stem_of

_log = logging.getLogger(__name__)
_LESION_LABEL = "L"
_KEYS = {"sub": "subject", "ses": "session"}
_LESION_WORDS = ("lesion", "tumor", "tumour", "wmh", "stroke")
_GROUPS = ("pathology", "group", "diagnosis", "dx")
_MASK_SUFFIXES = ("mask", "dseg", "roi")
_MOST_REPORTED = 10
"""Problems of a data set that are reported one by one where no file takes them."""
Entities = dict[str, str]


class BidsSettings(Config):
    """Selection of scans.

    Args:
        modalities: BIDS suffixes to read.
        pathology: Pathology of subjects without one in their row ("healthy", "ms", …); `None` = unknown.
        healthy_groups: Further words in the columns `pathology`, `group` and `diagnosis` that mean healthy, whatever
            their case; "control", "HC" and the like are known.
        derived: Whether scans with `desc-`, `res-` or `label-` in their name are read too; `None` = where the data set
            is declared as a derivative.
    """

    modalities: tuple[str, ...] = SUFFIXES
    pathology: str | None = None
    healthy_groups: tuple[str, ...] = ()
    derived: bool | None = None


@dataclass(frozen=True)
class _Mask:
    path: Path
    entities: Entities
    is_brain: bool


@SOURCES.register("bids")
class BidsSource(Source):
    """Reads anatomical scans of all subjects and sessions; all entities but sub and ses distinguish runs."""

    Settings = BidsSettings
    settings: BidsSettings
    layout = "a BIDS data set (sub-01/anat/sub-01_T1w.nii.gz)"

    @classmethod
    def with_modality(cls, settings: dict[str, Any], modality: str) -> dict[str, Any]:
        """Return the settings in which images of that contrast are scans, whether or not the defaults include it."""
        return {"modalities": ("T1w",) if modality == "T1ce" else (modality,), **settings}

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan with the masks that carry its entities; report subjects of the table without one."""
        people = _read_people(tree, draft)
        sessions = functools.cache(lambda subject: _read_sessions(tree, subject, draft))
        masks = _find_masks(tree)
        seen: dict[str, str] = {}
        found = bids_images(tree, suffixes=self.settings.modalities, derived=self.settings.derived)
        for image in found.left_out:
            draft.leave_out(tree.root / image.name, image.reason)
        for name, scan in found:
            path, subject = tree.root / name, scan.entities["sub"]
            if seen.setdefault(_label(subject), subject) != subject or not _label(subject):
                draft.leave_out(path, "of a subject without a unique label")
                draft.report(
                    f"sub-{subject}", f"its label equals that of 'sub-{seen[_label(subject)]}'; it is left out"
                )
                continue
            _check_folders(name, scan.entities, draft)
            own = [mask for mask in masks[subject] if _fits(mask.entities, scan.entities, scan.suffix)]
            session = scan.entities.get("ses")
            rows = (sessions(subject).get(session or "", {}), people.get(subject, {}))
            rest = "_".join(f"{k}-{_label(value)}" for k, value in scan.entities.items() if k not in ("sub", "ses"))
            draft.add(
                ScanRecord(
                    subject=_label(subject),
                    image=path,
                    modality=scan.modality,
                    session=None if session is None else _label(session),
                    brain_mask=_choose([m for m in own if m.is_brain], path.name, "brain", draft),
                    lesion=_choose([m for m in own if not m.is_brain], path.name, "lesion", draft),
                    space=TEMPLATE_SPACE if scan.entities.get("space") == TEMPLATE_SPACE else "native",
                    pathology=self._pathology(rows),
                    site=_first(rows, "site", "institution", "scanner", "center") or None,
                    age=next((age for row in rows if (age := parse_age(column(row, "age"))) is not None), None),
                    sex=parse_sex(_first(rows, "sex", "gender")),
                    entities=rest or None,
                )
            )
        for subject in sorted(set(people) - set(seen.values())):
            draft.report(f"sub-{subject}", "in participants.tsv, but without a scan")
        for subject in sorted(set(seen.values()) - set(people)) if people else ():
            draft.report(f"sub-{subject}", "not in participants.tsv; listed without age, sex, site and group")

    def _pathology(self, rows: Sequence[Row]) -> str | None:
        """Return what the session's row states, else the person's; who is healthy in one row alone is not healthy."""
        named = [parse_pathology(column(row, *_GROUPS), healthy=self.settings.healthy_groups) for row in rows]
        stated = [one for one in named if one is not None]
        ill = [one for one in stated if one != HEALTHY]
        return next(iter(ill or stated), self.settings.pathology)


def _first(rows: Sequence[Row], *names: str) -> str:
    """Return the first filled cell of one of the columns: that of the session takes precedence over its person's."""
    return next((said for row in rows if (said := column(row, *names))), "")


def _check_folders(name: str, entities: Entities, draft: Draft) -> None:
    """Report a scan in the folder of another subject or session than that in its name, which is used."""
    for folder in name.split("/")[:-1]:
        key, dash, said = folder.partition("-")
        if dash and key in _KEYS and said != entities.get(key):
            draft.report(name, f"the folder '{folder}' is of another {_KEYS[key]} than the file name, which is used")


def _find_masks(tree: FileTree) -> dict[str, list[_Mask]]:
    """Return the masks of each subject, wherever they lie."""
    masks: dict[str, list[_Mask]] = defaultdict(list)
    for path, _ in tree.match(rf"[^/]*{NIFTI}"):
        mask = read_name(stem_of(path))
        if mask is None or mask.suffix.lower() not in _MASK_SUFFIXES:
            continue
        words = f"{mask.entities.get('desc', '')} {mask.entities.get('label', '')}".lower()
        # "braintumor" is a lesion, and the brain stem is no brain.
        is_brain = re.search(rf"brain(?!stem|{'|'.join(_LESION_WORDS)})", words) is not None
        is_lesion = mask.entities.get("label") == _LESION_LABEL or any(word in words for word in _LESION_WORDS)
        if is_brain != is_lesion:
            masks[mask.entities["sub"]].append(_Mask(path, mask.entities, is_brain))
    return masks


def _fits(mask: Entities, scan: Entities, suffix: str) -> bool:
    """Return whether nothing in a mask's name speaks against the scan; a derivative may drop what it need not say."""
    if mask.get("mod", suffix) != suffix or mask.get("ses") != scan.get("ses"):
        return False
    # A mask in another space lies on another grid.
    if mask.get("space", "orig") != scan.get("space", "orig"):
        return False
    said = {key: value for key, value in mask.items() if key not in ("desc", "label", "mod", "space")}
    return all(scan.get(key) == value for key, value in said.items())


def _choose(masks: list[_Mask], name: str, kind: str, draft: Draft) -> Path | None:
    """Return the mask that names most of the scan's entities; two of equal right are none, and a problem."""
    if not masks:
        return None
    most = max(len(mask.entities) for mask in masks)
    best = [mask.path for mask in masks if len(mask.entities) == most]
    if len(best) > 1:
        draft.report(name, f"{len(best)} {kind} masks, '{best[0]}' and '{best[1]}'; it is listed without one")
        return None
    return best[0]


def _label(text: str) -> str:
    """Return a label with no sign that the standard does not allow."""
    return "".join(letter for letter in text if letter == "+" or (letter.isascii() and letter.isalnum()))


def _read_people(tree: FileTree, draft: Draft) -> dict[str, Row]:
    table = tree.root / "participants.tsv"
    if not tree.has(table):
        draft.report("participants.tsv", "is missing; ages, sexes, sites and groups are left out")
        return {}
    rows = _rows_by(table, "participant_id", "sub-", draft)
    return {subject: _agreed(f"sub-{subject}", table.name, own, draft) for subject, own in rows.items()}


def _read_sessions(tree: FileTree, subject: str, draft: Draft) -> dict[str, Row]:
    """Return session → what the table of a person's sessions says of it; {} where there is no table."""
    table = tree.root / f"sub-{subject}" / f"sub-{subject}_sessions.tsv"
    if not tree.has(table):
        return {}
    try:
        rows = _rows_by(table, "session_id", "ses-", draft)
    except DataError as error:
        draft.report(table.name, f"cannot be used: {error}")
        return {}
    return {name: _agreed(f"sub-{subject}_ses-{name}", table.name, own, draft) for name, own in rows.items()}


def _rows_by(table: Path, key: str, prefix: str, draft: Draft) -> dict[str, list[Row]]:
    """Return the rows of a table by the label in the column `key`; report those without one."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(table):
        rows[column(row, key).removeprefix(prefix)].append(row)
    if unnamed := rows.pop("", []):
        draft.report(table.name, f"{counted(len(unnamed), 'row')} without a {key} left out")
    return rows


def _agreed(whom: str, table: str, rows: list[Row], draft: Draft) -> Row:
    """Return what all rows about a person or session agree on; what they contradict each other in is reported."""
    said = {name: {row[name] for row in rows} - {""} for name in rows[0]}
    if differing := [name for name, cells in said.items() if len(cells) > 1]:
        differ = f"{len(rows)} rows in {table} differ in {', '.join(differing)}"
        draft.report(whom, f"{differ}; groups are joined, the others are left out")
    # Who is healthy in one row alone is not healthy.
    kept = {name for name, cells in said.items() if len(cells) == 1 or name.lower() in _GROUPS}
    row = {name: "+".join(sorted(cells)) if name in kept else "" for name, cells in said.items()}
    age = column(row, "age")
    if age and parse_age(age) is None:
        draft.report(whom, f"'{age}' is not a valid age; it is left out")
    return row


def bids_manifest(place: Path) -> Manifest:
    """Return the scans of a BIDS data set; what is wrong with it and other images are named in warnings."""
    found = read_source("bids", place, {"derived": True})
    for problem in found.problems[:_MOST_REPORTED]:
        _log.warning(problem)
    if len(found.problems) > _MOST_REPORTED:
        _log.warning("%s", counted(len(found.problems) - _MOST_REPORTED, "more problem"))
    for name, error in found.failed.items():
        _log.warning("%s: left out, %s", name, error)
    if line := summed_left_out(found.left_out):
        _log.warning(line)
    return found.manifest
