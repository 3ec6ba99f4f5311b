"""Files that may be served: those written by detections below one folder."""

from pathlib import Path
from urllib.parse import unquote

from halebrain.inference.outputs import page_of
from halebrain.io.failed_table import FAILED
from halebrain.report.index_page import INDEX, find_provenance, is_index_page

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".json": "application/json",
    ".nii.gz": "application/gzip",
}
PAGES = ("_desc-anomaly_report.html", "_desc-exam_report.html")
"""How the names of pages end, of scans and of exams."""
_OURS = "_desc-"


def kind_of(path: Path) -> str | None:
    """Return the media type of a file that a detection writes; `None` for every other."""
    name = path.name
    if name.endswith(".html"):
        return KINDS[".html"] if name == INDEX or name.endswith(PAGES) else None
    if _OURS not in name and name != FAILED:
        return None
    return next((kind for ending, kind in KINDS.items() if name.endswith(ending)), None)


def find_file(root: Path, target: str) -> Path | None:
    """Return the file that the path of an address means, or `None` where there is none to be served."""
    if not target.startswith("/"):
        return None
    try:
        # Taken apart first: a slash that was encoded is no slash.
        parts = [unquote(part, errors="strict") for part in target[1:].split("/")]
    except UnicodeDecodeError:
        return None
    if not all(map(_is_plain, parts)):
        return None
    base = root.resolve()
    try:
        path = base.joinpath(*parts).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # absent, too long, a loop of links
        return None
    if not path.is_relative_to(base) or not all(map(_is_plain, path.relative_to(base).parts)):
        return None
    return path if path.is_file() and kind_of(path) is not None else None


def first_page(root: Path) -> Path | None:
    """Return the page that a visit begins with, below the folder: that of all scans, else that of the only one."""
    if is_index_page(root / INDEX):
        return Path(INDEX)
    found = find_provenance(root)
    if len(found) != 1:
        return None
    page = page_of(found[0])
    return page.relative_to(root) if page.is_file() else None


def _is_plain(part: str) -> bool:
    """Return whether a part of a path is a name, and no hidden one."""
    return bool(part) and not part.startswith(".") and not any(sign in part for sign in "/\\\0")
