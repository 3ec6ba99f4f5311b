"""One self-contained HTML page: figures, tables and an interactive view, without a single outside address."""

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
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
        links: (what it is, address beside the page) of files to go on to.
    """

    title: str
    text: Sequence[str] = ()
    figure: Figure | None = None
    caption: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    viewer: str = ""
    links: Sequence[tuple[str, str]] = ()


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
    # Nothing below the threshold is shown: where no voxel reaches it the overlay is emptied, and the title says so.
    reached = bool(score.max() > 0 and score.max() >= threshold)
    centre = None
    if not reached:
        middle = np.append((np.array(scan.shape) - 1) / 2, 1)
        centre = tuple(float(v) for v in (affine @ middle)[:3])
        title = f"nothing ≥ {threshold:.3f}"
        overlay = nibabel.Nifti1Image(np.zeros(score.shape, dtype=np.float32), affine)
    view = view_img(
        overlay,
        bg_img=background,
        threshold=threshold if reached else 0,
        cut_coords=centre,
        cmap="inferno",
        symmetric_cmap=False,
        vmin=0,
        vmax=max(float(score.max()), 1e-3),
        black_bg=True,
        dim=0,
        # nilearn pastes the title into HTML and into JavaScript as it stands.
        title=escape(title),
        # Not radiological=True: nilearn 0.14.1 then mirrors the picture but not its x, and shows the other hemisphere.
        opacity=0.65,
        resampling_interpolation="nearest",
    )
    # The viewer's only outside address is its icon.
    return re.sub(r"<link[^>]*href=\"https?:[^>]*>", "", str(view.get_standalone()))


def _png(figure: Figure | None) -> str:
    if figure is None:
        return ""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor=figure.get_facecolor())
    return base64.b64encode(buffer.getvalue()).decode("ascii")
