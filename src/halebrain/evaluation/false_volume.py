"""Thresholds by what a reader would see in vain: millilitres that a healthy scan shows."""

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

from halebrain.core.errors import DataError

VOLUMES_ML = (0.1, 0.5, 1.0)
"""False volumes for which a calibration holds thresholds, as "ml:0.1", "ml:0.5" and "ml:1"."""


class HealthyScan(Protocol):
    """A healthy scan that knows what is called in it."""

    def called_ml(self, threshold: float) -> float:
        """Return the volume called at a threshold, in ml; it never grows with the threshold."""

    def lowest_threshold(self, allowed_ml: float) -> float:
        """Return the lowest threshold at which at most `allowed_ml` is called."""


CONFIDENCE = 0.8
"""How sure one may be that the share of all healthy people who keep a limit is as said, from the few scans at hand."""

HEALTHY_SHARE = 0.5
"""The share of healthy people who keep a limit where nothing else is said: one half, which is the median one."""


def fit_false_volume(
    scans: Sequence[HealthyScan],
    allowed_ml: float,
    *,
    healthy_share: float = HEALTHY_SHARE,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the lowest threshold at which a share of healthy people shows at most `allowed_ml`, and what scans show.

    The median of those at hand is not that of those to come: half of the time the latter show more. So more than half
    of the scans must keep the limit, as many as the order statistics ask for: 7 of 10, 15 of 24, 55 of 100. The median,
    not the mean: one scan with an artefact, or with a disease that nobody noticed, does not decide for all. A larger
    share asks for more of them, and of few scans for all: then one does decide.

    Args:
        scans: Healthy scans, one of each person. Too few for the confidence (two) must all keep the limit.
        allowed_ml: False volume of a scan in ml.
        healthy_share: The share of all people who keep the limit; ½ = the median one.
        confidence: That they keep it, whatever the distribution; 0 = of the scans at hand.

    Returns:
        The threshold, and the median volume in ml that the scans at hand show at it.

    Raises:
        DataError: There is no scan.
    """
    if not scans:
        raise DataError(
            "a threshold by false volume needs healthy validation scans",
            received="none",
            remedy="put scans of healthy people into 'val'",
        )
    # Each scan keeps the limit from its own lowest threshold on.
    lowest = sorted(scan.lowest_threshold(allowed_ml) for scan in scans)
    value = lowest[scans_to_keep(len(scans), confidence, healthy_share=healthy_share) - 1]
    return value, statistics.median(scan.called_ml(value) for scan in scans)


def reached_confidence(count: int, *, healthy_share: float = HEALTHY_SHARE) -> float:
    """Return how sure one may be of a limit that `fit_false_volume` found on `count` scans: few say less."""
    return min(CONFIDENCE, 1 - healthy_share**count)


def scans_to_keep(count: int, confidence: float, *, healthy_share: float = HEALTHY_SHARE) -> int:
    """Return how many of `count` scans must keep a limit, so that a share of all people keeps it with this confidence.

    A limit that fewer than a share q of all people keep is kept by at most k − 1 of n drawn ones with a probability of
    P(Bin(n, q) ≤ k − 1) or more. The distribution-free bound of a quantile (Conover 1999, section 3.2); never fewer
    than more than that share, and all where there are too few.
    """
    share = Fraction(healthy_share).limit_denominator(1000)
    below, enough = Fraction(0), math.floor(count * share) + 1
    for kept in range(1, count + 1):
        below += math.comb(count, kept - 1) * share ** (kept - 1) * (1 - share) ** (count - kept + 1)
        if kept >= enough and below >= confidence:
            return kept
    return count
