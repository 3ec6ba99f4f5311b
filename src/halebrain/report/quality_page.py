"""The page of a prepared data set: every scan on the template, outliers first, and the distribution of the figures."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from halebrain.core.files import write_text
from halebrain.core.wording import counted
from halebrain.report.figures import DISCLAIMER
from halebrain.report.strip import Dot, dot_strip


@dataclass(frozen=True)
class QualityRow:
    """One scan.

    Args:
        scan_id: Its name.
        modality: Its contrast.
        figures: Name with unit → value; the same names in every row.
        flags: Quality flags.
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
        counted=counted,
    )
    write_text(path, html)


def _shown(row: QualityRow, names: Sequence[str]) -> dict[str, Any]:
    values = ["–" if row.figures[name] is None else f"{row.figures[name]:.4g}" for name in names]
    picture = f"data:image/jpeg;base64,{base64.b64encode(row.picture).decode('ascii')}" if row.picture else ""
    flags = list(row.flags)
    return {"scan_id": row.scan_id, "modality": row.modality, "cells": values, "flags": flags, "picture": picture}


def _strip(name: str, rows: Sequence[QualityRow]) -> dict[str, Any]:
    known = [(row, row.figures[name]) for row in rows]
    return dot_strip(name, [Dot(row.scan_id, value, bool(row.flags)) for row, value in known if value is not None])
