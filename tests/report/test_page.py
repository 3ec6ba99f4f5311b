"""The page: everything escaped, nothing loaded from elsewhere, the notice once."""

import html
import re
from pathlib import Path

from matplotlib.figure import Figure

from halebrain.core.about import NOTICE
from halebrain.report.page import Page, Section, write_page

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
    assert visible.count(NOTICE) == text.count(NOTICE) == 1


def test_what_is_not_given_is_not_shown(tmp_path: Path) -> None:
    text = written(Page("t", "l", sections=[Section("s")]), tmp_path)
    for tag in ("<table", "<img", "<iframe", "<details"):
        assert tag not in text


VIEWER = '<!doctype html><html><body><p class="a">1 &lt; 2</p><script>"use strict";</script></body></html>'


def test_a_viewer_is_framed_as_it_is_and_fetches_nothing(tmp_path: Path) -> None:
    text = written(Page("t", "l", sections=[Section("s", viewer=VIEWER)]), tmp_path)
    assert text.count("<iframe") == 1
    assert text.count("<script") == 1  # its own: the viewer is an attribute's value, escaped
    assert not OUTSIDE.search(html.unescape(text))
    assert "default-src 'none'" in text
    attribute = re.search(r'srcdoc="([^"]*)"', text)
    assert attribute is not None
    assert html.unescape(attribute[1]) == VIEWER
