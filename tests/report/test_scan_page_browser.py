"""The viewer in a real browser, from a file and offline: threshold, findings, keys, sides and colours."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from tests.report.looks import has_ring, tab_to

from halebrain.core.mask import Cut, to_mask
from halebrain.report.index_page import write_index_page
from halebrain.report.scan_page import scan_html

pytestmark = pytest.mark.slow


def ready(page: Any) -> Any:
    page.wait_for_selector("body[data-ready=yes]")
    return page


def counted(page: Any) -> tuple[int, float]:
    return int(page.get_attribute("#live", "data-count")), float(page.get_attribute("#live", "data-ml"))


def slide(page: Any, level: int) -> None:
    page.eval_on_selector("#threshold", "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", level)
    page.wait_for_timeout(300)


def seen(page: Any) -> list[int]:
    """Return the voxel under the crosshair."""
    text = page.inner_text("#where")
    return [int(part) for part in text.split("·")[0].replace("voxel", "").split(",")]


def test_the_counts_are_those_of_the_table_and_follow_the_threshold(
    open_page: Callable[..., Any], make_scan: Callable[..., Any]
) -> None:
    page, made = ready(open_page()), make_scan().page
    # At 0.5, two cubes of 80 and 8 voxels of 8 mm³, and a single voxel, too small by the minimum of 20 mm³.
    assert counted(page) == (2, 0.704)
    assert "as saved" in page.inner_text("#live")
    page.fill("#minimum", "0")
    page.wait_for_selector("#live[data-count='3']")
    assert counted(page) == (3, 0.712)
    score = made.volumes["score"]
    slide(page, int(np.ceil((0.8 - score.offset) / score.scale)))
    assert counted(page) == (1, 0.64)
    slide(page, 255)
    assert counted(page)[0] == 0
    page.click("#as-written")
    assert counted(page) == (2, 0.704)


@pytest.mark.parametrize("grow_to", [0.15, 0.3])
def test_findings_grow_as_those_of_the_mask(
    open_page: Callable[..., Any], make_scan: Callable[..., Any], tmp_path: Path, grow_to: float
) -> None:
    threshold = {"value": 0.5, "name": "ml:1", "min_lesion_mm3": 20.0, "grow_to": grow_to}
    made, path = make_scan(threshold=threshold), tmp_path / "grown.html"
    path.write_text(scan_html(made.page), encoding="utf-8")
    page, score = ready(open_page(path)), made.page.volumes["score"]

    def expected(value: float) -> tuple[int, float]:
        mask = to_mask(made.maps.score, Cut(value, 20.0, grow_to if value > grow_to else None), voxel_mm3=8.0)
        return ndimage.label(mask, structure=np.ones((3, 3, 3)))[1], pytest.approx(mask.sum() * 8 / 1000, abs=1e-3)

    assert counted(page) == expected(0.5)
    assert f"grown to {grow_to:.3f}" in page.inner_text("#live")
    for value in (0.8, 0.96, 0.1):
        level = int(np.ceil((value - score.offset) / score.scale - 1e-6))
        slide(page, level)
        assert counted(page) == expected(score.offset + level * score.scale - 1e-6), value
    assert "grown" not in page.inner_text("#live"), "below the lower threshold nothing grows"


def test_what_is_saved_is_stated_as_the_table_has_it(
    open_page: Callable[..., Any], make_scan: Callable[..., Any], tmp_path: Path
) -> None:
    made, path = make_scan(), tmp_path / "finer.html"
    # Of a scan with smaller voxels than the viewer's, the table has a finding that the viewer is too coarse for.
    first = replace(made.page.findings[0], volume_ml=0.65)
    path.write_text(scan_html(replace(made.page, findings=[first, *made.page.findings[1:], first])), encoding="utf-8")
    page = ready(open_page(path))
    assert counted(page)[0] == 2
    assert page.inner_text("#live").startswith("3 findings, 1.36 ml, the largest 0.65 ml ")


def test_findings_are_reached_by_table_and_by_key(open_page: Callable[..., Any]) -> None:
    page = ready(open_page())
    assert seen(page) == [22, 21, 17]
    page.click("[data-finding='1']")
    page.wait_for_selector("#position:text-is('finding 2 of 2')")
    page.wait_for_timeout(200)
    assert seen(page) == [12, 26, 20]
    page.keyboard.press("n")
    page.wait_for_timeout(200)
    assert seen(page) == [22, 21, 17]
    page.keyboard.press("p")
    page.wait_for_timeout(200)
    assert seen(page) == [12, 26, 20]
    assert page.get_attribute("#findings tbody tr:nth-child(2)", "aria-current") == "true"
    slide(page, 200)  # then the live ones are gone through
    page.keyboard.press("n")
    page.wait_for_timeout(200)
    assert seen(page) == [22, 21, 17]


def test_a_slice_is_left_and_crossed_by_keys_alone(open_page: Callable[..., Any]) -> None:
    page = ready(open_page())
    page.focus("#plane-axial")
    start = seen(page)
    for key, change in (
        ("ArrowUp", (0, 1, 0)),
        ("PageUp", (0, 0, 1)),
        ("ArrowDown", (0, -1, 0)),
        ("PageDown", (0, 0, -1)),
        # Radiological: to the right on the screen is to the patient's left, where this scan's first axis runs.
        ("ArrowRight", (1, 0, 0)),
        ("ArrowLeft", (-1, 0, 0)),
    ):
        page.keyboard.press(key)
        page.wait_for_timeout(150)
        now = seen(page)
        assert tuple(np.subtract(now, start)) == change, key
        start = now
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "slice-axial"


def test_keys_change_overlay_opacity_and_help(open_page: Callable[..., Any]) -> None:
    page = ready(open_page())
    page.focus("#plane-coronal")
    page.keyboard.press("o")
    assert page.input_value("#overlay") == "findings"
    page.keyboard.press("Shift+O")
    assert page.input_value("#overlay") == "score"
    page.keyboard.press("-")
    assert page.input_value("#opacity") == "55"
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert page.input_value("#opacity") == "65"
    before = int(page.input_value("#threshold"))
    page.keyboard.press("]")
    assert int(page.input_value("#threshold")) == before + 1
    page.keyboard.press("b")
    assert page.is_hidden("#healthy")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    assert page.is_hidden("#keys")


def test_the_side_of_a_finding_follows_the_convention(open_page: Callable[..., Any]) -> None:
    page = ready(open_page())
    page.select_option("#overlay", "findings")
    page.click("[data-finding='0']")  # on the patient's left: right of the middle as radiologists hold it
    page.wait_for_timeout(300)

    def redness() -> tuple[int, int]:
        shown = "c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const n = [0, 0];"
        shown += "for (let i = 0, p = 0; i < d.length; i += 4, p++) if (d[i] > 150 && d[i + 1] < 140 && d[i + 2] < 140)"
        shown += " n[p % c.width < c.width / 2 ? 0 : 1]++; return n; }"
        left, right = page.eval_on_selector("#plane-axial", shown)
        return left, right

    left, right = redness()
    assert right > 10 * (left + 1)
    page.click("#convention")
    page.wait_for_timeout(300)
    left, right = redness()
    assert left > 10 * (right + 1)
    assert "Neurological" in page.inner_text("#convention")


def test_a_click_moves_the_crosshair_and_the_wheel_the_slice(open_page: Callable[..., Any]) -> None:
    page = ready(open_page())
    page.locator("#healthy-axial").scroll_into_view_if_needed()
    box = page.locator("#healthy-axial").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_timeout(200)
    first = seen(page)
    assert abs(first[0] - 19.5) <= 1
    assert abs(first[1] - 21.5) <= 1
    page.mouse.wheel(0, -100)
    page.wait_for_timeout(200)
    assert seen(page)[2] == first[2] + 1
    assert seen(page)[:2] == first[:2]


def test_a_doubt_has_a_band_and_a_remark_has_none(open_page: Callable[..., Any]) -> None:
    page = ready(open_page(qc={"flags": ["thick slices"]}))
    style = "e => { const s = getComputedStyle(e); return [s.color, s.backgroundColor, s.marginBottom]; }"
    ink = page.evaluate("getComputedStyle(document.body).color")
    colour, paper, below = page.eval_on_selector(".verdict.look", style)
    assert (colour, paper, below) == (ink, "rgb(255, 246, 229)", "16px")
    slide(page, 200)
    colour, paper, _ = page.eval_on_selector("p.look", style)
    assert (colour, paper) == ("rgb(138, 83, 0)", "rgba(0, 0, 0, 0)")
    widths = "(e) => [e.getBoundingClientRect().width, e.parentElement.getBoundingClientRect().width]"
    table, around = page.eval_on_selector("#live-findings", widths)
    assert table < around


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(open_page: Callable[..., Any], scheme: str) -> None:
    page = ready(open_page(color_scheme=scheme))
    colour = "getComputedStyle(document.body).backgroundColor"
    first = page.evaluate(colour)
    page.click("#theme")
    second = page.evaluate(colour)
    assert {first, second} == {"rgb(251, 251, 250)", "rgb(13, 16, 20)"}
    assert (first == "rgb(13, 16, 20)") == (scheme == "dark")


def test_a_phone_needs_no_sideways_scrolling(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.set_viewport_size({"width": 360, "height": 740})
    page.reload()
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.is_hidden("#healthy")


def test_the_page_of_many_scans_sorts_and_links(
    open_page: Callable[..., Any], make_scan: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "many #1"
    for name, ml in (("a", 1), ("b", 30), ("c", 4)):
        (folder / name).mkdir(parents=True)
        base = folder / name / f"{name}_desc-anomaly"
        Path(f"{base}_provenance.json").write_text(f'{{"scan": "{name}", "lesion_volume_ml": {ml}}}')
        Path(f"{base}_report.html").write_text(scan_html(make_scan(title=name).page), encoding="utf-8")
    page = open_page(write_index_page(folder, {"d": "a reason"}))
    names = "[...document.querySelectorAll('#scans tbody .name')].map((e) => e.textContent.trim())"
    assert page.evaluate(names) == ["b", "c", "a"]
    page.click("#scans th:nth-child(2) button")
    page.click("#scans th:nth-child(2) button")
    assert page.evaluate(names) == ["a", "b", "c"]
    tab_to(page, '#scans a[href^="c/"]')  # a scan is opened by keys, too
    assert has_ring(page)
    with page.expect_navigation():
        page.keyboard.press("Enter")
    ready(page)
    assert page.inner_text("h1") == "c"
