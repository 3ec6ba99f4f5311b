"""The page of many scans: outliers first, failures with their reason, links that work from a disk."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from halebrain.core.about import NOTICE
from halebrain.core.errors import CannotWriteError, DataError
from halebrain.report import index_page
from halebrain.report.dot_plot import Dot, dot_plot, how_drawn
from halebrain.report.index_page import find_provenance, index_rows, names_of, write_index_page
from stated import provenance

THRESHOLDS = [{"value": 0.5, "name": "dice", "modality": name} for name in ("FLAIR", "T1w")]
EVIL = "<script>alert(1)</script>"


def detection(folder: Path, name: str, *, page: bool = True, **provenance: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {"scan": name, "qc": {"flags": []}, "n_lesions": 1, "lesion_volume_ml": 1.0} | provenance
    (folder / f"{name}_desc-anomaly_provenance.json").write_text(json.dumps(about))
    if page:
        (folder / f"{name}_desc-anomaly_report.html").write_text("page")
        (folder / f"{name}_desc-anomaly_thumbnail.jpg").write_bytes(b"\xff\xd8")


def written(folder: Path, failures: dict[str, str] | None = None) -> str:
    return write_index_page(folder, failures or {}).read_text(encoding="utf-8")


def test_outliers_come_first(tmp_path: Path) -> None:
    for name, percentile, score in (("a", 20.0, 0.2), ("b", 99.0, 0.8), ("c", 99.0, 0.9), ("d", None, None)):
        detection(tmp_path / name, name, scan_score=score, scan_score_percentile=percentile)
    assert [row.name for row in index_rows(tmp_path)] == ["c", "b", "a", "d"]


def test_without_scores_the_volume_orders(tmp_path: Path) -> None:
    for name, volume in (("a", 1.0), ("b", 30.0), ("c", 0.0)):
        detection(tmp_path / name, name, lesion_volume_ml=volume)
    assert [row.name for row in index_rows(tmp_path)] == ["b", "a", "c"]


def test_links_pictures_and_failures(tmp_path: Path) -> None:
    detection(tmp_path / "sub-01" / "anat", "scan 7#1")
    detection(tmp_path / "old", "old", page=False)
    text = written(tmp_path, {"broken": "a scan must have varying intensities, got an image that is empty"})
    link = "sub-01/anat/scan%207%231_desc-anomaly_report.html"
    assert f'<a href="{link}">scan 7#1</a>' in text
    assert 'src="sub-01/anat/scan%207%231_desc-anomaly_thumbnail.jpg"' in text
    assert "<td>a scan must have varying intensities, got an image that is empty</td>" in text
    assert "1 failed" in text
    assert text.count("<img") == 1
    assert text.count(NOTICE) == 1


def test_one_scan_is_told_as_one(tmp_path: Path) -> None:
    detection(tmp_path / "a", "a")
    text = written(tmp_path)
    assert "<title>1 scan – HaleBrain</title>" in text
    assert "1 scan, 0 with a flag" in text
    detection(tmp_path / "b", "b")
    assert "<title>2 scans – HaleBrain</title>" in written(tmp_path)


def test_a_detection_is_named_by_its_scan(tmp_path: Path) -> None:
    detection(tmp_path / "sub-01", "sub-01_rec-FLAIR", scan="sub-01_FLAIR")
    for run in "ab":
        detection(tmp_path / run, "twice")
    detection(tmp_path, "damaged")
    (tmp_path / "damaged_desc-anomaly_provenance.json").write_text("{")
    found = find_provenance(tmp_path)
    assert sorted(names_of(found, tmp_path).values()) == ["a/twice", "b/twice", "damaged", "sub-01_FLAIR"]


def test_half_written_results_are_not_listed(tmp_path: Path) -> None:
    detection(tmp_path / ".part-x", "half")
    detection(tmp_path / "whole", "whole")
    assert [row.name for row in index_rows(tmp_path)] == ["whole"]


def test_every_text_is_escaped(tmp_path: Path) -> None:
    detection(
        tmp_path / "a", "a", scan=EVIL, qc={"flags": [EVIL]}, threshold={"value": 0.5, "name": EVIL, "modality": EVIL}
    )
    text = written(tmp_path, {EVIL: EVIL})
    assert "<script>alert" not in text
    assert text.count("<script") == 1
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:|url\(|@import""", text)


def test_flags_and_doubt(tmp_path: Path) -> None:
    detection(
        tmp_path / "a",
        "a",
        qc={"flags": ["thick slices"], "out_of_distribution": True, "out_of_distribution_reasons": ["a T1"]},
    )
    detection(tmp_path / "b", "b")
    text = written(tmp_path)
    assert "2 scans, 1 with a flag" in text
    assert text.count('<tr class="stop">') == 1
    assert text.index("a T1") < text.index("thick slices")


def test_places_among_healthy_scans_lie_on_a_line_of_a_hundred(tmp_path: Path) -> None:
    detection(tmp_path / "a", "a", scan_score=0.3, scan_score_percentile=50.0)
    text = written(tmp_path)
    assert "healthy scans with a lower score, %" in text
    assert 'cx="150.0"' in text


def test_scores_lie_beside_those_of_healthy_scans_of_the_same_contrast(tmp_path: Path) -> None:
    flair, t1w = ({"threshold": {"value": 0.5, "name": "dice", "modality": name}} for name in ("FLAIR", "T1w"))
    known = {"scan_score_n_healthy": 5, "scan_score_healthy": [0.0, 0.2, 0.3, 0.4, 0.5]}
    detection(tmp_path / "a", "a", scan_score=0.75, **flair, **known)
    detection(tmp_path / "b", "b", scan_score=1.0, **flair, **known)
    detection(tmp_path / "c", "c", scan_score=0.3, **t1w)  # without healthy scores, as older results are
    text = written(tmp_path)
    strip, other = re.findall(r"<div><b>scan-level score, .*?</div>", text, re.DOTALL)
    assert "5 healthy scans: median score 0.300, maximum 0.500" in strip
    assert strip.count("<circle") == 2
    assert re.findall(r'class="healthy" x1="([\d.]+)"', strip) == ["8.0", "64.8", "93.2", "121.6", "150.0"]
    assert sorted(re.findall(r'cx="([\d.]+)"', strip)) == ["221.0", "292.0"]
    assert "T1w" in other
    assert 'class="healthy"' not in other


@pytest.mark.parametrize("told", ["0.1", {"a": 1}, [None, "x"], None])
def test_healthy_scores_that_are_none_are_named(tmp_path: Path, told: object) -> None:
    detection(tmp_path / "a", "a", scan_score=0.75, scan_score_healthy=told)
    with pytest.raises(DataError, match=r"scan_score_healthy.* in '.*a_desc-anomaly_provenance"):
        written(tmp_path)


def test_an_own_index_is_replaced_and_another_is_not(tmp_path: Path) -> None:
    detection(tmp_path / "a", "a")
    written(tmp_path)
    detection(tmp_path / "b", "b")
    assert "2 scans" in written(tmp_path)
    (tmp_path / "index.html").write_text("<p>mine</p>")
    with pytest.raises(CannotWriteError, match="another page"):
        write_index_page(tmp_path, {})
    assert (tmp_path / "index.html").read_text() == "<p>mine</p>"


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_broken_provenance_is_named(tmp_path: Path, text: str) -> None:
    detection(tmp_path / "a", "a")
    (tmp_path / "a" / "a_desc-anomaly_provenance.json").write_text(text)
    with pytest.raises(DataError, match="a_desc-anomaly_provenance"):
        index_rows(tmp_path)


def paged(monkeypatch: pytest.MonkeyPatch, folder: Path, count: int) -> str:
    """Write the page of scans of which two are drawn at once."""
    monkeypatch.setattr(index_page, "_MOST_AT_ONCE", 2)
    monkeypatch.setattr(index_page, "_PER_PAGE", 2)
    for number in range(count):
        name, flags = f"scan{number}", ["thick slices"] if number % 2 else [EVIL]
        detection(folder / name, name, scan_score=number / 10, qc={"flags": flags}, page=number != 1)
    return written(folder)


def test_the_table_of_very_many_scans_has_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = paged(monkeypatch, tmp_path, 5)
    assert "<title>5 scans – HaleBrain</title>" in text
    # The first page is in the table itself, for browsers without scripts.
    assert re.findall(r'<a href="[^"]+">(scan\d)</a>', text) == ["scan4", "scan3"]
    data = json.loads(re.findall(r'id="rows">(.*?)</script>', text)[0])
    assert data["flags"] == [EVIL, "thick slices"]
    assert (data["columns"], data["perPage"]) == (["score", "ml", "findings"], 2)
    assert data["rows"][0] == ["scan4", "", "scan4/scan4_desc-anomaly_", 3, ["0.400", "1.00", "1"], [0]]
    assert data["rows"][3] == ["scan1", "", "", 0, ["0.100", "1.00", "1"], [1]]
    assert len(data["rows"]) == 5
    assert "<script>alert" not in text


@pytest.mark.slow
def test_pages_of_the_table_are_turned_sorted_and_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Any
) -> None:
    paged(monkeypatch, tmp_path, 5)
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "index.html").as_uri())

    def shown() -> list[str]:
        return page.eval_on_selector_all("#scans td.name", "cells => cells.map((cell) => cell.textContent)")

    assert (shown(), page.inner_text("#place")) == (["scan4", "scan3"], "1 to 2 of 5")
    assert page.get_attribute("#scans img", "loading") == "lazy"
    assert page.get_attribute("#scans a", "href") == "scan4/scan4_desc-anomaly_report.html"
    page.click("#next")
    page.click("#next")
    assert (shown(), page.inner_text("#place")) == (["scan0"], "5 to 5 of 5")
    assert page.is_disabled("#next")
    page.click('#scans th button:has-text("score")')
    page.click('#scans th button:has-text("score")')
    assert (shown(), page.inner_text("#place")) == (["scan0", "scan1"], "1 to 2 of 5")
    page.fill("#find", "THICK scan")
    assert (shown(), page.inner_text("#place")) == (["scan1", "scan3"], "1 to 2 of 2")
    page.fill("#find", "nothing")
    assert (shown(), page.inner_text("#place")) == ([], "no scan")
    assert errors == []
    page.close()


def test_very_many_dots_become_bars() -> None:
    strip = dot_plot("x", [Dot(str(n), n % 100, n == 99) for n in range(1100)])
    assert strip["dots"] == []
    bars = [bar for bar in strip["bars"] if not bar["flagged"]]
    assert sum(bar["count"] for bar in bars) == 1100
    flagged = [bar for bar in strip["bars"] if bar["flagged"]]
    assert [bar["count"] for bar in flagged] == [1]
    assert flagged[0]["x"] == bars[-1]["x"]
    assert max(float(bar["height"]) for bar in bars) == 16.0


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((3,), "One dot per exam; flagged ones in red."),
        ((1100,), "Bars: the square root of the number of exams; flagged ones in red."),
        (
            (3, 1100),
            "One dot per exam; where there are more than 1000, bars: the square root of the number of exams; flagged "
            "ones in red.",
        ),
    ],
)
def test_the_caption_states_what_is_drawn(counts: tuple[int, ...], said: str) -> None:
    strips = [dot_plot("x", [Dot(str(n), n % 100, False) for n in range(count)]) for count in counts]
    assert how_drawn(strips, "exam") == said


def test_bars_of_few_scans_with_a_figure_are_dots_in_the_caption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("halebrain.report.dot_plot._MOST_DOTS", 2)
    for number in range(3):
        detection(tmp_path / f"{number}", f"{number}", scan_score=0.1 * number, threshold=THRESHOLDS[number // 2])
    text = written(tmp_path)
    assert "<circle" in text
    assert "<rect" in text
    assert "One dot per scan; where there are more than 2, bars: the square root" in text


def test_a_page_of_exams_speaks_of_exams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_page, "read_exam_provenance", lambda _: SimpleNamespace(as_of_scan=stated))
    stated = provenance(scan="sub-01", scan_score=0.5, scan_score_percentile=50.0, threshold=THRESHOLDS[0])
    (tmp_path / "sub-01_desc-exam_provenance.json").write_text("{}")
    text = written(tmp_path)
    assert "exam-level score, FLAIR" in text
    assert "healthy exams with a lower score, %" in text
    assert "healthy scans" not in text


def test_dots_of_one_place_do_not_hide_each_other() -> None:
    strip = dot_plot("n_x", [Dot("a", 1.0, False), Dot("b", 1.0, True), Dot("c", 3.0, False)])
    assert strip["name"] == "n x"
    assert (strip["low"], strip["high"]) == ("1", "3")
    places = {(dot["x"], dot["y"]) for dot in strip["dots"]}
    assert len(places) == 3
    assert {dot["x"] for dot in strip["dots"]} == {"8.0", "292.0"}
