"""A scan's page by keys alone: Tab reaches every control, a ring shows where it is, and each does what it is for."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.report.looks import has_ring, tab_to

pytestmark = pytest.mark.slow
NAMED = "const named = (e) => e.id || e.getAttribute('aria-label') || e.textContent.trim();"
CONTROLS = f"""() => {{ {NAMED}
  const all = document.querySelectorAll("a[href], button, select, input, summary, [tabindex='0']");
  return [...all].filter((e) => e.checkVisibility() && !e.disabled).map(named);
}}"""
FOCUSED = f"() => {{ {NAMED} return document.activeElement === document.body ? '' : named(document.activeElement); }}"


def test_tab_reaches_every_control_in_the_order_of_the_page(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.wait_for_selector("body[data-ready=yes]")
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate(FOCUSED)
        if not name or name in reached:
            break
        assert has_ring(page), name
        reached.append(name)
        if name == "overlay":  # from here on there is "show from"
            for _ in range(3):
                page.keyboard.press("ArrowDown")
            page.wait_for_selector("#from")
        if name == "threshold":
            page.keyboard.press("ArrowRight")
            page.wait_for_selector("#as-written:enabled")
    wanted = page.evaluate(CONTROLS)
    assert {"theme", "overlay", "opacity", "from", "threshold", "minimum", "as-written", "plane-axial"} < set(wanted)
    # What scrolls can be reached by Tab, too.
    assert [name for name in reached if name in wanted] == wanted


def test_controls_answer_to_keys(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.wait_for_selector("body[data-ready=yes]")
    tab_to(page, "#theme")
    page.keyboard.press("Enter")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 16, 20)"
    tab_to(page, "#overlay")
    for _ in range(3):
        page.keyboard.press("ArrowDown")
    assert page.input_value("#overlay") == "probability"
    page.wait_for_selector("#from")
    for slider in ("opacity", "from", "threshold", "brightness", "contrast", "slice-axial"):
        tab_to(page, f"#{slider}")
        before, said = float(page.input_value(f"#{slider}")), page.inner_text("#viewer")
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(200)
        assert float(page.input_value(f"#{slider}")) > before, slider
        assert slider in ("brightness", "contrast") or page.inner_text("#viewer") != said, slider
    tab_to(page, "#as-written")
    page.keyboard.press("Enter")
    page.wait_for_selector("#live:has-text('as saved')")
    tab_to(page, "[data-finding='1']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#position:text-is('finding 2 of 2')")
