"""How far findings grow: the lower threshold of a hysteresis, chosen on annotated validation patients of a contrast."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from halebrain.thresholds.false_positive_volume import POPULATION_FRACTION, fit_false_volume
from halebrain.thresholds.scored_map import LOWEST_THRESHOLD, GrownFindings, ScoredMap

MIN_PATIENTS = 5
"""Minimum number of annotated patients of a contrast for its own lower threshold."""

FRACTIONS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Lower thresholds that are tried, as fractions of the threshold that keeps the limit without growth."""

LEAST_GAIN = 0.005
"""Gain of mean Dice below which findings do not grow."""


@dataclass(frozen=True)
class ChosenGrowth:
    """A lower threshold, and what it was chosen by.

    Args:
        grow_to: The lower threshold.
        mean_dice: Mean Dice of the patients with it, each at the seed threshold that keeps the limit with growth.
        mean_dice_without: Mean Dice without growth, at the threshold that keeps the limit without it.
        n_scans: Scans of those patients.
        healthy: What the healthy scans hold at it.
        patients: What the patients' scans hold at it.
    """

    grow_to: float
    mean_dice: float
    mean_dice_without: float
    n_scans: int
    healthy: tuple[GrownFindings, ...]
    patients: tuple[GrownFindings, ...]


def choose_growth(
    healthy: Sequence[ScoredMap],
    patients: Sequence[ScoredMap],
    allowed_ml: float,
    *,
    population_fraction: float = POPULATION_FRACTION,
) -> ChosenGrowth | None:
    """Return the lower threshold with the highest mean Dice on patients, where growth is better than none.

    For each lower threshold the seed threshold is fitted again on the healthy scans, so that the limit on
    false-positive volume holds for the grown mask; Dice is that of the two together. Among equals the highest is taken.

    Args:
        healthy: Healthy scans of one contrast.
        patients: Annotated scans of the same contrast; fewer than five patients choose nothing.
        allowed_ml: False-positive volume of a healthy scan.
        population_fraction: Fraction of healthy people who keep it.
    """
    if not healthy or len({scan.subject for scan in patients}) < MIN_PATIENTS:
        return None
    plain, _ = fit_false_volume(healthy, allowed_ml, population_fraction=population_fraction)
    without = statistics.fmean(scan.found(plain).dice for scan in patients)
    best: ChosenGrowth | None = None
    for fraction in sorted(FRACTIONS, reverse=True):
        grow_to = float(np.float32(plain * fraction))
        if grow_to < LOWEST_THRESHOLD:
            continue
        grown = tuple(scan.grown(grow_to) for scan in healthy)
        value, _ = fit_false_volume(grown, allowed_ml, population_fraction=population_fraction)
        ill = tuple(scan.grown(grow_to) for scan in patients)
        dice = statistics.fmean(scan.found(value).dice for scan in ill)
        if best is None or dice > best.mean_dice + 1e-9:
            best = ChosenGrowth(grow_to, dice, without, len(patients), grown, ill)
    return best if best is not None and best.mean_dice >= without + LEAST_GAIN else None
