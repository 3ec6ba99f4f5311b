"""A small scan with two findings, oblique axes aside: what pages are made of; and a browser to open them in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from halebrain.core.provenance import Provenance
from halebrain.core.types import Lesion, ScanResult
from halebrain.evaluation.evaluate import Evaluator
from halebrain.evaluation.matrix import MatrixEntry, MatrixRow, Spread
from halebrain.evaluation.provenance import WORKING_GRID, EvaluationProvenance
from halebrain.evaluation.statistics import Interval
from halebrain.report.display import display_grid
from halebrain.report.embedding import shown_scan, shown_volumes
from halebrain.report.evaluation_page import write_evaluation_page
from halebrain.report.scan_page import ScanPage, scan_html
from stated import provenance

SHAPE = (40, 44, 36)
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])  # the first axis runs to the left
AFFINE[:3, 3] = (40, -50, -30)
THRESHOLD = 0.5
NAN = float("nan")
WAIT_MS = 60_000


@dataclass(frozen=True)
class Made:
    scan: np.ndarray
    maps: ScanResult
    mask: np.ndarray
    page: ScanPage


def _provenance(**more: Any) -> Provenance:
    about = {
        "scan": "sub-01_FLAIR",
        "threshold": {"value": THRESHOLD, "name": "dice", "min_lesion_mm3": 20.0},
        "space": "MNI152NLin2009aSym",
        "qc": {"brain_method": "stripped", "brain_volume_ml": 1234.5, "registration_failed": False, "flags": []},
        "steps": [{"step": "brain", "method": "stripped"}],
        "levels": [250, 500],
    }
    return provenance(**(about | more))


@pytest.fixture(scope="session")
def make_scan() -> Callable[..., Made]:
    """Make a ball of brain with a large and a small cube that score 0.9 and 0.7, and its page."""

    def make(title: str = "sub-01_FLAIR", region: str = "thalamus, left", **more: Any) -> Made:
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
        maps = ScanResult(score, score, scan * 0.9, np.where(brain, 0.1, 0), uncertainty, brain, AFFINE)
        grid = display_grid(AFFINE, brain)
        made = _provenance(**more)
        assert made.threshold is not None
        volumes = shown_volumes(maps, mask, shown_scan(scan, brain, grid), grid, cut=made.threshold.cut)
        findings = [
            Lesion(1, 0.64, 0.95, 0.9, -5.0, -7.0, 3.0, 22, 21, 17, region),
            Lesion(2, 0.064, 0.7, 0.7, 15.0, 3.0, 11.0, 12, 26, 20, region),
        ]
        page = ScanPage(title, grid, volumes, findings, made, made.threshold, np.eye(4), b"\x89PNG")
        return Made(scan, maps, mask, page)

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


@pytest.fixture
def evaluation_page(tmp_path: Path, make_case: Callable[..., Any], rng: np.random.Generator) -> Callable[..., Path]:
    """Write the page of an evaluation of small scans, four unless told otherwise, by some methods."""

    def write(*methods: str, scans: int = 4) -> Path:
        evaluator = Evaluator(seed=0)
        for number in range(scans):
            reference = np.zeros((6, 6, 4), bool)
            reference[1 : 3 + number % 2, 1:4, 1:3] = True
            for method in methods:
                score = np.clip(0.5 * reference + 0.5 * rng.random(reference.shape), 0, 1)
                about = {"scan_id": f"sub-{number}_<b>FLAIR", "subject": str(number), "site": "<i>site"}
                mask = score > 0.5 if method == methods[0] else None
                evaluator.add(method, make_case(reference, score=score, mask=mask, **about), show=method == methods[0])
        origin = EvaluationProvenance(grid=WORKING_GRID, seed=0)
        write_evaluation_page(evaluator.finish(origin), tmp_path / "index.html", title="An <evaluation>")
        return tmp_path / "index.html"

    return write


def _matrix_row(title: str, trained_on: str, auprc: dict[str, float], *, count: int | None = None) -> MatrixRow:
    entries = {
        name: MatrixEntry(
            best_dice=Spread(value, NAN, 1),
            run_auprc=Spread(value, NAN, 1),
            pooled_best_dice=Spread(value, NAN, 1),
            pooled_auprc=Spread(value, NAN, 1),
            auprc=Interval(value, value, value, 5, 0),
            dice=Interval(value, value, value, 5, 0),
            difference=NAN,
            p_holm=NAN,
            seen=name == trained_on,
        )
        for name, value in auprc.items()
    }
    return MatrixRow(title, "block", trained_on, count, 1, entries)


@pytest.fixture
def matrix_table() -> list[MatrixRow]:
    """Rows of a benchmark of three diseases; one method with fewer annotated subjects too."""
    return [
        _matrix_row("alone", "–", {"ms": 0.2, "stroke": 0.3, "wmh": 0.1}),
        _matrix_row("pair (ms)", "ms", {"ms": 0.6, "stroke": 0.3, "wmh": 0.2}),
        _matrix_row("pair (ms, n = 2)", "ms", {"ms": 0.4, "stroke": 0.2, "wmh": 0.2}, count=2),
        _matrix_row("pair (stroke)", "stroke", {"ms": 0.4, "stroke": 0.5, "wmh": 0.2}),
    ]
