"""Subject, session and contrast of a scan from its file name."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from halebrain.core.errors import UsageError
from halebrain.core.modality import ENTITIES, guess_modality, modality_of_scan, split_name
from halebrain.io.manifest import ScanRecord
from halebrain.io.tree import label
from halebrain.io.volume import stem_of

_VISIT = re.compile(
    r"(?<![^\W_])(?:(?:ses(?:sion)?|visit|timepoint|tp)[-_ ]?\d{1,3}|baseline|follow[-_ ]?up[-_ ]?\d{0,3})(?![^\W_])",
    re.IGNORECASE,
)
"""Words for a time in names that are not as in BIDS: "ses1", "visit_02", "tp-3", "baseline"."""


def records_of(scans: Sequence[tuple[Path, str]], *, modality: str | None = None) -> tuple[ScanRecord, ...]:
    """Return a row for each scan, from path and name alone; `modality` is that of names that do not say it.

    Scans of one person share the subject, so that no split tears them apart; a visit in the name ("P1_visit2_T1w") is
    the session.
    """
    records = [_record(path, name, modality) for path, name in scans]
    taken = Counter(record.scan_id for record in records)
    doubtful = {record.subject for record in records if taken[record.scan_id] > 1}
    people = [_person(path, name) for path, name in scans]
    of_label: dict[str, set[str]] = {}
    for record, person in zip(records, people, strict=True):
        of_label.setdefault(record.subject, set()).add(person)
    for place, (record, person) in enumerate(zip(records, people, strict=True)):
        # "a b" and "ab" are different people, but not as labels.
        if record.subject in doubtful and len(of_label[record.subject]) > 1:
            records[place] = replace(record, subject=f"{record.subject}x{_mark(person)}")
    for entities_of in (_all_entities, lambda name: f"acq-{_mark(name)}"):
        taken = Counter(record.scan_id for record in records)
        for place, ((_, name), record) in enumerate(zip(scans, records, strict=True)):
            if taken[record.scan_id] > 1:
                records[place] = replace(record, entities=entities_of(name))
    return tuple(records)


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:6]


def _person(path: Path, name: str) -> str:
    """Return who a scan is of, with all signs of the name but those at its ends."""
    match = ENTITIES.fullmatch(name)
    if match is not None:
        return match["entities"].partition("_")[0].removeprefix("sub-")
    # A file called by its contrast alone is known by its folder.
    said = _without_visit(split_name(name)[1])[0]
    return said if label(said) else path.absolute().parent.name


def _without_visit(name: str) -> tuple[str, str | None]:
    """Return a name without its contrast as who it is of, and the label of its visit; `None` where it states none."""
    visit = _VISIT.search(name)
    if visit is None:
        return name.strip("_- ."), None
    person = f"{name[: visit.start()].rstrip('_- .')}_{name[visit.end() :].lstrip('_- .')}".strip("_- .")
    if not label(person):  # a folder may be called "baseline" and hold everybody
        return name.strip("_- ."), None
    return person, label(re.sub(r"^ses(?:sion)?(?=[-_ ]?\d)", "", visit[0], flags=re.IGNORECASE))


def _all_entities(name: str) -> str | None:
    """Return every entity of a BIDS name but subject and session; `None` of other names."""
    match = ENTITIES.fullmatch(name)
    pairs = [] if match is None else match["entities"].split("_")
    return "_".join(pair for pair in pairs if not pair.startswith(("sub-", "ses-"))) or None


def _record(path: Path, name: str, modality: str | None) -> ScanRecord:
    match = ENTITIES.fullmatch(name)
    said = match["suffix"] if match and guess_modality(match["suffix"]) else guess_modality(name)
    # A folder of the name may be a time point: T1/P1_FLAIR.
    said = said or modality_of_scan(stem_of(path)) or modality
    if said is None:
        raise UsageError(
            "the contrast of every scan must be known",
            received=f"a name that states none, or several, {name!r}",
            where=path,
            remedy="give --modality T1w (T2w, FLAIR), or a manifest",
        )
    if match is None:
        subject, session = label(_person(path, name)) or "unnamed", _without_visit(split_name(name)[1])[1]
        return ScanRecord(subject=subject, image=path, modality=label(said), session=session)
    pairs = dict(pair.split("-", 1) for pair in match["entities"].split("_"))
    subject, session = pairs.pop("sub"), pairs.pop("ses", None)
    rest = "_".join(f"{key}-{value}" for key, value in pairs.items() if key not in ("space", "desc"))
    return ScanRecord(subject=subject, image=path, modality=label(said), session=session, entities=rest or None)
