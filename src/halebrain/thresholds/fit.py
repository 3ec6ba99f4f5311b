"""Fitting of thresholds on scores: by the best Dice, by false-positive rate and by false-positive volume."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError
from halebrain.core.wording import whole_percent
from halebrain.evaluation.curve import PooledCurve
from halebrain.thresholds.calibration import Growth, Threshold, VolumeFit
from halebrain.thresholds.false_positive_volume import (
    POPULATION_FRACTION,
    VOLUMES_ML,
    by_person,
    fit_false_volume,
    reached_confidence,
)
from halebrain.thresholds.growth import ChosenGrowth, choose_growth
from halebrain.thresholds.scored_map import LOWEST_THRESHOLD, ScoredMap
from halebrain.thresholds.volume import fit_volume

Scores = npt.NDArray[np.float32]
Labels = npt.NDArray[np.bool_]

_RATES = (0.01, 0.05, 0.1)
"""Fractions of healthy voxels that thresholds by false-positive rate mark."""
_LIMITS = {f"ml:{volume:g}": volume for volume in VOLUMES_ML}
"""Name → false-positive volume in ml of the thresholds by volume."""


def threshold_names(*, annotated: bool, healthy: bool) -> list[str]:
    """Return the names of the thresholds that annotated and healthy scans give, in their order."""
    by_healthy = [*(f"fpr:{rate:g}" for rate in _RATES), *_LIMITS]
    return ["dice"] * annotated + by_healthy * healthy


def by_dice(
    scores: Sequence[Scores], references: Sequence[Labels], contrasts: Sequence[str], **about: Any
) -> dict[str, Threshold]:
    """Return the threshold of the best pooled Dice on annotated scans; nothing where there are none.

    Scores and references (bool) are those of the voxels of brain and lesion of each scan, `(m,)`; `about` are fields of
    all thresholds.
    """
    if not scores:
        return {}
    value, dice = fit_best_dice(scores, references)
    return {"dice": Threshold(value=value, method="best pooled Dice", achieved=dice, **_scans(contrasts), **about)}


def by_dice_of(scans: Sequence[ScoredMap], **about: Any) -> dict[str, Threshold]:
    """Return `by_dice` of annotated scans."""
    judged = [scan.judged() for scan in scans]
    contrasts = [scan.modality for scan in scans]
    return by_dice([scores for scores, _ in judged], [truth for _, truth in judged], contrasts, **about)


def by_rate(scores: Sequence[Scores], contrasts: Sequence[str], **about: Any) -> dict[str, Threshold]:
    """Return the thresholds by false-positive rate on healthy scans; arguments as `by_dice`."""
    found = {}
    for rate in _RATES if scores else ():
        value, share = fit_false_positive_rate(scores, rate)
        found[f"fpr:{rate:g}"] = Threshold(
            value=value, method=f"{rate:.0%} of healthy voxels", achieved=share, **_scans(contrasts), **about
        )
    return found


def by_healthy(
    scans: Sequence[ScoredMap],
    population_fraction: float,
    *,
    patients: Sequence[ScoredMap] = (),
    default: str | None = None,
    grow: bool = True,
    **about: Any,
) -> dict[str, Threshold]:
    """Return the thresholds by false-positive rate and volume on healthy scans; nothing where there are none.

    Args:
        scans: Healthy scans.
        population_fraction: Fraction of people who keep a limit in ml.
        patients: Annotated scans of the same contrast, on which the growth of findings is chosen and volumes are
            compared; () = neither.
        default: Name of the threshold at which it is chosen; where it is none in ml, that is "ml:1".
        grow: Whether findings may grow, where the patients show that this is better.
        about: Fields of all thresholds.
    """
    if not scans:
        return {}
    contrasts = [scan.modality for scan in scans]
    found = by_rate([scan.scores for scan in scans], contrasts, **about)
    smallest = scans[0].min_lesion_mm3
    pieces = f", components of {smallest:g} mm³ and more" if smallest > 0 else ""
    is_median = population_fraction == POPULATION_FRACTION
    whom = "the median healthy scan" if is_median else f"{100 * population_fraction:g}% of healthy scans"
    sure = whole_percent(reached_confidence(len(by_person(scans)), population_fraction=population_fraction))
    chosen_at = default if default in _LIMITS else "ml:1"
    chosen = None
    if grow:
        chosen = choose_growth(scans, patients, _LIMITS[chosen_at], population_fraction=population_fraction)
    for name, volume_ml in _LIMITS.items():
        value, median_ml = fit_false_volume(scans, volume_ml, population_fraction=population_fraction)
        growth, grown = None, ""
        if chosen is not None:
            growth, grown = _growth(chosen, chosen_at, value), f", grown to {chosen.grow_to:.4f}"
            value, median_ml = fit_false_volume(chosen.healthy, volume_ml, population_fraction=population_fraction)
        found[name] = Threshold(
            value=value,
            method=f"at most {volume_ml:g} ml in {whom} ({sure}% confidence){pieces}{grown}",
            achieved=median_ml,
            population_fraction=population_fraction,
            growth=growth,
            volume=_volume(chosen, patients, value),
            **_scans(contrasts),
            **about,
        )
    return found


def _volume(chosen: ChosenGrowth | None, patients: Sequence[ScoredMap], value: float) -> VolumeFit | None:
    if not patients:
        return None
    found = [scan.found(value) for scan in (patients if chosen is None else chosen.patients)]
    marked = [(scan.subject, one) for scan, one in zip(patients, found, strict=True)]
    return fit_volume(marked, min_lesion_mm3=patients[0].min_lesion_mm3)


def _growth(chosen: ChosenGrowth, chosen_at: str, value_without: float) -> Growth:
    return Growth(
        value=chosen.grow_to,
        chosen_at=chosen_at,
        n_scans=chosen.n_scans,
        mean_dice=chosen.mean_dice,
        mean_dice_without=chosen.mean_dice_without,
        value_without=value_without,
        unadjusted_ml=statistics.median(scan.marked_ml(value_without) for scan in chosen.healthy),
    )


def _scans(contrasts: Sequence[str]) -> dict[str, Any]:
    return {"n_scans": len(contrasts), "modalities": tuple(sorted(set(contrasts)))}


def fit_best_dice(scores: Sequence[Scores], references: Sequence[Labels]) -> tuple[float, float]:
    """Return the threshold with the best pooled Dice, and that Dice; exact. A threshold of 0 would mark everything."""
    pooled = PooledCurve()
    for score, reference in zip(scores, references, strict=True):
        pooled.add(score, reference)
    if not pooled.has_lesion:
        raise DataError(
            "a Dice threshold needs validation scans with lesions",
            received="none",
            remedy="assign scans with a lesion mask to 'val'",
        )
    dice, value = pooled.finish().best_dice_from(LOWEST_THRESHOLD)
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
    above = float(np.nextafter(ordered[len(ordered) - allowed - 1], np.float32(np.inf)))
    value = max(above, LOWEST_THRESHOLD)  # where most voxels score 0
    return value, float((ordered >= value).mean())
