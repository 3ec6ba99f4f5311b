"""The page of a prepared data set: every scan on the template, the odd ones first, and how the figures spread."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from halebrain.core.atomic import write_text
from halebrain.report.figures import DISCLAIMER

_WIDTH, _HEIGHT, _MARGIN = 300, 36, 8
_OFFSETS = (0.0, -6.0, 6.0, -12.0, 12.0)


@dataclass(frozen=True)
class QualityRow:
    """One scan.

    Args:
        scan_id: Its name.
        modality: Its contrast.
        figures: Name with unit → value; the same names in every row.
        flags: What to look at.
        picture: JPEG of the scan on the template; `None` where there is none.
    """

    scan_id: str
    modality: str
    figures: Mapping[str, float | None]
    flags: Sequence[str]
    picture: bytes | None = None


def write_quality_page(rows: Sequence[QualityRow], failures: Mapping[str, str], path: Path) -> None:
    """Write one HTML file that needs nothing else; every text is escaped.

    Args:
        rows: The scans, in the order in which they are shown.
        failures: Scan → why it could not be prepared.
        path: The file.

    Raises:
        CannotWriteError: The folder cannot be written.
    """
    names = list(rows[0].figures) if rows else []
    environment = Environment(
        loader=PackageLoader("halebrain.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("quality.html.j2").render(
        rows=[_shown(row, names) for row in rows],
        n_flagged=sum(bool(row.flags) for row in rows),
        failures=sorted(failures.items()),
        header=["scan", "modality", *(name.replace("_", " ") for name in names), "flags"],
        strips=[strip for strip in (_strip(name, rows) for name in names) if strip["dots"]],
        disclaimer=DISCLAIMER,
    )
    write_text(path, html)


def _shown(row: QualityRow, names: Sequence[str]) -> dict[str, Any]:
    values = ["–" if row.figures[name] is None else f"{row.figures[name]:.4g}" for name in names]
    picture = f"data:image/jpeg;base64,{base64.b64encode(row.picture).decode('ascii')}" if row.picture else ""
    flags = list(row.flags)
    return {"scan_id": row.scan_id, "modality": row.modality, "cells": values, "flags": flags, "picture": picture}


def _strip(name: str, rows: Sequence[QualityRow]) -> dict[str, Any]:
    """Return the dots of one figure; equal values are stacked over the height so that none hides the others."""
    known = [(row, float(row.figures[name] or 0.0)) for row in rows if row.figures[name] is not None]
    values = [value for _, value in known]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    span = (high - low) or 1.0
    taken: dict[int, int] = {}
    dots = []
    for row, value in known:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * ((value - low) / span if high > low else 0.5)
        level = taken.get(round(x / 7), 0)
        taken[round(x / 7)] = level + 1
        y = _HEIGHT / 2 + _OFFSETS[level % len(_OFFSETS)]
        dots.append(
            {"x": f"{x:.1f}", "y": y, "flagged": bool(row.flags), "scan_id": row.scan_id, "value": f"{value:.4g}"}
        )
    return {"name": name.replace("_", " "), "low": f"{low:.4g}", "high": f"{high:.4g}", "dots": dots}
