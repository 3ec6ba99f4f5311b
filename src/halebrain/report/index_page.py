"""The page of many scans or exams: a table, outliers first, with small pictures and links, and what failed and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from halebrain.core.errors import CannotWriteError
from halebrain.core.exam_provenance import ENDING as EXAM_ENDING
from halebrain.core.exam_provenance import read_exam_provenance
from halebrain.core.files import write_text
from halebrain.core.provenance import ENDING as SCAN_ENDING
from halebrain.core.provenance import Provenance, read_provenance
from halebrain.core.wording import counted
from halebrain.report.dot_plot import Dot, dot_plot
from halebrain.report.figures import DISCLAIMER
from halebrain.report.page import page_template
from halebrain.report.verdict import HealthyReference, out_of_distribution

INDEX = "index.html"
_MARK = '<meta name="generator" content="HaleBrain: many scans">'


_COLUMNS = (
    ("scan_score", "score", "{:.3f}"),
    ("scan_score_percentile", "% of healthy lower", "{:.3g}"),
    ("lesion_volume_ml", "ml", "{:.2f}"),
    ("n_lesions", "findings", "{:.0f}"),
)
"""Figures of the table: name in a provenance, heading, and how they are written."""


@dataclass(frozen=True)
class IndexRow:
    """One scan or exam, with its figures as those of a scan; page and picture relative to the page of all, or empty."""

    name: str
    provenance: Provenance
    page: str
    picture: str

    @property
    def flags(self) -> tuple[str, ...]:
        """Quality flags, most important first."""
        reasons = out_of_distribution(self.provenance.qc)
        return (*reasons, *(flag for flag in self.provenance.qc.flags if flag not in reasons))

    @property
    def rank(self) -> tuple[float, float, float]:
        """Sort key of the table, highest first: percentile among healthy scans, score, volume."""
        made = self.provenance
        found = (made.scan_score_percentile, made.scan_score, made.lesion_volume_ml)
        percentile, score, volume = (-1.0 if value is None else value for value in found)
        return percentile, score, volume

    @property
    def stop(self) -> bool:
        """Whether its maps are not to be relied on."""
        return self.provenance.qc.out_of_distribution or self.provenance.qc.registration_failed

    @property
    def modality(self) -> str:
        """The contrast of its threshold; empty = not known."""
        threshold = self.provenance.threshold
        return "" if threshold is None else threshold.modality or ""

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Heading and text of each figure."""
        figures = ((self.figure(key), title, form) for key, title, form in _COLUMNS)
        return [(title, "–" if value is None else form.format(value)) for value, title, form in figures]

    def figure(self, key: str) -> float | None:
        """Return a figure of the table by its name in the provenance."""
        value: float | None = getattr(self.provenance, key)
        return value


def find_provenance(folder: Path) -> list[Path]:
    """Return the provenance of every complete detection below a folder, of scans and of exams, sorted."""
    found = (path for ending in (SCAN_ENDING, EXAM_ENDING) for path in folder.rglob(f"*{ending}"))
    return sorted(path for path in found if ".part-" not in str(path.relative_to(folder)))


def is_of_exam(provenance: Path) -> bool:
    """Return whether a provenance is that of an exam, by its name."""
    return provenance.name.endswith(EXAM_ENDING)


def index_rows(folder: Path) -> list[IndexRow]:
    """Return every complete detection below a folder, outliers first."""
    rows = []
    for path in find_provenance(folder):
        base = path.name.removesuffix("provenance.json")
        page, picture = path.with_name(f"{base}report.html"), path.with_name(f"{base}thumbnail.jpg")
        try:
            provenance = read_exam_provenance(path).as_of_scan if is_of_exam(path) else read_provenance(path)
        except FileNotFoundError:
            continue  # another job of the same data set is replacing this detection
        name = provenance.scan or path.name.removesuffix(SCAN_ENDING)
        rows.append(IndexRow(name, provenance, _link(page, folder), _link(picture, folder)))
    return sorted(rows, key=lambda row: (*(-value for value in row.rank), row.name))


def is_index_page(path: Path) -> bool:
    """Return whether a file is the page of many scans, and not another one of that name."""
    return path.is_file() and _MARK in path.read_text(encoding="utf-8", errors="replace")


def write_index_page(folder: Path, failures: Mapping[str, str]) -> Path:
    """Write the page of everything that lies below `folder`, and return its path."""
    path = folder / INDEX
    if path.exists() and not is_index_page(path):
        raise CannotWriteError(
            "the page of all scans must not replace another page", where=path, remedy="move that page"
        )
    rows = index_rows(folder)
    html = page_template("index.html.j2").render(
        # What no scan has is no column.
        columns=[title for key, title, _ in _COLUMNS if any(row.figure(key) is not None for row in rows)],
        rows=rows,
        kind="exam" if rows and all(is_of_exam(path) for path in find_provenance(folder)) else "scan",
        n_flagged=sum(bool(row.flags) for row in rows),
        failures=sorted(failures.items()),
        strips=[strip for strip in _plots(rows) if strip["dots"]],
        disclaimer=DISCLAIMER,
        counted=counted,
    )
    write_text(path, html)
    return path


def _link(path: Path, folder: Path) -> str:
    return quote(path.relative_to(folder).as_posix()) if path.is_file() else ""


def _plots(rows: Sequence[IndexRow]) -> list[dict[str, Any]]:
    """Return the distributions of scores with healthy scores, of percentiles, and of volumes."""

    def dots(key: str, some: Sequence[IndexRow] = rows) -> list[Dot]:
        return [Dot(row.name, row.figure(key), bool(row.flags)) for row in some]

    # Scans share a line where contrast and healthy scans are the same, as no other scores compare.
    groups: dict[tuple[str, tuple[float, ...]], list[IndexRow]] = {}
    for row in rows:
        if row.provenance.scan_score is not None:
            groups.setdefault((row.modality, HealthyReference.of(row.provenance).scores), []).append(row)
    plots = []
    for (modality, healthy), own in sorted(groups.items(), key=lambda item: item[0]):
        name = f"scan-level score, {modality}" if modality else "scan-level score"
        says = HealthyReference.of(own[0].provenance).said if healthy else ""
        plots.append(dot_plot(name, dots("scan_score", own), marks=healthy, says=says))
    return [
        *plots,
        dot_plot("healthy scans with a lower score, %", dots("scan_score_percentile"), limits=(0.0, 100.0)),
        dot_plot("volume of the findings, ml", dots("lesion_volume_ml")),
        dot_plot("number of findings", dots("n_lesions")),
    ]
