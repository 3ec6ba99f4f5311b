"""A data set of prepared scans: manifests, sidecars and the quality table, written from the scans that exist."""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from halebrain.core.errors import DataError
from halebrain.core.files import write_text
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.core.wording import first_of
from halebrain.io.bids_derivative import DESCRIPTION, PREPARED, describe
from halebrain.io.failed_table import read_failed
from halebrain.io.manifest import PATHS, Manifest, ScanRecord, splits_by_subject
from halebrain.io.manifest_sidecar import Origin, write_sidecar
from halebrain.io.tables import MISSING
from halebrain.preprocessing.prepared import PreparedFiles, prepared_files, read_sidecar
from halebrain.preprocessing.quality.assess import GRID_DICE, OUTSIDE_GRID, group_distances, outliers
from halebrain.preprocessing.template import Template, find_template

_OF_THE_FILE = ("distinct_values", "highest_intensity")
"""Figures of intensity storage, which differ between scanners: they never make a scan an outlier."""
_FAILURES = re.compile(r"failed(?:-\d+of(?P<parts>\d+))?\.tsv")
"""Names of the lists of scans that failed; a user may keep other tables beside them."""
_RENAMED = {"registration_mask_dice": GRID_DICE}
"""Names of figures in earlier versions → current names."""


def working_row(raw: ScanRecord, files: PreparedFiles, space: str) -> ScanRecord:
    """Return the row of a scan that is prepared in a space."""
    return replace(
        raw,
        image=files.image,
        brain_mask=files.brain_mask,
        lesion=None if raw.lesion is None else files.lesion,
        healthy=None if raw.healthy is None else files.healthy,
        # A manifest knows no space but the template's; the sidecar names that of another atlas.
        space=TEMPLATE_SPACE if space == TEMPLATE_SPACE else "native",
    )


@dataclass(frozen=True)
class PreparedEntry:
    """A prepared scan of a data set: the raw scan, its files, and what is written beside it."""

    raw: ScanRecord
    files: PreparedFiles
    sidecar: dict[str, Any]

    @property
    def working(self) -> ScanRecord:
        """The row of the prepared scan: on the working grid."""
        return working_row(self.raw, self.files, self.sidecar["SpatialReference"])

    @property
    def atlas(self) -> Template | None:
        """What it was registered to; `None` = the MNI template."""
        said = self.sidecar["preprocessing"]
        if said.get("template") is None:
            return None
        mask = said.get("template_mask")
        return find_template(Path(said["template"]), None if mask is None else Path(mask))

    @property
    def native(self) -> ScanRecord:
        """The row of the raw scan, with the brain mask that was found on its own grid."""
        return replace(self.raw, brain_mask=self.files.native_brain_mask)


def read_entries(dataset: Path) -> list[PreparedEntry]:
    """Return every complete prepared scan of a data set, sorted by name; one scan under two names is refused."""
    entries: dict[str, PreparedEntry] = {}
    for pattern in ("sub-*/anat/*_desc-preproc_*.nii.gz", "sub-*/ses-*/anat/*_desc-preproc_*.nii.gz"):
        for image in dataset.glob(pattern):
            sidecar = read_sidecar(image)
            if sidecar is None:
                continue
            said = sidecar["record"]
            paths = {name: None if said.get(name) is None else Path(said[name]) for name in PATHS}
            raw = ScanRecord(**{**said, **paths})
            files = prepared_files(dataset, raw, sidecar["SpatialReference"])
            if files.image != image:
                raise DataError(
                    "a prepared scan must keep its name",
                    received=image.name,
                    where=dataset,
                    remedy=f"name it {files.image.name} again, or remove it",
                )
            if raw.scan_id in entries:
                raise DataError(
                    "a data set must hold each scan once",
                    received=f"{entries[raw.scan_id].files.image.name} and {image.name}",
                    where=dataset,
                    remedy="remove the scan that was prepared for another atlas",
                )
            entries[raw.scan_id] = PreparedEntry(raw, files, sidecar)
    return [entries[name] for name in sorted(entries)]


def failure_tables(dataset: Path) -> dict[Path, int]:
    """Return the lists of scans that failed, with the number of parts of the run that wrote each; no other table."""
    found = {path: _FAILURES.fullmatch(path.name) for path in sorted(dataset.glob("failed*.tsv"))}
    return {path: int(match["parts"] or 1) for path, match in found.items() if match is not None}


def read_failures(dataset: Path) -> dict[str, str]:
    """Return scan → reason of those that could not be prepared, whichever part of the work met them."""
    return {name: reason for table in failure_tables(dataset) for name, reason in read_failed(table).items()}


def write_manifests(dataset: Path, entries: list[PreparedEntry], manifest: Manifest, origin: Origin) -> list[Path]:
    """Write `manifest.tsv` (prepared scans) and `manifest_native.tsv` (raw ones), and return their paths.

    Splits are those of `manifest`, by subject; a scan of nobody in it keeps the split that it had.
    """
    splits = splits_by_subject(manifest)
    tables = []
    for name, rows in (
        ("manifest.tsv", [entry.working for entry in entries]),
        ("manifest_native.tsv", [entry.native for entry in entries]),
    ):
        split = [replace(row, split=splits.get(row.subject, row.split)) for row in rows]
        table = Manifest(tuple(split), source=dataset / name)
        table.write(dataset / name)
        tables.append(dataset / name)
        write_sidecar(table, dataset / name, origin)
    return tables


def write_description(dataset: Path) -> None:
    """Write the description, by which BIDS tools know derivatives."""
    about = describe(PREPARED, "Scans in template space, skull-stripped. Research use only.")
    write_text(dataset / DESCRIPTION, json.dumps(about, indent=2) + "\n")


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
        groups[entry.raw.contrast].append(entry)
    found = []
    copies = _copies(entries)
    # Scans that were prepared before a figure existed lack it.
    names = dict.fromkeys(name for entry in entries for name in _figures(entry))
    for group in groups.values():
        distances = group_distances([entry.sidecar["quality"]["histogram"] for entry in group])
        figures = [
            {**{name: _figures(entry).get(name) for name in names}, "histogram_distance": distance}
            for entry, distance in zip(group, distances, strict=True)
        ]
        compared = [{name: value for name, value in own.items() if name not in _OF_THE_FILE} for own in figures]
        for entry, own, (far, lines) in zip(group, figures, outliers(compared), strict=True):
            flags = (*entry.sidecar["quality"]["flags"], *copies.get(entry.raw.scan_id, ()), *lines)
            found.append(QualityEntry(entry, own, flags, round(far, 2)))
    return sorted(found, key=lambda quality: (not quality.flags, -quality.outlier, quality.entry.raw.scan_id))


def _copies(entries: Sequence[PreparedEntry]) -> dict[str, tuple[str, ...]]:
    """Return scan → a flag that names the others whose image has the same content, under another name or contrast."""
    same: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        # Scans of the first versions lack the hash.
        if (content := entry.sidecar.get("identity", {}).get("image_sha256")) is not None:
            same[content].append(entry.raw.scan_id)
    return {
        name: (f"the same image as {first_of([other for other in names if other != name])}: check which is meant",)
        for names in same.values()
        if len(names) > 1
        for name in names
    }


def _figures(entry: PreparedEntry) -> dict[str, float | None]:
    """Return the figures of a scan under their current names."""
    figures: dict[str, float | None] = entry.sidecar["quality"]["figures"]
    return {_RENAMED.get(name, name): value for name, value in figures.items()}


def lesion_lost(entries: Sequence[QualityEntry]) -> tuple[float, float, int]:
    """Return the annotated lesion of all scans in ml, how much of it lies outside the working grid, and in how many.

    Scans that do not state it are left out.
    """
    whole, lost, scans = 0.0, 0.0, 0
    for quality in entries:
        volume, share = quality.figures.get("lesion_volume_ml"), quality.figures.get(OUTSIDE_GRID)
        if volume is not None and share is not None:
            whole, lost, scans = whole + volume, lost + volume * share, scans + (share > 0)
    return whole, lost, scans


def write_quality_table(entries: Sequence[QualityEntry], path: Path) -> None:
    """Write a line a scan as TSV, sorted by name."""
    names = list(entries[0].figures) if entries else []
    lines = ["\t".join(["scan", "modality", *names, "outlier", "seconds", "peak_memory_mib", "flags"])]
    for quality in sorted(entries, key=lambda quality: quality.entry.raw.scan_id):
        raw, costs = quality.entry.raw, quality.entry.sidecar.get("costs", {})
        values = [MISSING if quality.figures[name] is None else f"{quality.figures[name]:g}" for name in names]
        spent = f"{sum(costs.get('seconds', {}).values()):.1f}"
        memory, flags = str(costs.get("peak_memory_mib", MISSING)), "; ".join(quality.flags) or MISSING
        lines.append("\t".join([raw.scan_id, raw.modality, *values, f"{quality.outlier:g}", spent, memory, flags]))
    write_text(path, "\n".join(lines) + "\n")
