"""Fitting of thresholds on scores: by the best Dice, by false-positive rate and by false-positive volume."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError
from halebrain.core.wording import whole_percent
from halebrain.evaluation.curve import PooledCurve
from halebrain.thresholds.calibration import Threshold
from halebrain.thresholds.false_positive_volume import (
    POPULATION_FRACTION,
    VOLUMES_ML,
    HealthyMap,
    fit_false_volume,
    reached_confidence,
)

Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]

_RATES = (0.01, 0.05, 0.1)
"""Fractions of healthy voxels that thresholds by false-positive rate mark."""


def threshold_names(*, annotated: bool, healthy: bool) -> list[str]:
    """Return the names of the thresholds that annotated and healthy scans give, in their order."""
    by_healthy = [*(f"fpr:{rate:g}" for rate in _RATES), *(f"ml:{volume:g}" for volume in VOLUMES_ML)]
    return ["dice"] * annotated + by_healthy * healthy


def by_dice(
    scores: Sequence[Scores], references: Sequence[Labels], contrasts: Sequence[str], **about: Any
) -> dict[str, Threshold]:
    """Return the threshold of the best pooled Dice on annotated scans; nothing where there are none.

    Scores and references (bool) are those of the voxels of each scan, `(m,)`; `about` are fields of all thresholds.
    """
    if not scores:
        return {}
    value, dice = fit_best_dice(scores, references)
    return {"dice": Threshold(value=value, method="best pooled Dice", achieved=dice, **_scans(contrasts), **about)}


def by_rate(scores: Sequence[Scores], contrasts: Sequence[str], **about: Any) -> dict[str, Threshold]:
    """Return the thresholds by false-positive rate on healthy scans; arguments as `by_dice`."""
    found = {}
    for rate in _RATES if scores else ():
        value, share = fit_false_positive_rate(scores, rate)
        found[f"fpr:{rate:g}"] = Threshold(
            value=value, method=f"{rate:.0%} of healthy voxels", achieved=share, **_scans(contrasts), **about
        )
    return found


def by_healthy(scans: Sequence[HealthyMap], population_fraction: float, **about: Any) -> dict[str, Threshold]:
    """Return the thresholds by false-positive rate and volume on healthy scans; nothing where there are none.

    A fraction `population_fraction` of people keeps a limit in ml.
    """
    if not scans:
        return {}
    contrasts = [scan.modality for scan in scans]
    found = by_rate([scan.scores for scan in scans], contrasts, **about)
    smallest = scans[0].min_lesion_mm3
    pieces = f", components of {smallest:g} mm³ and more" if smallest > 0 else ""
    is_median = population_fraction == POPULATION_FRACTION
    whom = "the median healthy scan" if is_median else f"{100 * population_fraction:g}% of healthy scans"
    sure = whole_percent(reached_confidence(len(scans), population_fraction=population_fraction))
    for volume_ml in VOLUMES_ML:
        value, median_ml = fit_false_volume(scans, volume_ml, population_fraction=population_fraction)
        found[f"ml:{volume_ml:g}"] = Threshold(
            value=value,
            method=f"at most {volume_ml:g} ml in {whom} ({sure}% confidence){pieces}",
            achieved=median_ml,
            population_fraction=population_fraction,
            **_scans(contrasts),
            **about,
        )
    return found


def _scans(contrasts: Sequence[str]) -> dict[str, Any]:
    return {"n_scans": len(contrasts), "modalities": tuple(sorted(set(contrasts)))}


def fit_best_dice(scores: Sequence[Scores], references: Sequence[Labels]) -> tuple[float, float]:
    """Return the threshold with the best pooled Dice, and that Dice; exact."""
    pooled = PooledCurve()
    for score, reference in zip(scores, references, strict=True):
        pooled.add(score, reference)
    if not pooled.has_lesion:
        raise DataError(
            "a Dice threshold needs validation scans with lesions",
            received="none",
            remedy="assign scans with a lesion mask to 'val'",
        )
    dice, value = pooled.finish().best_dice
    return value, dice


def fit_false_positive_rate(scores: Sequence[Scores], rate: float) -> tuple[float, float]:
    """Return the lowest threshold at which at most `rate` of healthy voxels are marked, and the fraction marked."""
    if not sum(score.size for score in scores):
        raise DataError(
            "a false-positive threshold needs healthy validation scans",
            received="none",
            remedy="assign scans of healthy people to 'val'",
        )
    ordered = np.sort(np.concatenate(scores))
    allowed = math.floor(rate * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return float(ordered[0]), 1.0
    value = float(np.nextafter(ordered[len(ordered) - allowed - 1], np.float32(np.inf)))
    return value, float((ordered >= value).mean())
