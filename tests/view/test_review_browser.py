"""A review in a real browser, through the server: decisions, notes, keys, and a threshold that is saved."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.looks import LAPTOPS, assert_nothing_aside, assert_readable, tab_to

from halebrain.inference.lesions import read_lesions
from halebrain.inference.outputs import OutputNames
from halebrain.view.review import read_review
from halebrain.workflows.pages import write_index

pytestmark = pytest.mark.slow
WAIT_MS = 60_000


@pytest.fixture
def open_visit(browser: Any, visit: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Open a folder by its address; what a page complains of, or asks of another server, fails the test."""
    contexts, complaints = [], []

    def go(folder: Path, **settings: Any) -> Any:
        visitor = visit(folder)
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        own = f"http://{visitor.host}/"
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: None if asked.url.startswith(own) else complaints.append(asked.url))
        page.goto(visitor.access.address(visitor.access.ticket()))
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []


def ready(page: Any) -> Any:
    page.wait_for_selector("body[data-review=yes]")
    return page


def slide(page: Any, score: float) -> None:
    """Move the threshold to the first step that is not below a score."""
    move = "(e, v) => { const s = JSON.parse(document.getElementById('page-data').textContent).volumes.score;"
    move += "e.value = Math.ceil((v - s.offset) / s.scale - 1e-6); e.dispatchEvent(new Event('input')); }"
    page.eval_on_selector("#threshold", move, score)
    page.wait_for_selector("#unsaved:not([hidden])")


def test_a_finding_is_rejected_with_a_note_and_stays_so(open_visit: Callable[..., Any], detection: OutputNames) -> None:
    page = ready(open_visit(detection.folder))
    assert "token" not in page.url
    assert page.is_hidden("#save-mask")
    slide(page, 0.75)
    page.wait_for_selector("#live[data-count='2']")
    assert page.locator("#live-findings tbody tr").count() == 2
    # About the same names as in the table on disk, which looks at finer voxels.
    exact = [row.region for row in read_lesions(detection.file("anomaly", "lesions", ".tsv"))][:2]
    rough = page.locator("#live-findings tbody td.region").all_text_contents()
    assert [name.removesuffix(", and further") for name in rough] == [n.removesuffix(", and further") for n in exact]
    assert page.is_visible("#live-region")
    assert page.is_hidden("#written")
    assert page.is_hidden("#reject")
    assert page.is_enabled("#save-mask")
    page.fill("#minimum", "200")
    page.wait_for_selector("#live[data-count='1']")
    assert page.locator("#live-findings tbody tr").count() == 1
    page.click("#as-written")
    page.click("[data-finding='1']")
    page.wait_for_selector("#position:text-is('finding 2 of 3')")
    page.fill("#note", 'a <b>"vessel"</b>')
    page.click("#reject")
    page.wait_for_selector("#findings tbody tr:nth-child(2).rejected .badge:text-is('rejected')")
    page.wait_for_selector("#review-said:has-text('1 of 3 decided')")
    page.reload()
    ready(page)
    row = page.locator("#findings tbody tr:nth-child(2)")
    assert row.get_attribute("class") == "rejected"
    assert "rejected" in row.inner_text()
    assert 'a <b>"vessel"</b>' in row.inner_text()
    assert "line-through" in row.locator("td").nth(1).evaluate("e => getComputedStyle(e).textDecorationLine")
    assert page.locator("#findings tbody tr:nth-child(1)").get_attribute("class") == ""
    known = read_review(detection.review)
    assert [(d.lesion, d.decision, d.note) for d in known] == [(2, "rejected", 'a <b>"vessel"</b>')]


def test_a_review_needs_no_mouse(open_visit: Callable[..., Any], detection: OutputNames) -> None:
    page = ready(open_visit(detection.folder))
    page.keyboard.press("a")
    page.wait_for_selector("#findings tbody tr:nth-child(1).accepted")
    page.keyboard.press("n")
    page.wait_for_selector("#position:text-is('finding 2 of 3')")
    page.keyboard.press("e")
    page.keyboard.type("near a sinus: arrow nose")  # letters that are keys elsewhere
    page.keyboard.press("Enter")
    page.wait_for_selector("#findings tbody tr:nth-child(2) .said:text-is('near a sinus: arrow nose')")
    assert page.evaluate("document.activeElement.id") == "plane-axial"
    page.keyboard.press("r")
    page.wait_for_selector("#findings tbody tr:nth-child(2).rejected")
    page.keyboard.press("Shift+N")
    page.wait_for_selector("#position:text-is('finding 3 of 3')")
    page.keyboard.press("e")
    page.keyboard.type("no")
    page.keyboard.press("Escape")
    assert page.input_value("#note") == ""
    page.keyboard.press("p")
    page.wait_for_selector("#position:text-is('finding 2 of 3')")
    page.keyboard.press("u")
    page.wait_for_selector("#findings tbody tr:nth-child(2):not(.rejected)")
    page.keyboard.press("?")
    assert "accept, reject the finding" in page.inner_text("#keys")
    page.keyboard.press("Escape")
    found = [(d.lesion, d.decision, d.note) for d in read_review(detection.review)]
    assert found == [(1, "accepted", ""), (2, "open", "near a sinus: arrow nose")]


def test_a_threshold_is_saved_by_keys_and_earlier_decisions_are_told(
    open_visit: Callable[..., Any], detection: OutputNames
) -> None:
    page = ready(open_visit(detection.folder))
    page.keyboard.press("a")
    page.wait_for_selector("#findings tbody tr:nth-child(1).accepted")
    tab_to(page, "#threshold")
    while page.get_attribute("#live", "data-count") != "1":
        page.keyboard.press("PageUp")
        page.wait_for_timeout(300)
    score = float(page.inner_text("#threshold-value"))
    tab_to(page, "#save-mask")
    page.keyboard.press("Enter")
    assert "1 finding." in page.inner_text("#save-what")
    assert page.is_hidden("#save-seg")
    page.keyboard.press("Escape")
    page.wait_for_selector("#save-dialog", state="hidden")
    page.keyboard.press("Enter")  # the button has the focus again
    page.wait_for_selector("#save-yes")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    ready(page)
    assert "(as saved)" in page.inner_text("#live")
    assert page.locator("#findings tbody tr").count() == 1
    assert page.locator("#findings tbody tr").first.get_attribute("class") == ""
    assert "was accepted" in page.inner_text("#review-earlier")
    threshold = json.loads(detection.provenance.read_text())["threshold"]
    assert threshold["value"] == pytest.approx(score, abs=0.001)
    assert threshold["name"] == "fixed"


def test_a_dicom_seg_that_goes_is_told_before(open_visit: Callable[..., Any], detection: OutputNames) -> None:
    detection.segmentation.write_bytes(b"of the old mask")
    page = ready(open_visit(detection.folder))
    slide(page, 0.85)
    page.keyboard.press("s")
    assert "DICOM-SEG of the old mask is removed" in page.inner_text("#save-seg")


def test_many_scans_lead_there_and_back(
    open_visit: Callable[..., Any], tmp_path: Path, make_detection: Callable[..., OutputNames]
) -> None:
    make_detection(tmp_path / "many" / "sub-01", "sub-01_FLAIR")
    write_index(tmp_path / "many", (), {})
    page = open_visit(tmp_path / "many")
    page.click("#scans a")
    ready(page)
    page.keyboard.press("r")
    page.wait_for_selector("#findings tbody tr:nth-child(1).rejected")
    page.click("#to-index a")
    page.wait_for_selector(".reviewed:has-text('1 of 3 reviewed')")
    assert_readable(page, ".reviewed")
    assert_nothing_aside(page, *LAPTOPS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_that_a_review_says_can_be_read(
    open_visit: Callable[..., Any], detection: OutputNames, scheme: str
) -> None:
    page = ready(open_visit(detection.folder, color_scheme=scheme))
    page.keyboard.press("a")
    page.wait_for_selector("#findings tbody tr:nth-child(1).accepted")
    page.keyboard.press("n")
    page.fill("#note", "a vessel")
    page.click("#reject")
    page.wait_for_selector("#findings tbody tr:nth-child(2).rejected .said")
    decided = (".badge.accepted", ".badge.rejected", "tr.rejected td.reviewed .said", "#reject[aria-pressed=true]")
    assert_readable(page, *decided, "#review-said", "#note")
    assert_nothing_aside(page, *LAPTOPS)
    slide(page, 0.85)
    page.wait_for_selector("#live[data-count='1']")
    page.keyboard.press("s")
    assert_readable(page, "#save-mask", "#save-yes", "#save-what", "#live-findings")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page = ready(page)
    page.eval_on_selector("#review-said", "(e) => { e.className = 'wrong'; e.textContent = 'Not saved.'; }")
    assert_readable(page, "#review-earlier", "#review-said.wrong")
    page.keyboard.press("a")
    page.wait_for_selector("#accept[aria-pressed=true]")
    assert_readable(page, "#accept[aria-pressed=true]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_too(open_visit: Callable[..., Any], detection: OutputNames, scheme: str) -> None:
    page = open_visit(detection.folder, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    ready(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.click("#reject")
    page.wait_for_selector("#findings tbody tr:nth-child(1).rejected")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
