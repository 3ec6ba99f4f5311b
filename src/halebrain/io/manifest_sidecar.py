"""The JSON sidecar of a manifest: description of columns, source of the scans, and splits.

As in BIDS, each column of the table has an entry with its description, and units or levels. What concerns the table as
a whole is under `HaleBrain`. It holds no paths, so it does not change when the data set is moved.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field

from halebrain.core.config import Config, portable_dump
from halebrain.core.files import write_text
from halebrain.io.manifest import SPACES, SPLITS, Manifest, splits_by_subject
from halebrain.io.tables import MISSING

_OWN = "HaleBrain"
_SPLIT_LEVELS = dict(
    zip(SPLITS, ("for training", "for choosing thresholds and settings", "for reporting results"), strict=True)
)
_SPACE_LEVELS = dict(zip(SPACES, ("as acquired", "registered to this template"), strict=True))
COLUMNS: dict[str, dict[str, Any]] = {
    "subject": {"Description": "Label of the person, without sub-; the unit of splitting."},
    "image": {"Description": "The scan; relative to the table's folder, or absolute."},
    "modality": {"Description": "Contrast, as a BIDS suffix (T1w, T2w, FLAIR) where there is one."},
    "session": {"Description": "Label of the session, without ses-."},
    "brain_mask": {"Description": "Brain mask on the grid of the scan; n/a where the scan is stripped already."},
    "lesion": {"Description": "Annotation on the grid of the scan; any value above 0 is lesion."},
    "healthy": {"Description": "The true healthy image of a virtual patient, on the grid of the scan."},
    "space": {"Description": "Space of the scan.", "Levels": _SPACE_LEVELS},
    "split": {"Description": "What the scan is used for.", "Levels": _SPLIT_LEVELS},
    "pathology": {"Description": "Disease of the subject.", "Levels": {"healthy": "declared free of disease"}},
    "site": {"Description": "Scanner or hospital."},
    "age": {"Description": "Age at the scan.", "Units": "year"},
    "sex": {"Description": "Sex, as the data set gives it.", "Levels": {"F": "female", "M": "male"}},
    "entities": {"Description": "Further BIDS entities that distinguish scans of one modality and session."},
}


class Origin(Config):
    """Where a manifest came from.

    Args:
        source: Name of the data set's kind ("ixi", "bids"); `None` where it was written by hand.
        settings: The source's settings that are not its defaults.
        problems: How many files and subjects of the data set could not be used as they should.
        split_seed: Seed of `assign_splits`; `None` where the splits are the data set's own.
        split_fractions: Share of the subjects asked for, by split.
        fold: Which fold of how many, "2 of 5"; `None` where there are none.
    """

    source: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    problems: int = 0
    split_seed: int | None = None
    split_fractions: dict[str, float] = Field(default_factory=dict)
    fold: str | None = None


def sidecar_path(table: Path) -> Path:
    """Return where the JSON of a table lies: beside it, under its name.

    Example:
        >>> sidecar_path(Path("data/manifest.tsv"))
        PosixPath('data/manifest.json')
    """
    return table.with_suffix(".json")


def write_sidecar(manifest: Manifest, table: Path, origin: Origin) -> Path:
    """Write the JSON for the manifest that was written to `table`, and return its path."""
    path = sidecar_path(table)
    about = {"Fingerprint": manifest.fingerprint(), "Origin": portable_dump(origin), "Counts": _counts(manifest)}
    write_text(path, json.dumps({**COLUMNS, _OWN: about}, indent=2, ensure_ascii=False) + "\n")
    return path


def _counts(manifest: Manifest) -> dict[str, Any]:
    """Return how many scans there are of each split, modality, pathology and site, and how many subjects."""
    by = {
        name: dict(sorted(Counter(getattr(record, name) or MISSING for record in manifest).items()))
        for name in ("split", "modality", "pathology", "site")
    }
    splits = {subject: split or MISSING for subject, split in splits_by_subject(manifest).items()}
    return {
        "scans": len(manifest),
        "subjects": len(splits),
        "subjects_by_split": dict(sorted(Counter(splits.values()).items())),
        **{f"scans_by_{name}": counts for name, counts in by.items()},
    }
