"""The demo of the training: the whole method on a virtual cohort, from training to a page."""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from halebrain.core.failures import Failures
from halebrain.core.provenance import ChosenThreshold
from halebrain.evaluation.evaluate import Evaluation
from halebrain.evaluation.reconstruction_quality import reconstruction_quality
from halebrain.evaluation.statistics import INTERVAL
from halebrain.evaluation.tables import with_interval, write_evaluation
from halebrain.inference.outputs import OutputNames
from halebrain.inference.predictor import Predictor
from halebrain.inference.scans import ScoredScan, scan_of_record, score_scan
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.report.evaluation_page import write_evaluation_page
from halebrain.report.figures import cohort_montage, loss_plot, save_figure
from halebrain.report.page import Page, Section, write_page
from halebrain.simulation.config import CohortConfig
from halebrain.simulation.generate import generate_cohort
from halebrain.workflows.calibrate import run_calibration
from halebrain.workflows.demo import clear_demo
from halebrain.workflows.detect import detect_scan
from halebrain.workflows.detector import load_detector
from halebrain.workflows.evaluate import run_evaluation
from halebrain.workflows.pages import scan_mosaic
from halebrain.workflows.settings import CalibrateSettings, DemoSettings, DetectSettings, TrainSettings
from halebrain.workflows.train import run_reconstructor, run_segmenter

LEARNED, UNSEEN = ("stroke", "ms"), "tumour"
_SPOKEN = {"stroke": "strokes", "ms": "multiple sclerosis", "tumour": "brain tumours"}
_SMALLEST_MM3 = 20.0
"""Smallest connected component in the mask of the scan that is shown, and of its outline on the page."""
_AGAIN = "fix the problem in each line, then run the same command again; it resumes"
_METHODS = ("model", "segmenter alone", "reconstruction alone", "intensity rank")


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does: people in the cohort, their voxels, modalities, configurations."""

    healthy: int
    patients: int
    spacing_mm: float
    modalities: tuple[str, ...]
    config: str


FULL = DemoSize(healthy=48, patients=12, spacing_mm=2.0, modalities=("FLAIR",), config="demo")
QUICK = DemoSize(healthy=6, patients=3, spacing_mm=4.0, modalities=("FLAIR",), config="tiny")


@dataclass(frozen=True)
class TrainedDemo:
    """What the demo of the training left."""

    page: Path
    model: Path
    seconds: float


def run_trained_demo(output: Path, size: DemoSize, settings: DemoSettings) -> TrainedDemo:
    """Make a cohort, train both networks, calibrate, evaluate on an unseen disease, detect, and write a page.

    What is in the folder from the same command is kept. Patients in the settings have no effect.
    """
    start = time.monotonic()
    if settings.overwrite:
        clear_demo(output, "cohort", "cache", "stage1", "stage2", "evaluation", "detection")
    manifest = _cohort(output, size, settings.seed)
    model = _train(output, size, settings)
    _calibrate(model, manifest, settings)
    page = _evaluate(model, manifest, output, settings)
    return TrainedDemo(page, model, time.monotonic() - start)


def _cohort(output: Path, size: DemoSize, seed: int) -> Manifest:
    config = CohortConfig(
        healthy=size.healthy,
        patients=size.patients,
        spacing_mm=size.spacing_mm,
        modalities=size.modalities,
        pathologies=(*LEARNED, UNSEEN),
        seed=seed,
    )
    manifest = generate_cohort(output / "cohort", config)
    save_figure(cohort_montage(manifest), output / "cohort" / "montage.png")
    return manifest


def _train(output: Path, size: DemoSize, settings: DemoSettings) -> Path:
    common = (
        f"data.manifest={json.dumps(str(output / 'cohort' / 'manifest.tsv'))}",
        f"data.cache={json.dumps(str(output / 'cache'))}",
        f"data.modalities={json.dumps(size.modalities)}",
        f"seed={settings.seed}",
    )
    first = TrainSettings(config=Path(size.config), overrides=common, device=settings.device)
    stage1 = run_reconstructor(output / "stage1", first).path
    second = replace(first, overrides=(*common, "regime=weak", f"data.pathologies={json.dumps(LEARNED)}"))
    return run_segmenter(output / "stage2", stage1, second).path


def _calibrate(model: Path, manifest: Manifest, settings: DemoSettings) -> None:
    rows = manifest.split("val").select(lambda r: r.is_healthy or r.pathology in LEARNED)
    failures = Failures(None, settings.notify)
    how = CalibrateSettings(seed=settings.seed, device=settings.device, notify=settings.notify)
    run_calibration(model, rows, how, failures=failures)
    failures.refuse("every scan of the demo should be scored", len(rows), remedy=_AGAIN)


def _evaluate(model: Path, manifest: Manifest, output: Path, settings: DemoSettings) -> Path:
    how: dict[str, Any] = {"seed": settings.seed, "device": settings.device, "notify": settings.notify}
    detector = load_detector(
        DetectSettings(model=model, min_lesion_mm3=_SMALLEST_MM3, brain=None, overwrite=True, **how)
    )
    predictor, selector = detector.predictor, detector.selector
    # All its patients, whatever their split: nothing was learned or chosen on any, or evaluation would refuse it.
    unseen = manifest.select(lambda r: r.pathology == UNSEEN)
    failures = Failures(None, settings.notify)
    evaluation = run_evaluation(predictor, unseen, selector=selector, failures=failures)
    failures.refuse("every scan of the demo should be scored", len(unseen), remedy=_AGAIN)
    write_evaluation(evaluation, output / "evaluation")
    write_evaluation_page(evaluation, output / "evaluation" / "index.html", title="Evaluation of the demo's model")
    # The patient with the median result is shown, not the best one.
    record = _median_scan(evaluation, unseen)
    detect_scan(detector, scan_of_record(record), output / "detection")
    scored = score_scan(predictor, record)
    return _write_page(output, manifest, evaluation, scored, predictor, selector.at(record.contrast))


def _median_scan(evaluation: Evaluation, unseen: Manifest) -> ScanRecord:
    # FLAIR shows the lesions of this disease best; other modalities are in the table.
    rows = [r for r in evaluation.rows if r.method == "model" and r.metric == "auprc" and r.modality == "FLAIR"]
    ranked = sorted(rows, key=lambda r: r.value)
    wanted = ranked[len(ranked) // 2].scan_id
    return next(r for r in unseen if r.scan_id == wanted)


def _write_page(
    output: Path,
    manifest: Manifest,
    evaluation: Evaluation,
    scored: ScoredScan,
    predictor: Predictor,
    threshold: ChosenThreshold,
) -> Path:
    truth = scored.scan.from_native(scored.lesion) > 0.5 if scored.lesion is not None else None
    picture = scan_mosaic(
        scored.scan, scored.maps, cut=replace(threshold, min_lesion_mm3=_SMALLEST_MM3).cut, title="", truth=truth
    )
    save_figure(picture, output / "mosaic.png")
    stages = predictor.bundle.training
    page = Page(
        title="HaleBrain demo: an unseen disease, from a model trained in minutes",
        lead=(
            f"The reconstructor learned from healthy virtual brains, the segmenter from virtual patients with "
            f"{' and '.join(_SPOKEN[name] for name in LEARNED)}. Both are judged on virtual patients "
            f"with {_SPOKEN[UNSEEN]}, which they never saw."
        ),
        numbers=_numbers(evaluation, scored, stages),
        sections=_sections(output, manifest, evaluation, scored, picture),
        provenance=evaluation.provenance.as_json() | {"training": stages},
    )
    write_page(page, output / "index.html")
    return output / "index.html"


def _sections(
    output: Path, manifest: Manifest, evaluation: Evaluation, scored: ScoredScan, picture: Figure
) -> list[Section]:
    """Return what the page shows under the numbers: the patient, the viewer, the table, the cohort, the losses."""
    own = OutputNames(output / "detection", scored.record.scan_id).page
    return [
        Section(
            "One patient, a disease that the model never saw",
            figure=picture,
            caption=f"{scored.record.scan_id}: the patient with the median result, not the best one.",
        ),
        Section(
            "Look around",
            viewer=own.read_text(encoding="utf-8"),
            caption="The page that halebrain detect writes for this scan.",
            links=[("Open it in full size", f"detection/{own.name}")],
        ),
        Section(
            "How good it is",
            text=[
                f"Mean over scans of voxel AUPRC. Interval: {INTERVAL}. "
                "The intensity rank needs no training: it is the baseline."
            ],
            header=("modality", *_METHODS),
            rows=_table(evaluation),
            caption="The threshold was chosen on validation patients of the diseases that were learned.",
        ),
        Section("The cohort", figure=cohort_montage(manifest)),
        Section("Stage 1: the reconstructor's loss", figure=loss_plot(output / "stage1" / "log.csv")),
        Section("Stage 2: the segmenter's loss", figure=loss_plot(output / "stage2" / "log.csv")),
    ]


def _numbers(evaluation: Evaluation, scored: ScoredScan, stages: dict[str, Any]) -> list[tuple[str, str]]:
    auprc, dice = evaluation.mean("auprc", group="FLAIR"), evaluation.mean("dice", group="FLAIR")
    numbers = [
        (f"{auprc.mean:.2f}", f"voxel AUPRC on FLAIR, {auprc.n_scans} patients"),
        (f"{dice.mean:.2f}", "Dice on FLAIR at the calibrated threshold"),
        (f"{sum(s['seconds'] for s in stages.values()) / 60:.1f} min", "training, both stages"),
    ]
    lesion, healthy = scored.lesion_working() & scored.scan.brain_mask, scored.healthy_working()
    if healthy is not None and lesion.any():
        quality = reconstruction_quality(
            scored.scan.image, scored.maps.reconstruction, lesion, scored.scan.brain_mask, healthy=healthy
        )
        removed = "of the shown lesion's signal removed by the reconstruction"
        numbers.append((f"{quality.lesion_removed:.0%}", removed))
    return numbers


def _table(evaluation: Evaluation) -> list[list[str]]:
    rows = []
    for modality in sorted({row.modality for row in evaluation.rows}):
        means = (evaluation.mean("auprc", group=modality, method=method) for method in _METHODS)
        rows.append([modality, *(with_interval(mean, digits=2) for mean in means)])
    return rows
