"""Volumes inside a page come out as they went in, and the score tells exactly where its threshold is reached."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.mask import Cut
from halebrain.report.embedding import (
    ShownVolume,
    decode,
    read_page,
    read_scan_file,
    scan_file,
    score_codes,
    shown_volumes,
    threshold_level,
)
from halebrain.report.scan_page import scan_html


def test_codes_come_out_as_they_went_in() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    volume = ShownVolume(codes, 0.25, -3.0, (1.0, 2.0, 5.0))
    back = decode(volume.encoded(), volume.about())
    np.testing.assert_array_equal(back.codes, codes)
    np.testing.assert_allclose(back.values, codes * 0.25 - 3.0)
    assert back.spacing_mm == (1.0, 2.0, 5.0)


def test_a_scan_is_stored_beside_its_page(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    scan, path = ShownVolume(codes, 1 / 3, -0.1, (1.0, 1.1, 5.0)), tmp_path / "scan.npz"
    path.write_bytes(scan_file(scan))
    back = read_scan_file(path)
    np.testing.assert_array_equal(back.codes, codes)
    assert (back.scale, back.offset, back.spacing_mm) == (scan.scale, scan.offset, scan.spacing_mm)
    np.savez(path, codes=codes)
    with pytest.raises(DataError, match="intact"):
        read_scan_file(path)


@pytest.mark.parametrize("text", ["", "AAAA", "not base64 at all!", "H4sIAAAAAAAC/w=="])
def test_a_damaged_volume_is_said(text: str) -> None:
    with pytest.raises(DataError, match="intact"):
        decode(text, {"shape": [2, 2, 2], "spacing_mm": [1, 1, 1], "scale": 1, "offset": 0})


@given(st.floats(0.01, 1.5), st.integers(0, 2**32 - 1), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_code_reaches_the_threshold_exactly_where_the_score_does(threshold: float, seed: int, top: float) -> None:
    score = (top * np.random.default_rng(seed).random(500)).astype(np.float32).reshape(10, 10, 5)
    score[0, 0, 0] = threshold  # rounded to single precision: on either side of it
    shown = score_codes(score, Cut(threshold), (1.0, 1.0, 1.0))
    level = threshold_level(shown, threshold)
    assert 1 <= level <= 255
    np.testing.assert_array_equal(shown.codes >= level, score.astype(np.float64) >= threshold)
    assert shown.offset + level * shown.scale == pytest.approx(threshold)
    inside = (shown.codes > 0) & (shown.codes < 255)
    below = score[inside] - shown.values[inside]
    assert below.min() > -1e-5
    assert below.max() < shown.scale + 1e-5


def test_a_page_holds_what_it_shows(make_scan: Callable[..., Any], tmp_path: Path) -> None:
    made = make_scan()
    path = tmp_path / "page.html"
    path.write_text(scan_html(made.page), encoding="utf-8")
    data, volumes = read_page(path)
    assert set(volumes) == {"scan", "healthy", "score", "mask", "probability", "residual", "uncertainty"}
    for name, volume in made.page.volumes.items():
        np.testing.assert_array_equal(volumes[name].codes, volume.codes)
    grid = made.page.grid
    cropped = grid.crop(made.scan)
    np.testing.assert_allclose(np.minimum(cropped, volumes["scan"].values.max()), volumes["scan"].values, atol=0.25)
    np.testing.assert_array_equal(volumes["mask"].codes > 0, grid.crop(made.mask) > 0)
    np.testing.assert_allclose(volumes["residual"].values, grid.crop(made.maps.residual), atol=2e-3)
    assert data["threshold"]["value"] == 0.5
    assert data["name"] == "sub-01_FLAIR"


def test_a_scan_on_another_grid_is_refused(make_scan: Callable[..., Any]) -> None:
    made = make_scan()
    other = ShownVolume(np.zeros((4, 4, 4), dtype=np.uint8), 1.0, 0.0, (2.0, 2.0, 2.0))
    with pytest.raises(DataError, match="grid of its maps"):
        shown_volumes(made.maps, made.mask, other, made.page.grid, cut=Cut(0.5))


def test_what_is_no_page_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        read_page(tmp_path / "none.html")
    (tmp_path / "other.html").write_text("<p>hello</p>")
    with pytest.raises(DataError, match="no known volume"):
        read_page(tmp_path / "other.html")
