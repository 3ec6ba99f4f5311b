"""The page of many scans or exams: a table, outliers first, with small pictures and links, and what failed and why."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from halebrain.core.about import NOTICE
from halebrain.core.errors import CannotWriteError, HalebrainError
from halebrain.core.exam_provenance import ENDING as EXAM_ENDING
from halebrain.core.exam_provenance import read_exam_provenance
from halebrain.core.files import write_text
from halebrain.core.leftovers import MARK
from halebrain.core.provenance import ENDING as SCAN_ENDING
from halebrain.core.provenance import read_provenance
from halebrain.core.wording import counted
from halebrain.report.dot_plot import Dot, dot_plot, how_drawn
from halebrain.report.page import page_template, script_json
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


_MOST_AT_ONCE, _PER_PAGE = 500, 100
"""Rows above which the table has pages, and the rows of each."""


@dataclass(frozen=True)
class IndexRow:
    """One processed scan or exam, as far as the table shows it.

    Args:
        name: Of the scan or exam.
        figures: Name in the provenance → value.
        flags: Quality flags, most important first.
        stop: Whether its maps are not to be relied on.
        modality: The contrast of its threshold; empty = not known.
        healthy: Healthy scans to compare its score with.
        page: Address of its page; empty = none.
        picture: Address of its picture; empty = none.
        is_exam: Whether it is an exam, with its figures as those of a scan.
    """

    name: str
    figures: Mapping[str, float | None]
    flags: tuple[str, ...]
    stop: bool
    modality: str
    healthy: HealthyReference
    page: str
    picture: str
    is_exam: bool = False

    @classmethod
    def of(cls, path: Path, folder: Path) -> "IndexRow":
        """Return the row of a provenance below a folder."""
        is_exam = is_of_exam(path)
        made = read_exam_provenance(path).as_of_scan if is_exam else read_provenance(path)
        base = path.name.removesuffix("provenance.json")
        reasons, threshold = out_of_distribution(made.qc), made.threshold
        return cls(
            name=made.scan or path.name.removesuffix(SCAN_ENDING),
            figures={key: getattr(made, key) for key, _, _ in _COLUMNS},
            flags=(*reasons, *(flag for flag in made.qc.flags if flag not in reasons)),
            stop=made.qc.out_of_distribution or made.qc.registration_failed,
            modality="" if threshold is None else threshold.modality or "",
            healthy=HealthyReference.of(made),
            page=_link(path.with_name(f"{base}report.html"), folder),
            picture=_link(path.with_name(f"{base}thumbnail.jpg"), folder),
            is_exam=is_exam,
        )

    @property
    def rank(self) -> tuple[float, float, float]:
        """Sort key of the table, highest first: percentile among healthy scans, score, volume."""
        found = (self.figures[key] for key in ("scan_score_percentile", "scan_score", "lesion_volume_ml"))
        percentile, score, volume = (-1.0 if value is None else value for value in found)
        return percentile, score, volume

    @property
    def cells(self) -> list[tuple[str, str]]:
        """Heading and text of each figure."""
        figures = ((self.figures[key], title, form) for key, title, form in _COLUMNS)
        return [(title, "–" if value is None else form.format(value)) for value, title, form in figures]


def find_provenance(folder: Path) -> list[Path]:
    """Return the provenance of every complete detection below a folder, of scans and of exams, sorted."""
    found = (path for ending in (SCAN_ENDING, EXAM_ENDING) for path in folder.rglob(f"*{ending}"))
    return sorted(path for path in found if MARK not in str(path.relative_to(folder)))


def names_of(found: Sequence[Path], folder: Path) -> dict[Path, str]:
    """Return the name of the scan or exam of each provenance below `folder`, with its folder where several share it.

    Files of one folder that state the same name have that of the file.
    """
    stated = {path: _stated_name(path) for path in found}
    beside = Counter((path.parent, name) for path, name in stated.items())
    stated = {path: name if beside[path.parent, name] == 1 else _file_name(path) for path, name in stated.items()}
    often = Counter(stated.values())
    return {
        path: name if often[name] == 1 else (path.parent.relative_to(folder) / name).as_posix()
        for path, name in stated.items()
    }


def _stated_name(path: Path) -> str:
    """Return the name that a provenance states; that of its file where it cannot be read."""
    try:
        name = read_exam_provenance(path).exam if is_of_exam(path) else read_provenance(path).scan
    except (HalebrainError, FileNotFoundError):
        name = None
    return name or _file_name(path)


def _file_name(path: Path) -> str:
    return path.name.removesuffix(EXAM_ENDING).removesuffix(SCAN_ENDING)


def is_of_exam(provenance: Path) -> bool:
    """Return whether a provenance is that of an exam, by its name."""
    return provenance.name.endswith(EXAM_ENDING)


def index_rows(folder: Path) -> list[IndexRow]:
    """Return every complete detection below a folder, outliers first."""
    rows, known = list[IndexRow](), dict[HealthyReference, HealthyReference]()
    for path in find_provenance(folder):
        try:
            row = IndexRow.of(path, folder)
        except FileNotFoundError:
            continue  # another job of the same data set is replacing this detection
        # Thousands of scans share the healthy ones that they are compared with.
        rows.append(replace(row, healthy=known.setdefault(row.healthy, row.healthy)))
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
    # What no scan has is no column.
    columns = [title for key, title, _ in _COLUMNS if any(row.figures[key] is not None for row in rows)]
    paged = len(rows) > _MOST_AT_ONCE
    kind = "exam" if rows and all(row.is_exam for row in rows) else "scan"
    strips = [strip for strip in _plots(rows, kind) if strip["dots"] or strip["bars"]]
    html = page_template("index.html.j2").render(
        columns=columns,
        rows=rows[:_PER_PAGE] if paged else rows,
        kind=kind,
        n_rows=len(rows),
        paged=script_json(_packed(rows, columns)) if paged else "",
        n_flagged=sum(bool(row.flags) for row in rows),
        failures=sorted(failures.items()),
        strips=strips,
        how_drawn=how_drawn(strips, kind),
        disclaimer=NOTICE,
        counted=counted,
    )
    write_text(path, html)
    return path


def _packed(rows: Sequence[IndexRow], columns: Sequence[str]) -> dict[str, Any]:
    """Return all rows for the script of the page: texts that are repeated are stated once."""
    flags: dict[str, int] = {}
    packed = []
    for row in rows:
        page, picture = row.page.removesuffix("report.html"), row.picture.removesuffix("thumbnail.jpg")
        has = (1 if row.page else 0) + (2 if row.picture else 0) + (4 if row.stop else 0)
        cells = [text for title, text in row.cells if title in columns]
        numbers = [flags.setdefault(flag, len(flags)) for flag in row.flags]
        packed.append([row.name, row.modality, page or picture, has, cells, numbers])
    return {"flags": list(flags), "columns": list(columns), "perPage": _PER_PAGE, "rows": packed}


def _link(path: Path, folder: Path) -> str:
    return quote(path.relative_to(folder).as_posix()) if path.is_file() else ""


def _plots(rows: Sequence[IndexRow], kind: str) -> list[dict[str, Any]]:
    """Return the distributions of scores with healthy scores, of percentiles, and of volumes."""

    def dots(key: str, some: Sequence[IndexRow] = rows) -> list[Dot]:
        return [Dot(row.name, row.figures[key], bool(row.flags)) for row in some]

    # Scans share a line where contrast and healthy scans are the same, as no other scores compare.
    groups: dict[tuple[str, tuple[float, ...]], list[IndexRow]] = {}
    for row in rows:
        if row.figures["scan_score"] is not None:
            groups.setdefault((row.modality, row.healthy.scores), []).append(row)
    plots = []
    for (modality, healthy), own in sorted(groups.items(), key=lambda item: item[0]):
        name = f"{kind}-level score, {modality}" if modality else f"{kind}-level score"
        says = own[0].healthy.said if healthy else ""
        plots.append(dot_plot(name, dots("scan_score", own), marks=healthy, says=says))
    return [
        *plots,
        dot_plot(f"healthy {kind}s with a lower score, %", dots("scan_score_percentile"), limits=(0.0, 100.0)),
        dot_plot("volume of the findings, ml", dots("lesion_volume_ml")),
        dot_plot("number of findings", dots("n_lesions")),
    ]
