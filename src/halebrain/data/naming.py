"""Subject, session and contrast of a scan from its file name."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from halebrain.core.errors import UsageError
from halebrain.core.modality import ENTITIES, guess_modality, split_name
from halebrain.io.manifest import ScanRecord
from halebrain.io.tree import label


def records_of(scans: Sequence[tuple[Path, str]], *, modality: str | None = None) -> tuple[ScanRecord, ...]:
    """Return a row for each scan, from path and name alone; `modality` is that of names that do not say it."""
    records = [_record(path, name, modality) for path, name in scans]
    taken = Counter(record.scan_id for record in records)
    for place, ((_, name), record) in enumerate(zip(scans, records, strict=True)):
        if taken[record.scan_id] > 1:  # "a b" and "ab" are different people, but not as labels
            mark = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:6]
            records[place] = replace(record, subject=f"{record.subject}x{mark}")
    return tuple(records)


def _record(path: Path, name: str, modality: str | None) -> ScanRecord:
    match = ENTITIES.fullmatch(name)
    said = (match["suffix"] if match and guess_modality(match["suffix"]) else guess_modality(name)) or modality
    if said is None:
        raise UsageError(
            "the contrast of every scan must be known",
            received=f"a name that states none, or several, {name!r}",
            where=path,
            remedy="give --modality T1w (T2w, FLAIR), or a manifest",
        )
    if match is None:
        # Contrasts of one person share the subject, so that no split tears them apart.
        # A file called by its contrast alone is known by its folder.
        who = label(split_name(name)[1]) or label(path.absolute().parent.name) or "unnamed"
        return ScanRecord(subject=who, image=path, modality=label(said))
    pairs = dict(pair.split("-", 1) for pair in match["entities"].split("_"))
    subject, session = pairs.pop("sub"), pairs.pop("ses", None)
    rest = "_".join(f"{key}-{value}" for key, value in pairs.items() if key not in ("space", "desc"))
    return ScanRecord(subject=subject, image=path, modality=label(said), session=session, entities=rest or None)
