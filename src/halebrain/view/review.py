"""The table of a reader's decisions on the findings of a detection, with mask and time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from halebrain.core.errors import DataError
from halebrain.core.files import write_text
from halebrain.core.types import Lesion
from halebrain.io.tables import read_table, tsv_text
from halebrain.view.messages import DECISIONS

OPEN = "open"


@dataclass(frozen=True)
class KnownMask:
    """Identity of a mask among others of the same scan."""

    sha256: str
    threshold: float
    min_lesion_mm3: float


@dataclass(frozen=True)
class Decision:
    """One row of the table.

    Args:
        lesion: Number of the finding in the lesion table of its mask.
        i: Voxel of its peak on the native grid.
        j: Second index.
        k: Third index.
        x_mni_mm: Its centre in template space.
        y_mni_mm: To the front.
        z_mni_mm: Up.
        volume_ml: Its volume.
        decision: "accepted", "rejected", or "open" where there is a note only.
        note: One line; may be empty.
        decided_at: In UTC, as ISO 8601 has it.
        threshold: Threshold of the mask.
        min_lesion_mm3: Smallest lesion that it keeps.
        mask_sha256: Of the mask's file. A decision holds for the finding of this mask, and for no other.
    """

    lesion: int
    i: int
    j: int
    k: int
    x_mni_mm: float
    y_mni_mm: float
    z_mni_mm: float
    volume_ml: float
    decision: str
    note: str
    decided_at: str
    threshold: float
    min_lesion_mm3: float
    mask_sha256: str

    @property
    def peak(self) -> tuple[int, int, int]:
        """The voxel of the peak."""
        return self.i, self.j, self.k

    @classmethod
    def on(cls, finding: Lesion, mask: KnownMask, decision: str, note: str) -> Self:
        """Return what is decided now."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(
            *(finding.lesion, *finding.peak, finding.x_mni_mm, finding.y_mni_mm, finding.z_mni_mm, finding.volume_ml),
            *(decision, note, now, mask.threshold, mask.min_lesion_mm3, mask.sha256),
        )

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Self:
        """Return the decision of a row; `KeyError`, `TypeError` or `ValueError` where it is damaged."""
        if row["decision"] not in DECISIONS:
            raise ValueError(f"decision {row['decision']!r}")
        return cls(**{column.name: column.type(row[column.name]) for column in fields(cls)})  # type: ignore[operator]


COLUMNS = tuple(f.name for f in fields(Decision))


def read_review(path: Path) -> list[Decision]:
    """Return every decision; none where there is no table yet."""
    if not path.is_file():
        return []
    try:
        return [Decision.of(row) for row in read_table(path, what="a table of decisions").rows]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a table of decisions must have every column", received=repr(error), where=path, remedy="fix or move it"
        ) from error


def write_review(path: Path, decisions: Iterable[Decision]) -> None:
    """Write the table, whole or not at all."""
    write_text(path, tsv_text([COLUMNS, *(vars(decision).values() for decision in decisions)]))


def with_decision(known: Sequence[Decision], new: Decision) -> list[Decision]:
    """Return a table in which `new` stands for the finding that it is about; neither decision nor note = no row."""
    kept = [d for d in known if (d.mask_sha256, d.lesion) != (new.mask_sha256, new.lesion)]
    return kept if new.decision == OPEN and not new.note else [*kept, new]


def decisions_on(known: Sequence[Decision], findings: Sequence[Lesion], mask_sha256: str) -> dict[int, Decision]:
    """Return what was decided on the findings of this mask, by number."""
    own = {d.lesion: d for d in known if d.mask_sha256 == mask_sha256}
    return {f.lesion: own[f.lesion] for f in findings if f.lesion in own and own[f.lesion].peak == f.peak}


def earlier_decisions(known: Sequence[Decision], findings: Sequence[Lesion], mask_sha256: str) -> dict[int, Decision]:
    """Return the last decision on a finding of another mask with the same peak, by number; for information."""
    other = {d.peak: d for d in sorted(known, key=lambda d: d.decided_at) if d.mask_sha256 != mask_sha256}
    return {f.lesion: other[f.peak] for f in findings if f.peak in other}
