"""A small scan with two findings, oblique axes aside: what pages are made of; and a browser to open them in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halebrain.report.display import ScanMaps, display_grid
from halebrain.report.embedding import shown_scan, shown_volumes
from halebrain.report.findings import Finding
from halebrain.report.scan_page import ScanPage, scan_html

SHAPE = (40, 44, 36)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])  # the first axis runs to the left
AFFINE[:3, 3] = (40, -50, -30)
THRESHOLD = 0.5
WAIT_MS = 60_000


@dataclass(frozen=True)
class Made:
    scan: np.ndarray
    maps: ScanMaps
    page: ScanPage


def _provenance(**more: Any) -> dict[str, Any]:
    return {
        "scan": "sub-01_FLAIR",
        "threshold": {"value": THRESHOLD, "name": "dice", "min_lesion_mm3": 20.0},
        "space": "MNI152NLin2009aSym",
        "qc": {"brain_method": "stripped", "brain_volume_ml": 1234.5, "registration_failed": False, "flags": []},
        "steps": [{"step": "brain", "method": "stripped"}],
        "levels": [250, 500],
    } | more


@pytest.fixture(scope="session")
def make_scan() -> Callable[..., Made]:
    """Make a ball of brain with a large and a small cube that score 0.9 and 0.7, and its page."""

    def make(title: str = "sub-01_FLAIR", region: str = "thalamus, left", **provenance: Any) -> Made:
        rng = np.random.default_rng(0)
        index = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"), -1)
        brain = (index**2).sum(axis=-1) < 15**2
        scan = np.where(brain, 100 + 20 * rng.random(SHAPE), 0).astype(np.float32)
        score = np.where(brain, 0.2 * rng.random(SHAPE), 0).astype(np.float32)
        score[20:25, 20:24, 15:19], score[12:14, 26:28, 20:22] = 0.9, 0.7
        score[22, 21, 17] = 0.95
        score[30, 22, 17] = 0.6  # one voxel: smaller than 20 mm³
        mask = score >= 0.65
        uncertainty = np.where(brain, 0.05, 0).astype(np.float32)
        maps = ScanMaps(scan * 0.9, score, score, np.where(brain, 0.1, 0), uncertainty, mask, brain, AFFINE)
        grid = display_grid(AFFINE, brain)
        volumes = shown_volumes(maps, shown_scan(scan, brain, grid), grid, threshold=THRESHOLD)
        findings = [
            Finding(1, 0.64, 0.95, 0.9, (-5.0, -7.0, 3.0), (22, 21, 17), region),
            Finding(2, 0.064, 0.7, 0.7, (15.0, 3.0, 11.0), (12, 26, 20), region),
        ]
        page = ScanPage(title, grid, volumes, findings, _provenance(**provenance), np.eye(4), b"\x89PNG")
        return Made(scan, maps, page)

    return make


@pytest.fixture
def open_page(browser: Any, tmp_path: Path, make_scan: Callable[..., Made]) -> Iterator[Callable[..., Any]]:
    """Open a page, or that of the small scan; whatever it complains of or asks a network for fails the test."""
    contexts, complaints = [], []

    def go(path: Path | None = None, *, qc: dict[str, Any] | None = None, **settings: Any) -> Any:
        if path is None:
            path = tmp_path / "page <1>.html"
            said = {} if qc is None else {"qc": qc}
            path.write_text(scan_html(make_scan(title="<b>sub-01</b>", **said).page), encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
