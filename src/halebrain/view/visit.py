"""A review session: pages of one folder with review controls, decisions on findings, masks at another threshold."""

import re
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from halebrain.core.errors import HalebrainError
from halebrain.core.files import file_lock
from halebrain.report.index_page import INDEX, is_index_page
from halebrain.report.page import page_template, script_json
from halebrain.report.scan_page import VIEW_HINT
from halebrain.view.access import RefusalError
from halebrain.view.files import PAGES, find_file
from halebrain.view.messages import NOTE_LENGTH, Decide, Save
from halebrain.view.scan import ViewedScan, review_count

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
Remake = Callable[[Path, float | None, float], object]
"""Writes mask, table, page and provenance of a detection again: its provenance, threshold (`None` = same), smallest
lesion in mm³."""


class Visit:
    """One folder under review; a visit begins with the page `start`, relative to it."""

    def __init__(self, root: Path, start: Path, remake: Remake) -> None:
        self.root, self.remake = root.resolve(), remake
        self.start = "/" + quote(start.as_posix())
        self.lock = threading.Lock()
        """Held while files are read that belong together, or replaced."""

    def read(self, target: str) -> tuple[Path, bytes]:
        """Return the file that the path of an address means, and its content as it is served."""
        path = find_file(self.root, target)
        if path is None or (path.name == INDEX and not is_index_page(path)):
            raise RefusalError(HTTPStatus.NOT_FOUND, "no such file of a detection")
        with self.lock:
            return path, self._content(path)

    def change(self, target: str, message: Decide | Save) -> dict[str, Any]:
        """Do what a page asks for; return what is decided then, as a page has it."""
        page = find_file(self.root, target)
        if page is None or not page.name.endswith(PAGES):
            raise RefusalError(HTTPStatus.NOT_FOUND, "no such page of a scan")
        # The lock of this process, and one that every other halebrain view on these files asks for too.
        with self.lock, file_lock(page):
            scan = ViewedScan.at(page)
            if isinstance(message, Decide):
                scan.decide(message)
            else:
                scan.check_mask(message.mask_sha256)
                self.remake(scan.files.provenance, message.threshold, message.min_lesion_mm3)
                scan = ViewedScan.at(page)
            return scan.review()

    def _content(self, path: Path) -> bytes:
        if path.name.endswith(PAGES):
            up = "../" * (len(path.relative_to(self.root).parts) - 1)
            index = f"{up}{INDEX}" if is_index_page(self.root / INDEX) else ""
            return scan_page(
                path.read_text(encoding="utf-8", errors="replace"), _review(path) | {"index": index}
            ).encode("utf-8")
        if path.name == INDEX:
            return index_page(path.read_text(encoding="utf-8", errors="replace"), _counts(path.parent)).encode("utf-8")
        return path.read_bytes()


def _review(page: Path) -> dict[str, Any]:
    """Return the decisions on a scan, or why they cannot be read."""
    try:
        return ViewedScan.at(page).review()
    except HalebrainError as error:
        return {"error": str(error)}


def _counts(folder: Path) -> dict[str, str]:
    """Return how far each scan was reviewed, by the address that the page of all scans has for it."""
    found = sorted(page for ending in PAGES for page in folder.rglob(f"*{ending}"))
    pages = ((page, review_count(page)) for page in found)
    return {quote(page.relative_to(folder).as_posix()): count for page, count in pages if count}


def scan_page(html: str, review: Mapping[str, Any]) -> str:
    """Return the page of a scan with the controls of a review."""
    # The page forbids itself every connection; served, it is the header that says what it may.
    html = _POLICY_OF_FILE.sub("", html, count=1)
    if VIEW_HINT not in html:
        return html.replace(_MAIN, _MAIN + _OLD, 1)
    return _with(html, "review.html.j2", script_json(dict(review)))


def index_page(html: str, counts: Mapping[str, str]) -> str:
    """Return the page of many scans with how far each was reviewed."""
    return _with(html, "index.html.j2", script_json(dict(counts)))


def _with(html: str, template: str, data: str) -> str:
    before, end, after = html.rpartition("</body>")
    added = page_template(template, package="halebrain.view").render(data=data, note_length=NOTE_LENGTH)
    return f"{before}{added}{end}{after}"
