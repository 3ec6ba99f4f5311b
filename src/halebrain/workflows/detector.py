"""The core of detection: a model with its options, and from one scan to its findings in memory."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from halebrain.core.about import NOTICE
from halebrain.core.device import find_device
from halebrain.core.errors import UsageError
from halebrain.core.exam_provenance import Rows
from halebrain.core.modality import ScanContrast, contrast_alike, find_contrast
from halebrain.core.provenance import FILLING, ChosenThreshold, Provenance, QualityReport
from halebrain.core.types import Affine, FloatArray, Lesion, MaskArray, ScanResult, Volume
from halebrain.inference.filling import Filling, fill_mask_in
from halebrain.inference.lesions import mark_lesions, total_ml
from halebrain.inference.outputs import as_written
from halebrain.inference.predictor import Predictor, WorkingMaps
from halebrain.inference.regions import regions_are_known
from halebrain.inference.scans import ScanInput
from halebrain.io.stored import StoredScan
from halebrain.io.volume import read_mask
from halebrain.models.bundle import Bundle
from halebrain.models.store import load_model
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.preprocessing.prepared import open_scan
from halebrain.preprocessing.quality.rules import check_contrast_label
from halebrain.thresholds.calibration import read_calibration
from halebrain.thresholds.choose import ThresholdSelector, check_modality
from halebrain.thresholds.percentile import place_among_healthy, working_scan_score
from halebrain.workflows.scan_steps import NETWORKS, ScanSteps
from halebrain.workflows.settings import DetectSettings

_LARGEST_LESION = 0.5
"""Share of the brain from which a mask that is filled is taken for one of something else."""


@dataclass(frozen=True)
class Detector:
    """A loaded model with the options that it is applied with."""

    settings: DetectSettings
    predictor: Predictor
    selector: ThresholdSelector
    min_lesion_mm3: float

    def threshold(self, contrast: ScanContrast) -> ChosenThreshold:
        """Return the threshold for a scan of a contrast."""
        chosen = self.selector.at(contrast.name)
        return replace(chosen, min_lesion_mm3=self.min_lesion_mm3, modality_known_from=contrast.known_from)

    def placed(self, made: Provenance, contrast: ScanContrast, score: float) -> Provenance:
        """Return a provenance with the score of the whole scan, its place among healthy ones, and its true volume."""
        threshold = self.threshold(contrast)
        fit, marked_ml = self.selector.volume_fit(threshold), made.lesion_volume_ml
        estimate = None if fit is None or marked_ml is None else fit.estimate(marked_ml)
        made = replace(made, volume_estimate=estimate)
        calibration, data_set = self.selector.calibration, threshold.data_set
        return place_among_healthy(made, score, calibration, modality=contrast.name, data_set=data_set)


def load_detector(settings: DetectSettings, bundle: Bundle | None = None) -> Detector:
    """Load the model, unless it is given as `bundle`, and check threshold, modality and device."""
    bundle = bundle or load_model(settings.model)
    if settings.fills and not bundle.reconstructor.gives_image:
        raise UsageError(
            "lesion filling needs a model that gives a pseudo-healthy image",
            received=bundle.config.reconstructor.name,
            remedy="use a model of another kind; halebrain models info MODEL shows it",
        )
    selector = ThresholdSelector(read_calibration(bundle), settings.threshold, settings.grow_to)
    check_modality(settings.modality, selector.calibration)
    predictor = Predictor(
        bundle,
        device=find_device(settings.device),
        seed=settings.seed,
        draws=settings.draws,
        batch_size=settings.batch_size,
        brain=settings.brain,
        precision=settings.precision,
        compiled=settings.compiled,
    )
    smallest = settings.min_lesion_mm3
    if smallest is None:
        smallest = predictor.postprocessing.min_lesion_mm3
    return Detector(settings, predictor, selector, smallest)


@dataclass(frozen=True)
class FoundAnomalies:
    """What was found in one scan.

    Args:
        volume: The scan on its native grid.
        result: Maps on that grid.
        scan: The scan on the working grid.
        maps: Maps on that grid.
        mask: Anomaly mask on the native grid, inside the brain.
        lesions: The connected components of the mask, largest first.
        threshold: The threshold.
        made: Provenance.
        filling: The lesion-filled scan, where it is asked for.
    """

    volume: Volume
    result: ScanResult
    scan: WorkingScan
    maps: WorkingMaps
    mask: MaskArray
    lesions: list[Lesion]
    threshold: ChosenThreshold
    made: Provenance
    filling: Filling | None = None


def find_anomalies(
    detector: Detector,
    scan: ScanInput,
    requested: Provenance,
    *,
    steps: ScanSteps | None = None,
) -> FoundAnomalies:
    """Read and preprocess one scan, run the networks, apply the threshold; writes nothing.

    `requested` is what the provenance states of model, settings and scan; without `steps` there is no progress bar.
    With `fill` or `also_fill` the scan is filled, too: what is found, or the mask of the scan input.
    """
    predictor, steps, start = detector.predictor, steps or ScanSteps(), time.perf_counter()
    volume = scan.read()
    notes = list(volume.notes)
    to_fill = None if scan.fill_mask is None else read_mask(scan.fill_mask, volume, notes)
    how: dict[str, Any] = {"brain_mask": scan.brain_mask, "space": scan.space, "begin": steps.begin, "notes": notes}
    working = open_scan(predictor.preprocessor, volume, scan.file, **how)
    contrast = find_contrast(detector.settings.modality, scan.modality, scan.named, working.qc.inferred_contrast)
    working = replace(working, qc=judge_quality(predictor, working.qc, notes, contrast))
    threshold = detector.threshold(contrast)
    steps.begin(NETWORKS)
    result, maps = predictor.predict_scan(volume, working, contrast.name, progress=steps.one_pass)
    result = replace(result, score=as_written(result.score))
    regions = regions_are_known(predictor.preprocessor.config.space, working.qc)
    found, lesions = mark_lesions(result, threshold.cut, working.template_to_native, regions=regions)
    score = working_scan_score(maps.score, working.brain_mask, working.grid.spacing_mm)
    content = None if scan.memory is None else working.content.hex()
    requested = replace(requested, content_sha256=content, threshold=threshold, input_notes=tuple(notes))
    made = detector.placed(describe_found(requested, working, lesions), contrast, score)
    everything = FoundAnomalies(volume, result, working, maps, found, lesions, threshold, made)
    if detector.settings.fills:
        everything = _filled(detector, everything, scan.stored(volume), to_fill)
    return replace(everything, made=replace(everything.made, seconds=round(time.perf_counter() - start, 2)))


def _filled(detector: Detector, found: FoundAnomalies, stored: StoredScan, given: MaskArray | None) -> FoundAnomalies:
    """Return what was found with the lesion-filled scan; `given` is a user's mask, `None` = what was found."""
    scan = ToFill(found.made.scan, found.volume, stored, found.scan, found.maps.reconstruction)
    mask = found.mask if given is None else given
    filling = fill_region_of(detector, scan, mask, is_given=given is not None)
    return replace(found, made=stating_filling(found.made, filling), filling=filling)


@dataclass(frozen=True)
class ToFill:
    """A scan to fill: its name, voxels, stored form, form on the working grid, and reconstruction there."""

    name: str | None
    volume: Volume
    stored: StoredScan
    scan: WorkingScan
    reconstruction: FloatArray


def fill_region_of(detector: Detector, scan: ToFill, mask: MaskArray, *, is_given: bool) -> Filling:
    """Return a scan with a mask on its grid filled; a message where nothing or not all was filled.

    `is_given` = the mask is a user's, and not what was found.
    """
    about = (scan.volume, scan.stored, scan.scan, scan.reconstruction, mask)
    margin_mm = detector.settings.fill_margin_mm
    filling = fill_mask_in(detector.predictor, *about, margin_mm=margin_mm, is_given=is_given)
    notify, same = detector.settings.notify, "the filled scan is the scan itself"
    filled_share = filling.region.sum() / scan.scan.native_brain_mask.sum()
    if not mask.any() and not is_given:
        notify(f"{scan.name}: nothing was found: {same}")
    elif not filling.region.any():
        said = "nothing of the mask lies in the brain" if mask.any() else "the mask to fill is empty"
        notify(f"warning: {scan.name}: {said}: {same}")
    elif is_given and filled_share > _LARGEST_LESION:
        said = f"{filled_share:.0%} of the brain was filled: check that the mask is one of lesions"
        notify(f"warning: {scan.name}: {said}")
    if filling.region.any() and filling.left_out_ml > 0.1 * filling.mask_ml:
        said = f"{filling.left_out_ml:.1f} ml of the mask lie outside the brain and were not filled"
        notify(f"warning: {scan.name}: {said}")
    return filling


def stating_filling(made: Provenance, filling: Filling) -> Provenance:
    """Return a provenance that states what was filled."""
    filled_ml, unstated = round(filling.filled_ml, 3), made.unstated - FILLING
    return replace(made, fill_margin_mm=filling.margin_mm, filled_ml=filled_ml, unstated=unstated)


def describe_found(requested: Provenance, scan: WorkingScan, lesions: list[Lesion] | None = None) -> Provenance:
    """Return a provenance with what a scan went through and how much was found in it alone."""
    return replace(
        requested,
        steps=scan.steps,
        qc=scan.qc,
        template_to_native=rows_of(scan.template_to_native),
        n_lesions=None if lesions is None else len(lesions),
        lesion_volume_ml=None if lesions is None else total_ml(lesions),
        notice=NOTICE,
    )


def rows_of(matrix: Affine) -> Rows:
    """Return a matrix as a provenance states it."""
    a, b, c, d = (tuple(row) for row in matrix.tolist())
    return a, b, c, d


def judge_quality(
    predictor: Predictor, report: QualityReport, notes: Iterable[str], contrast: ScanContrast
) -> QualityReport:
    """Return the quality of a scan with what was assumed on reading it, and what the model makes of it."""
    report = check_contrast_label(report.noting(notes), contrast.declared)
    report = report.flagged(known_limit(predictor.bundle.limits, contrast))
    if not predictor.has_evidence(contrast.name):
        named = contrast.name or "scans of unknown contrast"
        report = report.flagged(
            f"the segmenter alone scored this scan: the model has no healthy map of {named}; the threshold was chosen "
            "on scores with the residual, and marks less here"
        )
    elif predictor.postprocessing.needs_healthy_map and report.registration_failed:
        report = report.flagged("the residual is compared with healthy scans at wrong places: registration failed")
    return report


def known_limit(limits: Mapping[str, str], contrast: ScanContrast) -> str | None:
    """Return the known limit of a model on scans of a contrast, `None` where there is none."""
    # Scans scored by the networks of another contrast share the limits of that contrast.
    names = (name for name in (contrast.name, contrast_alike(contrast.name)) if limits.get(name or ""))
    return next((f"known limit of the model on {name}: {limits[name or '']}" for name in names), None)
