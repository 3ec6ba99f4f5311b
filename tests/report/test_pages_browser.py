"""Every other page in a real browser, from a file and offline: on a phone, in the dark, and by keys alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halebrain.evaluation.matrix import MatrixRow
from halebrain.report.cohort_page import write_cohort_page
from halebrain.report.matrix_page import write_matrix_page
from halebrain.report.page import Page, Section, interactive_view, write_page
from halebrain.report.quality_page import QualityRow, write_quality_page

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:nilearn.*")]
PHONE = {"width": 375, "height": 800}
LONG = "sub-0123456789_ses-20240229_acq-highresolution_run-01_FLAIR"
PAGES = ["many scans", "evaluation", "matrix", "quality", "viewer"]
CONTRAST = r"""selectors => selectors.flatMap(s => [...document.querySelectorAll(s)].slice(0, 5)).map(e => {
  const parts = (text) => text.match(/[\d.]+/g).map(Number);
  const linear = (v) => (v <= 10 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  let paper = e;
  while (paper.parentElement && parts(getComputedStyle(paper).backgroundColor)[3] === 0) paper = paper.parentElement;
  const both = [getComputedStyle(e).color, getComputedStyle(paper).backgroundColor].map(c => light(parts(c)) + .05);
  return Math.max(...both) / Math.min(...both);
})"""


@pytest.fixture
def write(tmp_path: Path, evaluation_page: Callable[..., Path], matrix_table: list[MatrixRow]) -> Callable[[str], Path]:
    """Write a page of a kind."""
    makers: dict[str, Callable[[], Path]] = {
        "many scans": lambda: _many_scans(tmp_path / "many"),
        "evaluation": lambda: evaluation_page("model", "rank"),
        "matrix": lambda: _matrix(matrix_table, tmp_path / "matrix" / "index.html"),
        "quality": lambda: _quality(tmp_path / "quality.html"),
        "viewer": lambda: _viewer(tmp_path / "viewer.html"),
    }
    return lambda kind: makers[kind]()


def _many_scans(folder: Path) -> Path:
    for number, name in enumerate(("a", "b", LONG)):
        (folder / name).mkdir(parents=True)
        about = {
            "scan": name,
            "scan_score": 0.2 + 0.1 * number,
            "scan_score_percentile": 40.0 + 10 * number,
            "scan_score_n_healthy": 5,
            "scan_score_healthy": [0.1, 0.15, 0.2, 0.3, 0.35],
            "threshold": {"modality": "FLAIR"},
            "lesion_volume_ml": (3, 1, 2)[number],
            "qc": {"flags": ["thick slices (6.0 mm): small lesions are hard to see"][: number % 2]},
        }
        (folder / name / f"{name}_desc-anomaly_provenance.json").write_text(json.dumps(about))
    return write_cohort_page(folder, {f"{LONG}_broken": "a scan must show something, got an image that is empty"})


def _matrix(table: list[MatrixRow], path: Path) -> Path:
    slice_ = np.zeros((12, 10), dtype=np.float16)
    slice_[4:6, 4:6] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "title": "A matrix",
        "reference": "alone",
        "notes": ["pair (wmh): out of memory"],
        "provenance": {"seed": 0},
    }
    pictures = {"image|ms": slice_, "lesion|ms": slice_, "alone|ms": slice_}
    columns = ["ms", "stroke", "wmh"]
    write_matrix_page(table, columns, path, pictures=pictures, most=dict.fromkeys(columns, 20), **about)
    return path


def _quality(path: Path) -> Path:
    names = ["snr", "registration_mask_dice", "brain_volume_ml", "working_grid_brain_ml", "registration_scale"]
    rows = [
        QualityRow(name, "FLAIR", dict.fromkeys(names, value + number), ("look",) if number == 0 else ())
        for number, (name, value) in enumerate(((LONG, 30.0), ("b", 10.0), ("c", 20.0)))
    ]
    write_quality_page(rows, {"broken": "no brain"}, path)
    return path


def _viewer(path: Path) -> Path:
    score = np.zeros((20, 20, 20), dtype=np.float32)
    score[8:12, 8:12, 8:12] = 0.8
    scan = np.random.default_rng(0).random(score.shape).astype(np.float32)
    view = interactive_view(scan, score, np.diag([4.0, 4, 4, 1]), threshold=0.3, title="a scan")
    write_page(Page("A page with a viewer", "Look around.", sections=[Section("Look", viewer=view)]), path)
    return path


@pytest.mark.parametrize("kind", PAGES)
def test_a_phone_in_the_dark_shows_every_page(
    open_page: Callable[..., Any], write: Callable[[str], Path], kind: str
) -> None:
    page = open_page(write(kind), viewport=PHONE, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 16, 20)"
    ratios = page.evaluate(CONTRAST, ["body", "h2", "p", "td", "th", "th button", ".caption", ".flag", "a", "small"])
    assert len(ratios) >= 3
    assert min(ratios) >= 4.5


@pytest.mark.parametrize(("kind", "table", "column"), [("many scans", "scans", "ml"), ("quality", "figures", "snr")])
def test_tables_are_sorted_by_keys_alone(
    open_page: Callable[..., Any], write: Callable[[str], Path], kind: str, table: str, column: str
) -> None:
    page = open_page(write(kind))
    cells = f"""name => {{
      const at = [...document.querySelectorAll('#{table} th')].findIndex((th) => th.textContent.trim() === name);
      return [...document.querySelector('#{table} tbody').rows].map((row) => parseFloat(row.cells[at].textContent));
    }}"""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent.trim()") == column:
            break
    assert page.evaluate("document.activeElement.closest('th') !== null")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    values = page.evaluate(cells, column)
    assert values == sorted(values, reverse=True)
    page.keyboard.press("Space")
    assert page.evaluate(cells, column) == sorted(values)
    assert page.get_attribute("th[aria-sort]", "aria-sort") == "ascending"


def test_the_viewer_draws_under_the_rules_of_the_page(
    open_page: Callable[..., Any], write: Callable[[str], Path]
) -> None:
    page = open_page(write("viewer"))
    drawn = """() => { const c = document.querySelector('canvas');
      if (!c || !c.width) return false;
      const pixels = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      return pixels.some((v, i) => i % 4 < 3 && v > 0); }"""
    page.frames[1].wait_for_function(drawn)
