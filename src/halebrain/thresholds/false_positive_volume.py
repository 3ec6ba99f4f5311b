"""Thresholds by false-positive volume: millilitres marked in a healthy scan."""

import math
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.mask import to_mask
from halebrain.core.types import FloatArray, MaskArray, ScanResult, voxel_mm3_of

VOLUMES_ML = (0.1, 0.5, 1.0)
"""False-positive volumes for which a calibration holds thresholds, as "ml:0.1", "ml:0.5" and "ml:1"."""

LOWEST_THRESHOLD = 1 / 65535
"""The smallest score above 0 that a written map can hold; no threshold lies below it."""

CONFIDENCE = 0.8
"""Confidence that the stated fraction of all healthy people keeps the limit."""

POPULATION_FRACTION = 0.5
"""Default fraction of healthy people who must keep the limit: one half, the median."""


def fit_false_volume(
    scans: Sequence["HealthyMap"],
    allowed_ml: float,
    *,
    population_fraction: float = POPULATION_FRACTION,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return the lowest threshold at which a fraction of healthy people stays within `allowed_ml`.

    The sample median is not the population median: half of the time the latter is higher. So more than half
    of the scans must keep the limit, as order statistics require: 7 of 10, 15 of 24, 55 of 100. The median is used,
    not the mean, so that one scan with an artefact or an unnoticed disease has little influence. A larger
    fraction requires more scans to keep the limit, and all of them if there are few.

    Args:
        scans: Healthy scans, one of each person. Too few for the confidence (two) must all keep the limit.
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
    # Each scan keeps the limit from its own lowest threshold on.
    lowest = sorted(scan.lowest_threshold(allowed_ml) for scan in scans)
    value = lowest[scans_to_keep(len(scans), confidence, population_fraction=population_fraction) - 1]
    return value, statistics.median(scan.marked_ml(value) for scan in scans)


def reached_confidence(count: int, *, population_fraction: float = POPULATION_FRACTION) -> float:
    """Return the confidence of a limit that `fit_false_volume` found on `count` scans."""
    return min(CONFIDENCE, 1 - population_fraction**count)


def scans_to_keep(count: int, confidence: float, *, population_fraction: float = POPULATION_FRACTION) -> int:
    """Return how many of `count` scans must keep a limit so that a fraction of all people does with this confidence.

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


class HealthyMap:
    """The score of one healthy scan on its own grid, cropped to the bounding box of the brain.

    Every marked voxel is false positive. A higher threshold only shrinks components, so the marked volume never
    increases with the threshold, for any minimum lesion size.

    Args:
        score: Anomaly score in [0, 1], `(i, j, k)`.
        brain_mask: Bool, same shape; not empty.
        voxel_mm3: Volume of a voxel.
        min_lesion_mm3: Smallest lesion kept in a mask.
        modality: Contrast of the scan.
        scan_score: Its scan-level score.
    """

    def __init__(
        self,
        score: FloatArray,
        brain_mask: MaskArray,
        *,
        voxel_mm3: float,
        min_lesion_mm3: float,
        modality: str,
        scan_score: float,
    ) -> None:
        self.voxel_mm3, self.min_lesion_mm3 = voxel_mm3, min_lesion_mm3
        self.modality, self.scan_score = modality, scan_score
        used = [np.flatnonzero(brain_mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        self._brain = brain_mask[tuple(slice(index[0], index[-1] + 1) for index in used)].copy()
        self.scores: FloatArray = score[brain_mask]
        self._lowest: dict[float, float] = {}

    @classmethod
    def of(cls, result: ScanResult, *, min_lesion_mm3: float, modality: str, scan_score: float) -> "HealthyMap":
        """Return the map of a scan from its result."""
        return cls(
            result.score,
            result.brain_mask,
            voxel_mm3=voxel_mm3_of(result.affine),
            min_lesion_mm3=min_lesion_mm3,
            modality=modality,
            scan_score=scan_score,
        )

    def marked_ml(self, threshold: float) -> float:
        """Return the volume marked at a threshold above 0, in ml."""
        return self._count(self._volume(), threshold) * self.voxel_mm3 / 1000

    def lowest_threshold(self, allowed_ml: float) -> float:
        """Return the lowest threshold at which at most `allowed_ml` is marked; exact, and cached."""
        if allowed_ml not in self._lowest:
            self._lowest[allowed_ml] = self._find_lowest(math.floor(allowed_ml * 1000 / self.voxel_mm3 + 1e-9))
        return self._lowest[allowed_ml]

    def _find_lowest(self, allowed: int) -> float:
        steps, counts = np.unique(self.scores[self.scores > 0], return_counts=True)
        # above[i]: voxels that reach steps[i]; above[-1] = 0: none reaches a threshold beyond the highest.
        above = np.append(np.cumsum(counts[::-1])[::-1], 0)
        found = int(np.argmax(above <= allowed))
        if self.min_lesion_mm3 > self.voxel_mm3:
            volume = self._volume()
            found = _first_that(lambda i: self._count(volume, float(steps[i])) <= allowed, found, allowed)
        if found == 0:
            return LOWEST_THRESHOLD
        return max(float(np.nextafter(steps[found - 1], np.float32(np.inf))), LOWEST_THRESHOLD)

    def _volume(self) -> FloatArray:
        volume = np.zeros(self._brain.shape, dtype=np.float32)
        volume[self._brain] = self.scores
        return volume

    def _count(self, volume: FloatArray, threshold: float) -> int:
        kept = to_mask(volume, threshold=threshold, min_lesion_mm3=self.min_lesion_mm3, voxel_mm3=self.voxel_mm3)
        return int(kept.sum())


def _first_that(holds: Callable[[int], bool], known: int, stride: int) -> int:
    """Return the first index from which `holds`, which is expensive and stays true, is true; it is at `known`."""
    low, stride = known, max(stride, 1)
    while low > 0:
        low = max(known - stride, 0)
        if not holds(low):
            break
        known, stride = low, 2 * stride
    else:
        return 0
    return low + 1 + bisect_left(range(low + 1, known), True, key=holds)
