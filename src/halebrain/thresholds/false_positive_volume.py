"""Thresholds by false-positive volume: millilitres marked in a healthy scan."""

import math
import statistics
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Protocol, TypeVar

from halebrain.core.errors import DataError

VOLUMES_ML = (0.1, 0.5, 1.0)
"""False-positive volumes for which a calibration holds thresholds, as "ml:0.1", "ml:0.5" and "ml:1"."""

CONFIDENCE = 0.8
"""Confidence that the stated fraction of all healthy people keeps the limit."""

POPULATION_FRACTION = 0.5
"""Default fraction of healthy people who must keep the limit: one half, the median."""


class HasSubject(Protocol):
    """Something of a person."""

    @property
    def subject(self) -> str:
        """Whose it is; "" = nobody else's."""


OfPerson = TypeVar("OfPerson", bound=HasSubject)


class MarkedVolume(HasSubject, Protocol):
    """What of a healthy scan a threshold marks: never more at a higher one."""

    def marked_ml(self, threshold: float) -> float:
        """Return the volume marked at a threshold above 0, in ml."""

    def lowest_threshold(self, allowed_ml: float) -> float:
        """Return the lowest threshold at which at most `allowed_ml` is marked."""


def fit_false_volume(
    scans: Sequence[MarkedVolume],
    allowed_ml: float,
    *,
    population_fraction: float = POPULATION_FRACTION,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the lowest threshold at which a fraction of healthy people stays within `allowed_ml`.

    The sample median is not the population median: half of the time the latter is higher. So more than half
    of the people must keep the limit, as order statistics require: 7 of 10, 15 of 24, 55 of 100. The median is used,
    not the mean, so that one scan with an artefact or an unnoticed disease has little influence. A larger
    fraction requires more people to keep the limit, and all of them if there are few. A person with several scans
    keeps it where all of them do.

    Args:
        scans: Healthy scans. Too few people for the confidence (two) must all keep the limit.
        allowed_ml: False-positive volume of a scan in ml.
        population_fraction: The fraction of all people who keep the limit; ½ = the median.
        confidence: Confidence of the limit for any distribution; 0 = for the given scans only.

    Returns:
        The threshold, and the median false-positive volume in ml of the given scans at it.

    Raises:
        DataError: There is no scan.
    """
    if not scans:
        raise DataError(
            "a threshold by false-positive volume needs healthy validation scans",
            received="none",
            remedy="assign scans of healthy people to 'val'",
        )
    # Each person keeps the limit from their own lowest threshold on.
    lowest = sorted(max(scan.lowest_threshold(allowed_ml) for scan in own) for own in by_person(scans))
    value = lowest[people_to_keep(len(lowest), confidence, population_fraction=population_fraction) - 1]
    return value, statistics.median(scan.marked_ml(value) for scan in scans)


def by_person(scans: Iterable[OfPerson]) -> list[list[OfPerson]]:
    """Return the scans of each person, in the order of their first ones; each one of nobody known stands alone."""
    found: dict[object, list[OfPerson]] = {}
    for scan in scans:
        found.setdefault(scan.subject or object(), []).append(scan)
    return list(found.values())


def reached_confidence(count: int, *, population_fraction: float = POPULATION_FRACTION) -> float:
    """Return the confidence of a limit that `fit_false_volume` found on `count` people."""
    return min(CONFIDENCE, 1 - population_fraction**count)


def people_to_keep(count: int, confidence: float, *, population_fraction: float = POPULATION_FRACTION) -> int:
    """Return how many of `count` people must keep a limit so that a fraction of all people does with this confidence.

    A limit that fewer than a share q of all people keep is kept by at most k − 1 of n drawn ones with a probability of
    P(Bin(n, q) ≤ k − 1) or more. The distribution-free bound of a quantile (Conover 1999, section 3.2); never fewer
    than more than that share, and all where there are too few.
    """
    share = Fraction(population_fraction).limit_denominator(1000)
    below, enough = Fraction(0), math.floor(count * share) + 1
    for kept in range(1, count + 1):
        below += math.comb(count, kept - 1) * share ** (kept - 1) * (1 - share) ** (count - kept + 1)
        if kept >= enough and below >= confidence:
            return kept
    return count
