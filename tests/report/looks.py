"""What a person needs of any page, asked of the browser: text that stands out, nothing aside, a ring at the keys."""

from typing import Any

LEAST_CONTRAST = 4.5
"""WCAG 2.2, success criterion 1.4.3, for text of any size."""
LAPTOPS = (1280, 1024)
_CONTRASTS = """() => {
  const sheet = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  const linear = (v) => (v <= 10 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4);
  const over = (colour) => { // paints it over what is there, and returns how light that is
    sheet.fillStyle = colour;
    sheet.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...sheet.getImageData(0, 0, 1, 1).data].map(linear);
    return .2126 * r + .7152 * g + .0722 * b + .05;
  };
  const contrast = (e) => {
    const around = ["#fff"];
    for (let at = e; at; at = at.parentElement) around.splice(1, 0, getComputedStyle(at).backgroundColor);
    const paper = around.map(over).at(-1);
    const ink = over(getComputedStyle(e)[e instanceof SVGElement ? "fill" : "color"]);
    return Math.max(ink, paper) / Math.min(ink, paper);
  };
  const hasText = (e) => [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const isField = (e) => e.matches("select, input:not([type=range], [type=checkbox])");
  const isSeen = (e) => e.checkVisibility() && !e.matches("option, title, :disabled, :disabled *");
  document.querySelectorAll("details").forEach((e) => { e.open = true; });
  return [...document.querySelectorAll("body *")].filter((e) => (hasText(e) || isField(e)) && isSeen(e)).map((e) => {
    const text = (isField(e) ? e.value : e.textContent).trim().slice(0, 40);
    return [`${e.localName} #${e.id} .${e.getAttribute("class")} ${text}`, contrast(e)];
  });
}"""
_RING = """() => {
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return outlineStyle === "solid" && parseFloat(outlineWidth) >= 2;
}"""


def contrasts(page: Any) -> dict[str, float]:
    """Return the contrast of every text that is seen and not disabled, by element and text."""
    return dict(page.evaluate(_CONTRASTS))


def assert_readable(page: Any, *selectors: str) -> None:
    """Check every text that is seen; `selectors` must be among them, or the check would miss what it is for."""
    found = contrasts(page)
    assert len(found) >= 3
    assert {text: round(ratio, 2) for text, ratio in found.items() if ratio < LEAST_CONTRAST} == {}
    for selector in selectors:
        assert page.locator(f"{selector} >> visible=true").count(), selector


def assert_nothing_aside(page: Any, *widths: int) -> None:
    """Check that no window of these widths has to be scrolled sideways."""
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, width


def has_ring(page: Any) -> bool:
    """Return whether it is seen where the keys go."""
    return bool(page.evaluate(_RING))


def tab_to(page: Any, selector: str, *, most: int = 60) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(s) => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")
