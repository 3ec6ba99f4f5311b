"""The page of a prepared data set."""

import re

import numpy as np
import pytest
from matplotlib import image as reader

from halebrain.report.quality_page import QualityRow, quality_picture, write_quality_page


def picture() -> bytes:
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (48, 56, 40)), indexing="ij")
    mask = i**2 + j**2 + k**2 < 0.8
    return quality_picture(np.where(mask, 0.6, 0).astype(np.float32), mask, mask.astype(np.float32))


def rows(count: int) -> list[QualityRow]:
    figures = [{"snr": 10.0 + n, "working_grid_mask_dice": 0.95, "lesion_volume_ml": None} for n in range(count)]
    return [QualityRow(f"sub-{n}_T1w", "T1w", own, ("look",) if n == 0 else ()) for n, own in enumerate(figures)]


def test_a_picture_is_small_and_shows_three_planes_with_both_outlines(tmp_path):
    data = picture()
    assert len(data) < 25_000
    (tmp_path / "p.jpg").write_bytes(data)
    pixels = np.asarray(reader.imread(tmp_path / "p.jpg"), dtype=int)
    assert pixels.shape == (112, 2 * (48 + 48 + 56) + 3 * 8, 3)
    red, blue = pixels[..., 0], pixels[..., 2]
    assert (blue - red > 40).any(), "the mask's outline"
    assert (red - blue > 40).any(), "the template's edges"


def test_the_page_shows_every_scan_in_the_order_given(tmp_path):
    write_quality_page(rows(4), {"sub-9_T1w": "no brain"}, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<div><b>(sub-\d)", page) == ["sub-0", "sub-1", "sub-2", "sub-3"]
    assert page.count("<circle") == 8, "two figures are defined for four scans"
    assert page.count('class="flagged"') == 2
    assert "no brain" in page
    assert "Research use only" in page
    assert "default-src 'none'" in page
    assert "http://" not in page
    assert "https://" not in page


@pytest.mark.parametrize(("count", "said"), [(1, "1 scan, 1 with"), (2, "2 scans, 1 with")])
def test_one_scan_is_told_as_one(tmp_path, count, said):
    write_quality_page(rows(count), {}, tmp_path / "index.html")
    assert f'<p class="lead">{said} a flag.' in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_names_and_reasons_are_escaped(tmp_path):
    row = QualityRow("<script>alert(1)</script>", "T1w", {"snr": 1.0}, ("<b>flag</b>",), picture())
    write_quality_page([row], {"<img src=x>": "<i>why</i>"}, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1, "its own"
    assert page.count('id="theme"') == 1
    for text in ("<b>flag", "<img src=x", "<i>why"):
        assert text not in page


def test_a_data_set_without_a_scan_still_has_its_failures(tmp_path):
    write_quality_page([], {"sub-1": "broken"}, tmp_path / "index.html")
    assert "broken" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_bars_are_not_called_dots(tmp_path, monkeypatch):
    monkeypatch.setattr("halebrain.report.dot_plot._MOST_DOTS", 2)
    write_quality_page(rows(4), {}, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<circle" not in page
    assert "Bars: the square root of the number of scans" in page
    assert "dot" not in re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
