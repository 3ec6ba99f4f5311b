"""One self-contained HTML page: figures, tables and an interactive view, without a single outside address."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from halebrain.core.about import NOTICE
from halebrain.core.files import write_text
from halebrain.report.figures import figure_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        viewer: A whole HTML document (the page of a scan), shown in a frame.
        links: (what it is, address beside the page) of files to go on to.
    """

    title: str
    text: Sequence[str] = ()
    figure: "Figure | None" = None
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


@cache
def page_template(name: str, *, package: str = "halebrain.report") -> Template:
    """Return a template of a package; what is put in is escaped, and a missing name is an error."""
    environment = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)


def script_json(data: object) -> Markup:
    """Return JSON that may stand in a script element: no `<`, so that no name in it can end the element."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def write_page(page: Page, path: Path, *, dpi: int = 110) -> list[bytes]:
    """Write the page as one HTML file, atomically; every text is escaped.

    Returns the figure of each section as PNG, for files beside the page; empty where it has none.
    """
    pictures = [b"" if section.figure is None else figure_png(section.figure, dpi=dpi) for section in page.sections]
    html = page_template("page.html.j2").render(
        page=page,
        figures=[base64.b64encode(picture).decode("ascii") for picture in pictures],
        provenance=json.dumps(page.provenance, indent=2),
        disclaimer=NOTICE,
    )
    write_text(path, html)
    return pictures
