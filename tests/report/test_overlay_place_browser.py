"""Where a browser paints a lesion, and which letters it writes, against places worked out from world coordinates."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halebrain.core.mask import Cut
from halebrain.core.types import Lesion, ScanResult
from halebrain.report.display import display_grid
from halebrain.report.embedding import shown_scan, shown_volumes
from halebrain.report.scan_page import ScanPage, scan_html
from stated import provenance

pytestmark = pytest.mark.slow

# The first axis of the scan runs to the back, the second up, the third to the left.
SHAPE = (44, 36, 56)
AFFINE = np.array([[0.0, 0, -2.0, 62], [-2.5, 0, 0, 41], [0, 3.0, 0, -34], [0, 0, 0, 1]])
STEP_MM = np.array([2.0, 2.5, 3.0])
"""Voxel size along right, front and up."""
MIDDLE_MM = np.array([7.0, -12.0, 18.0])
LOW_MM, HIGH_MM = MIDDLE_MM + np.array([[9, -24, 5], [21, -8, 15]])
"""Corners of the lesion: on the right, at the back, above the middle."""
MARGIN_MM = 8.0
PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
"""Plane → world axes across and up."""
OVERLAYS = ["score", "findings", "mask", "probability", "residual", "uncertainty"]
PAINTED = """(canvas, cool) => {
  const { width, height } = canvas, edge = 26; // the letters stand there
  const d = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  let [left, top, right, bottom, count] = [width, height, -1, -1, 0];
  for (let y = edge; y < height - edge; y++) for (let x = edge; x < width - edge; x++) {
    const i = 4 * (y * width + x);
    const [red, green, blue] = [d[i], d[i + 1], d[i + 2]]; // the scan is grey, the crosshair blue
    if (cool ? green - Math.max(red, blue) < 10 : red - blue < 60) continue;
    left = Math.min(left, x); right = Math.max(right, x + 1); top = Math.min(top, y); bottom = Math.max(bottom, y + 1);
    count++;
  }
  return { size: width, box: [left, top, right, bottom], count };
}"""
LISTEN = """() => {
  const own = CanvasRenderingContext2D.prototype.fillText;
  window.letters = {};
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    (window.letters[this.canvas.id] ??= {})[text] = [x, y];
    own.call(this, text, x, y);
  };
}"""


@dataclass(frozen=True)
class Placed:
    """A page, and where brain and lesion lie in it: lower and upper edges in world mm."""

    path: Path
    brain_mm: np.ndarray
    lesion_mm: np.ndarray


def edges_mm(inside: np.ndarray) -> np.ndarray:
    """Return the lower and the upper edge of the voxels of a mask, in world mm."""
    places = np.argwhere(inside) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    return np.stack([places.min(axis=0) - STEP_MM / 2, places.max(axis=0) + STEP_MM / 2])


@pytest.fixture
def placed(tmp_path: Path) -> Placed:
    """Write the page of a ball of brain with one box in it."""
    voxels = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    world = voxels @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    brain = ((world - MIDDLE_MM) ** 2).sum(axis=-1) < 35**2
    lesion = ((world > LOW_MM) & (world < HIGH_MM)).all(axis=-1)
    assert (brain & lesion).sum() == lesion.sum() > 50
    scan, score = np.where(brain, 100, 0).astype(np.float32), np.where(lesion, 0.6, 0).astype(np.float32)
    i, j, k = (int(place) for place in np.round(np.argwhere(lesion).mean(axis=0)))
    score[i, j, k] = 1.0  # painted almost white; the others have a colour
    maps = ScanResult(score, score, scan, score, score, brain, AFFINE)
    grid = display_grid(AFFINE, brain)
    volumes = shown_volumes(maps, lesion, shown_scan(scan, brain, grid), grid, cut=Cut(0.5))
    finding = Lesion(1, 1.0, 1.0, 0.6, 0.0, 0.0, 0.0, i, j, k)
    made = provenance(
        scan="sub-01_FLAIR",
        threshold={"value": 0.5, "name": "fixed", "min_lesion_mm3": 0.0},
        qc={"flags": []},
        levels=[250],
    )
    assert made.threshold is not None
    page = ScanPage("sub-01_FLAIR", grid, volumes, [finding], made, made.threshold, None, b"\x89PNG")
    (tmp_path / "page.html").write_text(scan_html(page), encoding="utf-8")
    return Placed(tmp_path / "page.html", edges_mm(brain), edges_mm(lesion))


def expected_box(placed: Placed, plane: str, size: int, *, radiological: bool) -> np.ndarray:
    """Return left, top, right and bottom of the lesion on a canvas: the brain and its margin fill it, centred."""
    margin = np.ceil(MARGIN_MM / STEP_MM) * STEP_MM
    extent = placed.brain_mm[1] - placed.brain_mm[0] + 2 * margin
    scale, middle = size / extent.max(), placed.brain_mm.mean(axis=0)
    across, up = PLANES[plane]
    # As radiologists hold it the right is on the left; a side view looks to the left.
    sign = -1 if across == 1 or radiological else 1
    x = size / 2 + sign * (placed.lesion_mm[:, across] - middle[across]) * scale
    y = size / 2 - (placed.lesion_mm[:, up] - middle[up]) * scale
    return np.array([x.min(), y.min(), x.max(), y.max()])


def painted(page: Any, overlay: str, plane: str) -> dict[str, Any]:
    """Return the size of a canvas, and box and number of the pixels that an overlay gives a colour."""
    return dict(page.eval_on_selector(f"#plane-{plane}", PAINTED, overlay == "uncertainty"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_lesion_is_painted_where_it_is_and_nowhere_else(
    open_page: Callable[..., Any], placed: Placed, overlay: str
) -> None:
    page = open_page(placed.path)
    page.wait_for_selector("body[data-ready=yes]")
    page.evaluate(LISTEN)
    page.uncheck("#outline")
    page.select_option("#overlay", overlay)
    for radiological in (True, False):
        page.wait_for_timeout(300)
        letters = page.evaluate("window.letters")
        for plane in PLANES:
            found = painted(page, overlay, plane)
            size, box = found["size"], np.array(found["box"])
            expected = expected_box(placed, plane, size, radiological=radiological)
            np.testing.assert_allclose(box, expected, atol=1.6, err_msg=f"{plane}, radiological: {radiological}")
            # All of the box but its peak and the crosshair over it.
            assert 0.8 < found["count"] / np.prod(expected[2:] - expected[:2]) < 1.05
            # It lies to the right, at the back and up: on the side of these letters.
            side, height = (expected[0] + expected[2]) / 2 - size / 2, (expected[1] + expected[3]) / 2 - size / 2
            across, up = (letters[f"plane-{plane}"]["RPS"[axis]] for axis in PLANES[plane])
            assert (across[0] - size / 2) * side > 0
            assert (up[1] - size / 2) * height > 0
            assert min(abs(side), abs(height)) > 10, "off the middle, or a mirror image would be no other"
        page.click("#convention")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_opacity_paints_nothing(open_page: Callable[..., Any], placed: Placed, overlay: str) -> None:
    page = open_page(placed.path)
    page.wait_for_selector("body[data-ready=yes]")
    page.uncheck("#outline")
    page.select_option("#overlay", overlay)
    page.wait_for_timeout(300)
    assert all(painted(page, overlay, plane)["count"] > 100 for plane in PLANES)
    page.focus("#opacity")
    page.keyboard.press("Home")
    page.wait_for_timeout(300)
    assert [painted(page, overlay, plane)["count"] for plane in PLANES] == [0, 0, 0]


@pytest.mark.parametrize(
    ("overlay", "start", "end"),
    # Steps of 1/255, of which three are not shown; of a residual as large as its 99.9th percentile, in 127.
    [("probability", "0.0118", "1.00"), ("uncertainty", "0.0118", "1.00"), ("residual", "± 0.0189", "± 0.600")],
)
def test_a_map_is_shown_from_where_it_is_told(
    open_page: Callable[..., Any], placed: Placed, overlay: str, start: str, end: str
) -> None:
    page = open_page(placed.path)
    page.wait_for_selector("body[data-ready=yes]")
    assert page.is_hidden("#from"), "the score has its threshold"
    page.uncheck("#outline")
    page.select_option("#overlay", overlay)
    page.wait_for_selector(f"#from-value:text-is('{start}')")
    before = [painted(page, overlay, plane)["count"] for plane in PLANES]
    page.focus("#from")
    page.keyboard.press("PageUp")  # still below the 0.6 of the lesion
    page.wait_for_timeout(300)
    assert page.inner_text("#from-value") != start
    assert [painted(page, overlay, plane)["count"] for plane in PLANES] == before
    page.keyboard.press("End")
    page.wait_for_selector(f"#from-value:text-is('{end}')")
    assert page.get_attribute("#from", "aria-valuetext") == end
    # Of the probability and the uncertainty the peak is left, which is almost white.
    shown = [painted(page, overlay, plane)["count"] for plane in PLANES]
    assert shown == ([0, 0, 0] if overlay != "residual" else before)
    page.select_option("#overlay", "findings")
    page.wait_for_selector("#from", state="hidden")
    page.select_option("#overlay", overlay)
    page.wait_for_selector(f"#from-value:text-is('{end}')")  # each map keeps its own
