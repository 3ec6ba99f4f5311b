"""The quality table of a prepared data set: figures of each scan, also relative to its contrast."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from halebrain.core.files import write_text
from halebrain.data.prepared_set import PreparedEntry
from halebrain.preprocessing.quality import GRID_DICE
from halebrain.preprocessing.quality_group import group_distances, outliers

_MISSING = "n/a"
_OF_THE_FILE = ("distinct_values", "highest_intensity")
"""Figures of intensity storage, which differ between scanners: they never make a scan an outlier."""

_RENAMED = {"registration_mask_dice": GRID_DICE}
"""Names of figures in earlier versions → current names."""


@dataclass(frozen=True)
class QualityEntry:
    """One scan of the table.

    Args:
        entry: The prepared scan.
        figures: Its figures, with `histogram_distance` to the other scans of its contrast.
        flags: Quality flags of the scan itself and relative to the other scans.
        outlier: Robust deviations of its farthest figure from the others' median; 0 in a small group.
    """

    entry: PreparedEntry
    figures: dict[str, float | None]
    flags: tuple[str, ...]
    outlier: float


def quality_entries(entries: Sequence[PreparedEntry]) -> list[QualityEntry]:
    """Return the quality of every scan, flagged scans and outliers first."""
    groups: dict[str, list[PreparedEntry]] = defaultdict(list)
    for entry in entries:
        groups[entry.raw.modality].append(entry)
    found = []
    for group in groups.values():
        distances = group_distances([entry.sidecar["quality"]["histogram"] for entry in group])
        figures = [
            {**_figures(entry), "histogram_distance": distance}
            for entry, distance in zip(group, distances, strict=True)
        ]
        compared = [{name: value for name, value in own.items() if name not in _OF_THE_FILE} for own in figures]
        for entry, own, (far, lines) in zip(group, figures, outliers(compared), strict=True):
            flags = (*entry.sidecar["quality"]["flags"], *lines)
            found.append(QualityEntry(entry, own, flags, round(far, 2)))
    return sorted(found, key=lambda quality: (not quality.flags, -quality.outlier, quality.entry.raw.scan_id))


def _figures(entry: PreparedEntry) -> dict[str, float | None]:
    """Return the figures of a scan under their current names."""
    figures: dict[str, float | None] = entry.sidecar["quality"]["figures"]
    return {_RENAMED.get(name, name): value for name, value in figures.items()}


def write_quality_table(entries: Sequence[QualityEntry], path: Path) -> None:
    """Write a line a scan as TSV, sorted by name.

    Raises:
        CannotWriteError: The folder cannot be written.
    """
    names = list(entries[0].figures) if entries else []
    lines = ["\t".join(["scan", "modality", *names, "outlier", "seconds", "peak_memory_mib", "flags"])]
    for quality in sorted(entries, key=lambda quality: quality.entry.raw.scan_id):
        raw, costs = quality.entry.raw, quality.entry.sidecar.get("costs", {})
        values = [_MISSING if quality.figures[name] is None else f"{quality.figures[name]:g}" for name in names]
        spent = f"{sum(costs.get('seconds', {}).values()):.1f}"
        memory, flags = str(costs.get("peak_memory_mib", _MISSING)), "; ".join(quality.flags) or _MISSING
        lines.append("\t".join([raw.scan_id, raw.modality, *values, f"{quality.outlier:g}", spent, memory, flags]))
    write_text(path, "\n".join(lines) + "\n")
