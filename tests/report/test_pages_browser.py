"""Every other page in a real browser, from a file and offline: on a phone, in the dark, and by keys alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.looks import LAPTOPS, assert_nothing_aside, assert_readable, has_ring, tab_to

from halebrain.evaluation.matrix import MatrixRow
from halebrain.report.index_page import write_index_page
from halebrain.report.matrix_page import write_matrix_page
from halebrain.report.page import Page, Section, write_page
from halebrain.report.quality_page import QualityRow, write_quality_page
from halebrain.report.scan_page import scan_html

pytestmark = pytest.mark.slow
PHONE = {"width": 375, "height": 800}
LONG = "sub-0123456789_ses-20240229_acq-highresolution_run-01_FLAIR"
PAGES = ["many scans", "evaluation", "matrix", "quality", "viewer", "scan"]


@pytest.fixture
def write(
    tmp_path: Path,
    evaluation_page: Callable[..., Path],
    matrix_table: list[MatrixRow],
    make_scan: Callable[..., Any],
) -> Callable[[str], Path]:
    """Write a page of a kind."""
    makers: dict[str, Callable[[], Path]] = {
        "many scans": lambda: _many_scans(tmp_path / "many"),
        "evaluation": lambda: evaluation_page("model", "rank"),
        "matrix": lambda: _matrix(matrix_table, tmp_path / "matrix" / "index.html"),
        "quality": lambda: _quality(tmp_path / "quality.html"),
        "viewer": lambda: _viewer(make_scan, tmp_path / "viewer.html"),
        "scan": lambda: _scan(make_scan, tmp_path / "scan.html"),
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
            "threshold": {"value": 0.5, "name": "fixed", "modality": "FLAIR"},
            "lesion_volume_ml": (3, 1, 2)[number],
            "qc": {"flags": ["thick slices (6.0 mm): small lesions are hard to see"][: number % 2]},
        }
        (folder / name / f"{name}_desc-anomaly_provenance.json").write_text(json.dumps(about))
    return write_index_page(
        folder, {f"{LONG}_broken": "a scan must have varying intensities, got an image that is empty"}
    )


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


def _viewer(make_scan: Callable[..., Any], path: Path) -> Path:
    view = scan_html(make_scan(title=LONG).page)
    write_page(Page("A page with a viewer", "Look around.", sections=[Section("Look", viewer=view)]), path)
    return path


def _scan(make_scan: Callable[..., Any], path: Path) -> Path:
    among = {"scan_score": 0.41, "scan_score_percentile": 97.5, "scan_score_n_healthy": 40}
    doubt = {"qc": {"flags": ["thick slices (6.0 mm): small lesions are hard to see"]}}
    path.write_text(scan_html(make_scan(title=LONG, **among, **doubt).page), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", PAGES)
def test_a_phone_shows_every_page(
    open_page: Callable[..., Any], write: Callable[[str], Path], kind: str, scheme: str
) -> None:
    page = open_page(write(kind), viewport=PHONE, color_scheme=scheme)
    paper = {"light": "rgb(251, 251, 250)", "dark": "rgb(13, 16, 20)"}[scheme]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
    assert_readable(page)
    assert_nothing_aside(page, PHONE["width"])


@pytest.mark.parametrize("kind", PAGES)
def test_a_laptop_scrolls_no_page_sideways(
    open_page: Callable[..., Any], write: Callable[[str], Path], kind: str
) -> None:
    assert_nothing_aside(open_page(write(kind)), *LAPTOPS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_that_a_scan_says_can_be_read(
    open_page: Callable[..., Any], write: Callable[[str], Path], make_scan: Callable[..., Any], scheme: str
) -> None:
    page = open_page(write("scan"), color_scheme=scheme)
    page.wait_for_selector("body[data-ready=yes]")
    page.select_option("#overlay", "probability")
    page.wait_for_selector("#from-value:text-matches('.')")
    assert_readable(page, "#from-value", "#theme", "#next", "#minimum", ".gauge text", ".verdict.look li", "#position")
    page.focus("#threshold")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#live-findings tbody tr")
    page.keyboard.press("n")
    page.wait_for_selector("#live-findings tr[aria-current]")
    page.keyboard.press("?")
    assert_readable(page, "#as-written", "p.look", "#live-findings tr[aria-current] td", "#keys kbd", "#keys button")
    strange = {"out_of_distribution": True, "out_of_distribution_reasons": ["a T1 among FLAIRs"]}
    assert_readable(open_page(qc=strange, color_scheme=scheme), ".verdict.none li", ".unsure .number b")


@pytest.mark.parametrize(("kind", "table", "column"), [("many scans", "scans", "ml"), ("quality", "figures", "snr")])
def test_tables_are_sorted_by_keys_alone(
    open_page: Callable[..., Any], write: Callable[[str], Path], kind: str, table: str, column: str
) -> None:
    page = open_page(write(kind))
    cells = f"""name => {{
      const at = [...document.querySelectorAll('#{table} th')].findIndex((th) => th.textContent.trim() === name);
      return [...document.querySelector('#{table} tbody').rows].map((row) => parseFloat(row.cells[at].textContent));
    }}"""
    place = page.locator(f"#{table} th").all_text_contents().index(column) + 1
    tab_to(page, f"#{table} th:nth-child({place}) button")
    assert has_ring(page)
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


def test_the_viewer_within_a_page_can_be_used(open_page: Callable[..., Any], write: Callable[[str], Path]) -> None:
    page = open_page(write("viewer"))
    inside = page.frame_locator("iframe")
    inside.locator("body[data-ready=yes]").wait_for()
    inside.locator("#threshold").focus()
    page.keyboard.press("ArrowRight")
    inside.locator("#live-findings tbody tr").first.wait_for()
    page.keyboard.press("n")
    inside.locator("#live-findings tr[aria-current]").wait_for()
