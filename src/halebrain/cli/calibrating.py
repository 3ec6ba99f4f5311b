"""Calibration: score every scan of a manifest, fit thresholds over all scans and by modality."""

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from halebrain.core.errors import MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.core.wording import whole_percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from halebrain.inference.predictor import Predictor
    from halebrain.io.manifest import Manifest, ScanRecord
    from halebrain.thresholds.calibration import Calibration, Labels, Scores, Threshold
    from halebrain.thresholds.false_positive_volume import HealthyMap

_RATES = (0.01, 0.05, 0.1)


def fit_calibration(
    predictor: "Predictor", rows: "Manifest", *, healthy_share: float, failures: "Failures"
) -> "Calibration":
    """Return every threshold that validation scans allow, over all of them and for each modality.

    Args:
        predictor: The model.
        rows: The scans; those that are neither healthy nor annotated take no part.
        healthy_share: The share of healthy people in whom the thresholds by false volume hold.
        failures: Collects scans that fail; the thresholds are chosen without them, with a note.

    Raises:
        MissingInputError: None takes part.
    """
    from halebrain.core.modality import standard_modality
    from halebrain.inference.cohort import score_scan
    from halebrain.thresholds.calibration import MIN_HEALTHY_SCANS, Calibration
    from halebrain.thresholds.false_positive_volume import HealthyMap
    from halebrain.thresholds.percentile import working_scan_score

    smallest = predictor.postprocessing.min_lesion_mm3
    healthy: dict[str, list[HealthyMap]] = {}
    ill: list[tuple[str, Scores, Labels]] = []

    def score(record: "ScanRecord") -> None:
        scored = score_scan(predictor, record)
        modality, brain = standard_modality(scored.record.modality), scored.result.brain_mask
        if _is_annotated(scored.record) and scored.lesion is not None:
            ill.append((modality, scored.result.score[brain], scored.lesion[brain]))
        elif scored.record.is_healthy:
            whole = working_scan_score(scored.maps.score, scored.scan.brain_mask, scored.scan.grid.spacing_mm)
            kept = HealthyMap.of(scored.result, min_lesion_mm3=smallest, modality=modality, scan_score=whole)
            healthy.setdefault(modality, []).append(kept)

    done = failures.each(score, rows.records, name=lambda record: record.scan_id, description="Calibrating")
    rows = replace(rows, records=tuple(done))
    about = {"split": "val", "manifest_sha256": rows.fingerprint()}
    every = [scan for scans in healthy.values() for scan in scans]
    thresholds = _by_dice(ill, about) | _by_healthy(every, about, healthy_share)
    if not thresholds:
        raise MissingInputError(
            "calibration needs healthy or annotated scans",
            where=rows.source or "manifest",
            remedy='write healthy under "pathology", or a mask under "lesion"',
        )
    enough = {modality: scans for modality, scans in sorted(healthy.items()) if len(scans) >= MIN_HEALTHY_SCANS}
    return Calibration(
        default=next(iter(thresholds)),
        thresholds=thresholds,
        subjects=tuple(rows.subjects()),
        modalities={modality: _by_healthy(scans, about, healthy_share) for modality, scans in enough.items()},
        healthy_scores={m: tuple(sorted(scan.scan_score for scan in scans)) for m, scans in sorted(healthy.items())},
    )


def check_addition(rows: "Manifest", before: "Calibration | None", name: str | None) -> None:
    """Stop where modalities cannot be added: before anything is scored.

    Args:
        rows: The scans to add.
        before: What is there.
        name: Of their data set.

    Raises:
        MissingInputError: The model has no thresholds yet.
        UsageError: It already has own thresholds for one of the modalities.
    """
    from halebrain.core.modality import standard_modality
    from halebrain.thresholds.calibration import MIN_HEALTHY_SCANS

    if before is None:
        raise MissingInputError("--add needs thresholds to add to", remedy="calibrate without --add first")
    counts = Counter(standard_modality(row.modality) for row in rows if row.is_healthy)
    coming = {modality for modality, count in counts.items() if count >= MIN_HEALTHY_SCANS}
    if taken := sorted(coming & before.calibrated_modalities(name)):
        raise UsageError(
            "--add takes only modalities without thresholds",
            received=", ".join(taken),
            where=rows.source or "manifest",
            remedy="choose others with --modality, or calibrate again without --add",
        )


def check_default(default: str | None, rows: "Manifest", before: "Calibration | None", name: str | None) -> None:
    """Stop where a default is the name of no threshold that there will be: before anything is scored.

    Args:
        default: What the user wants; `None` = nothing.
        rows: The scans to fit on.
        before: Thresholds that stay.
        name: Of the data set that the scans are.

    Raises:
        UsageError: It is none.
    """
    from halebrain.thresholds.calibration import with_data_set
    from halebrain.thresholds.false_positive_volume import VOLUMES_ML

    by_healthy = [*(f"fpr:{rate:g}" for rate in _RATES), *(f"ml:{volume:g}" for volume in VOLUMES_ML)]
    coming = ["dice"] if any(_is_annotated(row) for row in rows) else []
    coming += by_healthy if any(row.is_healthy for row in rows) else []
    known = list(dict.fromkeys([*(before.thresholds if before else ()), *(with_data_set(n, name) for n in coming)]))
    if default is not None and default not in known:
        raise UsageError(
            "--default takes the name of a threshold",
            received=repr(default),
            where=rows.source or "manifest",
            remedy=f"these scans give {', '.join(known) or 'none'}",
        )


def _is_annotated(record: "ScanRecord") -> bool:
    return record.lesion is not None and not record.is_healthy


def _by_dice(ill: "Sequence[tuple[str, Scores, Labels]]", about: dict[str, Any]) -> "dict[str, Threshold]":
    """Return the threshold of the best Dice; nothing where no scan is annotated."""
    from halebrain.thresholds.calibration import Threshold, fit_best_dice

    if not ill:
        return {}
    modalities, scores, references = zip(*ill, strict=True)
    value, dice = fit_best_dice(scores, references)
    about = about | {"n_scans": len(ill), "modalities": tuple(sorted(set(modalities)))}
    return {"dice": Threshold(value=value, method="best pooled Dice", achieved=dice, **about)}


def _by_healthy(scans: "Sequence[HealthyMap]", about: dict[str, Any], healthy_share: float) -> "dict[str, Threshold]":
    """Return the thresholds by false-positive rate and by false volume; nothing where no scan is healthy."""
    from halebrain.thresholds.calibration import Threshold, fit_false_positive_rate
    from halebrain.thresholds.false_positive_volume import (
        HEALTHY_SHARE,
        VOLUMES_ML,
        fit_false_volume,
        reached_confidence,
    )

    if not scans:
        return {}
    about = about | {"n_scans": len(scans), "modalities": tuple(sorted({scan.modality for scan in scans}))}
    found = {}
    for rate in _RATES:
        value, share = fit_false_positive_rate([scan.scores for scan in scans], rate)
        found[f"fpr:{rate:g}"] = Threshold(value=value, method=f"{rate:.0%} of healthy voxels", achieved=share, **about)
    smallest = scans[0].min_lesion_mm3
    pieces = f", components of {smallest:g} mm³ and more" if smallest > 0 else ""
    whom = "the median healthy scan" if healthy_share == HEALTHY_SHARE else f"{100 * healthy_share:g}% of healthy scans"
    sure = whole_percent(reached_confidence(len(scans), healthy_share=healthy_share))
    for volume_ml in VOLUMES_ML:
        value, median_ml = fit_false_volume(scans, volume_ml, healthy_share=healthy_share)
        method = f"at most {volume_ml:g} ml in {whom} ({sure}% confidence){pieces}"
        found[f"ml:{volume_ml:g}"] = Threshold(
            value=value, method=method, achieved=median_ml, healthy_share=healthy_share, **about
        )
    return found
