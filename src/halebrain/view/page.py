"""Served pages: the pages on disk with review controls added."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from halebrain.report.scan_page import VIEW_HINT, script_json
from halebrain.view.messages import NOTE_LENGTH

POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_POLICY = (
    f"{POLICY}; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
)
"""Pages are self-contained; they may connect to this server only."""
_POLICY_OF_FILE = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_MAIN = '<main class="broad">'
_OLD = (
    '<p class="notice">This page was made by an earlier version and has no review controls. '
    "Run <code>halebrain report</code> to make it again.</p>"
)


def scan_page(html: str, review: Mapping[str, Any]) -> str:
    """Return the page of a scan with the controls of a review.

    Args:
        html: As it lies on disk.
        review: What was decided, and what else the controls must know; JSON-able.
    """
    # The page forbids itself every connection; served, it is the header that says what it may.
    html = _POLICY_OF_FILE.sub("", html, count=1)
    if VIEW_HINT not in html:
        return html.replace(_MAIN, _MAIN + _OLD, 1)
    return _with(html, "review.html.j2", script_json(dict(review)))


def index_page(html: str, counts: Mapping[str, str]) -> str:
    """Return the page of many scans with how far each was reviewed.

    Args:
        html: As it lies on disk.
        counts: Address of a scan's page as that page has it → its review status.
    """
    return _with(html, "index.html.j2", script_json(dict(counts)))


def _with(html: str, template: str, data: str) -> str:
    before, end, after = html.rpartition("</body>")
    added = _templates().get_template(template).render(data=data, note_length=NOTE_LENGTH)
    return f"{before}{added}{end}{after}"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("halebrain.view"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
