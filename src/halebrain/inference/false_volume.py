"""False-positive volume of a healthy scan at a threshold, with the mask that `detect` writes, and the inverse."""

import math
from collections.abc import Callable

import numpy as np

from halebrain.core.mask import to_mask
from halebrain.core.types import FloatArray, MaskArray, ScanResult

LOWEST_THRESHOLD = 1 / 65535
"""The smallest score above 0 that a written map can hold; no threshold lies below it."""


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
            voxel_mm3=abs(float(np.linalg.det(result.affine[:3, :3]))),
            min_lesion_mm3=min_lesion_mm3,
            modality=modality,
            scan_score=scan_score,
        )

    def called_ml(self, threshold: float) -> float:
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
    """Return the first index from which `holds` is true; it is at `known`, and stays true once it is.

    Args:
        holds: The condition, expensive to evaluate; only evaluated below `known`.
        known: An index at which it holds.
        stride: Initial search distance.
    """
    low, stride = known, max(stride, 1)
    while low > 0:
        low = max(known - stride, 0)
        if not holds(low):
            break
        known, stride = low, 2 * stride
    else:
        return 0
    while known - low > 1:
        middle = (low + known) // 2
        low, known = (low, middle) if holds(middle) else (middle, known)
    return known
