"""One self-contained HTML page: figures, tables and an interactive view, without a single outside address."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from halebrain.core.atomic import write_text
from halebrain.core.types import Affine
from halebrain.report.figures import DISCLAIMER


@dataclass(frozen=True)
class Section:
    """One part of a page; what is not given is not shown.

    Args:
        title: Heading.
        text: Paragraphs.
        figure: Shown as an embedded PNG.
        caption: Under the figure or the table.
        header: Column names of the table.
        rows: Cells of the table.
        viewer: A whole HTML document, shown in a frame.
    """

    title: str
    text: Sequence[str] = ()
    figure: Figure | None = None
    caption: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    viewer: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: Heading.
        lead: One or two sentences under it.
        numbers: Key figures, (value, what it is).
        sections: Parts, in order.
        provenance: Shown folded at the end, as JSON.
    """

    title: str
    lead: str
    numbers: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def write_page(page: Page, path: Path) -> None:
    """Write the page as one HTML file, atomically; every text is escaped."""
    environment = Environment(
        loader=PackageLoader("halebrain.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("page.html.j2").render(
        page=page,
        figures=[_png(section.figure) for section in page.sections],
        provenance=json.dumps(page.provenance, indent=2),
        disclaimer=DISCLAIMER,
    )
    write_text(path, html)


def interactive_view(
    scan: npt.NDArray[np.float32],
    score: npt.NDArray[np.float32],
    affine: Affine,
    *,
    threshold: float,
    title: str,
) -> str:
    """Return a three-plane viewer of the scan with the score on top, as an HTML document that needs no network."""
    from nilearn.plotting import view_img

    background = nibabel.Nifti1Image(np.asarray(scan, dtype=np.float32), affine)
    overlay = nibabel.Nifti1Image(np.asarray(score, dtype=np.float32), affine)
    # The viewer must never be asked to show less than it has, or it warns and shows nothing.
    shown = min(threshold, 0.95 * float(score.max())) if score.max() > 0 else 1e-6
    view = view_img(
        overlay,
        bg_img=background,
        threshold=max(shown, 1e-6),
        cmap="inferno",
        symmetric_cmap=False,
        vmin=0,
        vmax=max(float(score.max()), 1e-3),
        black_bg=True,
        dim=0,
        title=title,
        opacity=0.65,
        resampling_interpolation="nearest",
    )
    return str(view.get_standalone())


def _png(figure: Figure | None) -> str:
    if figure is None:
        return ""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor=figure.get_facecolor())
    return base64.b64encode(buffer.getvalue()).decode("ascii")
