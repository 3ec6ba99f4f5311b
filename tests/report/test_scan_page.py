"""The page of a scan: every text escaped, nothing fetched, small, well-formed; doubt comes before figures."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halebrain.core.about import NOTICE
from halebrain.core.mask import Cut
from halebrain.core.types import FloatArray, Lesion, ScanResult
from halebrain.inference.outputs import OutputNames
from halebrain.report.display import FINE_MM, display_grid
from halebrain.report.embedding import shown_scan
from halebrain.report.page import script_json
from halebrain.report.scan_page import quality_facts, scan_html
from halebrain.report.scan_pictures import page_mosaic, thumbnail
from halebrain.workflows.pages import render
from stated import report

EVIL = "</script><script>alert(1)</script><!--"
VOID = {"meta", "input", "img", "br", "link", "hr", "rect", "circle", "line"}
Maker = Callable[..., Any]


class Reader(HTMLParser):
    """Checks that elements nest, and gathers ids, scripts and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        about = dict(attrs)
        self.tags.append((tag, about))
        if about.get("id"):
            self.ids.append(str(about["id"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    return reader


def test_the_page_is_well_formed_and_every_control_has_a_name(make_scan: Maker) -> None:
    html = scan_html(make_scan().page)
    reader = read(html)
    assert html.startswith("<!doctype html>")
    assert sum(tag == "canvas" and "aria-label" in about for tag, about in reader.tags) == 6
    assert all(about.get("alt") for tag, about in reader.tags if tag == "img")
    for wanted in re.findall(r'\$\("([a-z-]+)"\)', html):
        assert wanted in reader.ids, wanted
    assert html.count(NOTICE) == 1


def test_nothing_is_fetched(make_scan: Maker) -> None:
    html = scan_html(make_scan().page)
    assert "default-src 'none'" in html
    assert not re.search(r"""(src|href)\s*=\s*["']?(?!data:)[a-z./]|url\(|@import|fetch\(|XMLHttpRequest""", html)


def test_every_text_is_escaped(make_scan: Maker) -> None:
    threshold = {"value": 0.5, "name": EVIL, "min_lesion_mm3": 20.0, "modality": EVIL}
    qc = {EVIL: EVIL, "flags": [EVIL], "out_of_distribution": True, "out_of_distribution_reasons": [EVIL]}
    made = make_scan(title=EVIL, region=EVIL, threshold=threshold, qc=qc, input=EVIL, space=EVIL, scan_score_note=EVIL)
    html = scan_html(made.page)
    reader = read(html)
    assert html.count("<script") == len(made.page.volumes) + 2
    assert html.count("</script>") == html.count("<script")
    assert "alert(1)</" not in html
    assert "<!--" not in html
    assert sum(tag == "script" for tag, _ in reader.tags) == html.count("<script")
    data = re.search(r'id="page-data">(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["name"] == EVIL


def test_json_in_a_script_can_not_end_it() -> None:
    text = str(script_json({"a": "</script>&<!--\u2028"}))
    assert not set("<>&") & set(text)
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "</script>&<!--\u2028"}


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "is_ball"), [((164, 205, 164), True), ((154, 154, 154), False)])
def test_noise_in_the_largest_box_at_a_millimetre_stays_small(
    make_scan: Maker, tmp_path: Path, shape: tuple[int, int, int], is_ball: bool
) -> None:
    rng = np.random.default_rng(0)
    places = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) / (n / 2 - 8) for n in shape], indexing="ij", sparse=True)
    brain = sum(place**2 for place in places) < 1 if is_ball else np.ones(shape, bool)

    def noise(inside: Any = True) -> FloatArray:  # nothing is harder to compress
        return np.where(inside, rng.random(shape, dtype=np.float32), np.float32(0))

    grid = display_grid(np.eye(4), brain)
    assert grid.stop == shape
    assert grid.fine_mm == FINE_MM
    assert display_grid(np.diag([1.02, 1.02, 1.02, 1]), brain).fine_mm > FINE_MM, "it is the largest box"
    maps = ScanResult(noise(brain), noise(brain), noise(), noise(brain), noise(brain), brain, np.eye(4))
    to_native = np.eye(4)
    to_native[:3, 3] = np.array(shape) / 2  # the template's origin lies in the middle: regions of every name
    about = make_scan(template_to_native=to_native.tolist()).page.provenance
    region = "periventricular frontal white matter, left"
    table = [Lesion(number, *(6 * [1 / 3]), 9, 9, 9, region) for number in range(1000)]
    names = OutputNames(tmp_path, "noise")
    page = render(names, maps, noise(brain) > 0.5, shown_scan(noise(), brain, grid), table, about)[names.page]
    assert len(page) < 15e6
    held = dict(re.findall(r'id="volume-([a-z]+)">([^<]+)<', page.decode()))
    assert len(held.pop("regions")) < 0.5e6
    # Regions, the slices side by side and all the rest take less than 1.5 MB.
    assert sum(map(len, held.values())) < 13.2e6


def test_doubt_comes_before_figures(make_scan: Maker) -> None:
    usual = scan_html(make_scan().page)
    assert 'class="verdict usual"' in usual
    assert "2 findings, 0.70 ml in total." in usual
    assert "No flags." in usual
    flagged = scan_html(make_scan(qc={"flags": ["thick slices (6.0 mm)"]}).page)
    assert 'class="verdict look"' in flagged
    assert flagged.index("thick slices") < flagged.index('class="number"')
    strange = scan_html(
        make_scan(
            qc={"flags": [], "out_of_distribution": True, "out_of_distribution_reasons": ["a T1 among FLAIRs"]}
        ).page
    )
    assert 'class="verdict none" role="alert"' in strange
    assert strange.index("Do not rely on these maps") < strange.index("a T1 among FLAIRs") < strange.index('"number"')
    assert 'class="numbers unsure"' in strange


def test_the_place_among_healthy_scans_is_shown_where_it_is_known(make_scan: Maker) -> None:
    assert 'class="gauge"' not in scan_html(make_scan().page)
    known = make_scan(scan_score=0.41, scan_score_percentile=97.5, scan_score_n_healthy=40)
    html = scan_html(known.page)
    assert "97.5 percent have a lower score" in html
    assert 'cx="380.5"' in html  # 10 + 3.8 · 97.5
    assert "above 95 %</text>" in html
    assert "Among 40 healthy scans.</figcaption>" in html
    unknown = scan_html(make_scan(scan_score=0.41, scan_score_percentile=None, scan_score_note="3 of 20 needed").page)
    assert "No percentile among healthy scans: 3 of 20 needed." in unknown


def test_few_healthy_scans_show_their_range_and_no_tail(make_scan: Maker) -> None:
    few = {"scan_score_n_healthy": 5, "scan_score_healthy": [0.1, 0.2, 0.3, 0.35, 0.4]}
    html = scan_html(make_scan(scan_score=0.41, scan_score_percentile=100.0, **few).page)
    assert "above 95 %" not in html
    assert 'x="371"' not in html
    assert "Among 5 healthy scans: median score 0.300, maximum 0.400. Too few for the 95th percentile" in html
    read(html)


def test_sizes_and_places_are_not_rounded_to_others(make_scan: Maker) -> None:
    page = make_scan().page
    grid = replace(page.grid, native_mm=(1.25, 1.25, 12.5))
    findings = [replace(page.findings[0], x_mni_mm=-0.3, y_mni_mm=-7.0, z_mni_mm=3.0), *page.findings[1:]]
    html = scan_html(replace(page, grid=grid, findings=findings))
    assert "voxels of 1.25 × 1.25 × 12.5 mm" in html
    assert ">0, -7, 3</td>" in html, "as the viewer has it, and not -0"


def test_jumps_lead_to_the_peak(make_scan: Maker) -> None:
    made = make_scan()
    data = re.search(r'id="page-data">(.*?)</script>', scan_html(made.page), re.DOTALL)
    assert data is not None
    place = json.loads(data[1])["findings"][0]["place_mm"]
    score = made.page.volumes["score"]
    at = tuple(int(mm / step) for mm, step in zip(place, score.spacing_mm, strict=True))
    assert score.codes[at] == score.codes.max()


def test_quality_facts_are_words() -> None:
    facts = quality_facts(report(brain_volume_ml=1.5, registration_failed=True, x_y=None, flags=["a"], d={}))
    assert facts == [("brain volume, ml", "1.5"), ("registration failed", "yes"), ("x y", "–")]


def test_still_pictures(make_scan: Maker) -> None:
    volumes = make_scan().page.volumes
    assert thumbnail(volumes).startswith(b"\xff\xd8")
    figure = page_mosaic(volumes, cut=Cut(0.5, 30.0, 0.25), title="t")
    assert len(figure.axes[0].images) == 30
    said = figure.texts[-1].get_text()
    assert said.startswith(
        "Outlined where the score is at least 0.500, without components under 30 mm³, grown to 0.250."
    )
    contrasts = {"scan": "T1w", "healthy": "FLAIR"}
    exam = page_mosaic(volumes, cut=Cut(0.5), title="t", contrasts=contrasts)
    assert exam.texts[-1].get_text().startswith("Outlined where the score of the exam is at least 0.500.")


def test_a_standardised_scan_is_shown_from_its_darkest_to_its_brightest(make_scan: Maker) -> None:
    volumes = dict(make_scan().page.volumes)
    standardised = {name: replace(volumes[name], scale=5 / 255, offset=-2.5) for name in ("scan", "healthy")}
    for contrasts in (None, {"scan": "T1w"}):
        before, after = (
            page_mosaic(shown, cut=Cut(0.5), title="t", contrasts=contrasts).axes[0].images[0].get_array()
            for shown in (volumes, volumes | standardised)
        )
        np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("empty", [True, False])
def test_pictures_of_a_scan_without_findings(make_scan: Maker, empty: bool) -> None:
    volumes = dict(make_scan().page.volumes)
    for name in ("mask", "score") if empty else ("mask",):
        volume = volumes[name]
        volumes[name] = type(volume)(np.zeros_like(volume.codes), volume.scale, volume.offset, volume.spacing_mm)
    assert thumbnail(volumes).startswith(b"\xff\xd8")
    assert len(page_mosaic(volumes, cut=Cut(0.5), title="t").axes[0].images) == 30
