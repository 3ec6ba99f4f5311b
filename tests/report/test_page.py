"""The page: everything escaped, nothing loaded from elsewhere, the notice once."""

import html
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from halebrain.report.figures import DISCLAIMER
from halebrain.report.page import Page, Section, interactive_view, write_page

EVIL = "<script>alert(1)</script>"
OUTSIDE = re.compile(r"""(src|href)\s*=\s*["']?https?://|url\(\s*["']?https?:|@import""")


def written(page: Page, folder: Path) -> str:
    write_page(page, folder / "index.html")
    return (folder / "index.html").read_text(encoding="utf-8")


def test_every_text_is_escaped(tmp_path: Path) -> None:
    section = Section(EVIL, text=[EVIL], caption=EVIL, header=(EVIL,), rows=[[EVIL]], figure=Figure())
    page = Page(EVIL, EVIL, numbers=[(EVIL, EVIL)], sections=[section], provenance={"x": EVIL})
    text = written(page, tmp_path)
    assert text.count("<script") == 1, "its own, for light and dark"
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;") >= 9
    assert text.count("data:image/png;base64,") == 1


def test_links_lead_beside_the_page(tmp_path: Path) -> None:
    text = written(Page("t", "l", sections=[Section("s", links=[(EVIL, 'a b#1/"c.html')])]), tmp_path)
    assert '<a href="a%20b%231/%22c.html">&lt;script&gt;alert(1)&lt;/script&gt;</a>' in text


def test_it_can_be_switched_between_light_and_dark(tmp_path: Path) -> None:
    text = written(Page("t", "l"), tmp_path)
    assert text.count('id="theme"') == 1
    assert 'getElementById("theme")' in text


def test_the_notice_stands_once(tmp_path: Path) -> None:
    text = written(Page("t", "l", sections=[Section("s", figure=Figure())]), tmp_path)
    visible = re.sub(r"<[^>]*>", "", text)
    assert visible.count(DISCLAIMER) == text.count(DISCLAIMER) == 1


def test_what_is_not_given_is_not_shown(tmp_path: Path) -> None:
    text = written(Page("t", "l", sections=[Section("s")]), tmp_path)
    for tag in ("<table", "<img", "<iframe", "<details"):
        assert tag not in text


@pytest.fixture(scope="module")
def viewer() -> str:
    rng = np.random.default_rng(0)
    score = np.zeros((20, 20, 20), dtype=np.float32)
    score[8:12, 8:12, 8:12] = 0.8
    return interactive_view(
        rng.random((20, 20, 20)).astype(np.float32), score, np.diag([4.0, 4, 4, 1]), threshold=0.3, title="a scan"
    )


# nilearn tells how its own defaults will change.
@pytest.mark.filterwarnings("ignore::UserWarning:nilearn.*")
def test_the_interactive_view_needs_no_network(tmp_path: Path, viewer: str) -> None:
    assert "<script" in viewer
    assert not OUTSIDE.search(viewer)
    text = written(Page("t", "l", sections=[Section("s", viewer=viewer)]), tmp_path)
    assert text.count("<iframe") == 1
    assert text.count("<script") == 1  # its own: the viewer is an attribute's value, escaped
    assert not OUTSIDE.search(html.unescape(text))
    assert "default-src 'none'" in text
    attribute = re.search(r'srcdoc="([^"]*)"', text)
    assert attribute is not None
    assert html.unescape(attribute[1]) == viewer


def test_the_view_takes_a_score_of_nothing() -> None:
    zeros = np.zeros((20, 20, 20), dtype=np.float32)
    scan = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    assert "<script" in interactive_view(scan, zeros, np.diag([4.0, 4, 4, 1]), threshold=0.3, title="x")
