"""Any BIDS data set: anatomical scans, people from `participants.tsv`, masks from `derivatives`.

Layout: BIDS 1.x, `sub-01[/ses-1]/anat/sub-01[_ses-1][_acq-x][_run-1]_T1w.nii.gz`. Masks lie in `derivatives/*/`
or beside the scan, and carry its entities: `…_desc-brain_mask`, `…_label-L_mask` (the standard's own) or
`…_label-lesion_mask`, `…_label-lesion_dseg` (any label above 0 is lesion). A `dseg` that does not say lesion is a map
of tissues, and is not taken for one.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from halebrain.core.config import Config
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.core.wording import counted
from halebrain.data.datasets.base import SOURCES, Draft, Source
from halebrain.data.datasets.tables import Row, column, parse_age, parse_pathology, parse_sex, read_rows
from halebrain.data.datasets.tree import FileTree
from halebrain.io.manifest import ScanRecord

_NAME = re.compile(r"(?P<stem>(?:[a-z]+-[a-zA-Z0-9+]+_)+)(?P<suffix>[a-zA-Z0-9]+)\.nii(?:\.gz)?")
_SKIPPED = ("derivatives", "sourcedata", "code", "stimuli")
_LESION_LABEL = "L"
_LESION_WORDS = ("lesion", "tumor", "tumour", "wmh", "stroke")
_DERIVED = ("desc", "label", "res", "den", "seg", "atlas", "from")
Entities = dict[str, str]


class BidsSettings(Config):
    """Which scans are meant.

    Args:
        modalities: BIDS suffixes to read.
        pathology: What every subject has whose row says nothing ("healthy", "ms", …); `None` = unknown.
        healthy_groups: Further words in the columns `pathology`, `group` and `diagnosis` that mean healthy, whatever
            their case; "control", "HC" and the like are known.
        derived: Whether scans with `desc-`, `res-` or `label-` in their name are read too.
    """

    modalities: tuple[str, ...] = ("T1w", "T2w", "FLAIR", "inplaneT2", "PDw")
    pathology: str | None = None
    healthy_groups: tuple[str, ...] = ()
    derived: bool = False


@dataclass(frozen=True)
class _Mask:
    path: Path
    entities: Entities
    is_brain: bool


@SOURCES.register("bids")
class BidsSource(Source):
    """Reads anatomical scans of all subjects and sessions; every entity but sub and ses tells runs apart."""

    Settings = BidsSettings
    layout = "a BIDS data set (sub-01/anat/sub-01_T1w.nii.gz)"

    def __init__(self, settings: BidsSettings | None = None) -> None:
        self.settings = settings or BidsSettings()

    def collect(self, tree: FileTree, draft: Draft) -> None:
        """Add every scan with the masks that carry its entities; report subjects of the table without one."""
        people = _read_people(tree, draft)
        masks = _find_masks(tree)
        seen: set[str] = set()
        derived: list[str] = []
        for path, entities, suffix in _named(tree):
            if suffix not in self.settings.modalities or tree.relative(path).split("/")[0] in _SKIPPED:
                continue
            if not self.settings.derived and any(key in entities for key in _DERIVED):
                derived.append(path.name)
                continue
            own = [mask for mask in masks[entities["sub"]] if _fits(mask.entities, entities, suffix)]
            row = people.get(entities["sub"], {})
            seen.add(entities["sub"])
            name = path.name.partition(".")[0]
            draft.add(
                ScanRecord(
                    subject=entities["sub"],
                    image=path,
                    modality="T1ce" if suffix == "T1w" and "ce" in entities else suffix,
                    session=entities.get("ses"),
                    brain_mask=_choose([m for m in own if m.is_brain], name, "brain", draft),
                    lesion=_choose([m for m in own if not m.is_brain], name, "lesion", draft),
                    space=TEMPLATE_SPACE if entities.get("space") == TEMPLATE_SPACE else "native",
                    pathology=self._pathology(row),
                    site=column(row, "site", "institution", "scanner", "center") or None,
                    age=parse_age(column(row, "age")),
                    sex=parse_sex(column(row, "sex", "gender")),
                    entities=_rest(entities),
                )
            )
        if derived:
            are = f"{counted(len(derived), 'scan')} {'is' if len(derived) == 1 else 'are'}"
            first = "" if len(derived) == 1 else ", this is the first"
            said = f"{are} derived by name{first}; the setting 'derived' takes {'it' if len(derived) == 1 else 'them'}"
            draft.report(derived[0], said)
        for subject in sorted(set(people) - seen):
            draft.report(f"sub-{subject}", "in participants.tsv, but without a scan")

    def _pathology(self, row: Row) -> str | None:
        said = column(row, "pathology", "group", "diagnosis", "dx")
        return parse_pathology(said, healthy=self.settings.healthy_groups) or self.settings.pathology


def _named(tree: FileTree) -> Iterator[tuple[Path, Entities, str]]:
    """Yield each NIfTI file that has a BIDS name: its path, its entities and its suffix."""
    for name in tree.scans():
        found = _NAME.fullmatch(name.rpartition("/")[2])
        if found:
            entities = dict(part.split("-", 1) for part in found["stem"].rstrip("_").split("_"))
            if "sub" in entities:
                yield tree.root / name, entities, found["suffix"]


def _find_masks(tree: FileTree) -> dict[str, list[_Mask]]:
    """Return the masks of each subject, wherever they lie."""
    masks: dict[str, list[_Mask]] = defaultdict(list)
    for path, entities, suffix in _named(tree):
        words = f"{entities.get('desc', '')} {entities.get('label', '')}".lower()
        is_brain = "brain" in words
        is_lesion = entities.get("label") == _LESION_LABEL or any(word in words for word in _LESION_WORDS)
        if suffix in ("mask", "dseg") and is_brain != is_lesion:
            masks[entities["sub"]].append(_Mask(path, entities, is_brain))
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


def _rest(entities: Entities) -> str | None:
    rest = [f"{key}-{value}" for key, value in entities.items() if key not in ("sub", "ses")]
    return "_".join(rest) or None


def _read_people(tree: FileTree, draft: Draft) -> dict[str, Row]:
    table = tree.root / "participants.tsv"
    if not tree.has(table):
        draft.report("participants.tsv", "is missing; ages, sexes, sites and groups are left out")
        return {}
    return {column(row, "participant_id").removeprefix("sub-"): row for row in read_rows(table)}
