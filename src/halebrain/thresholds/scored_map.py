"""Scored scans of a calibration: what each threshold marks in them, with growth and without, exactly."""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.mask import Cut, fewest_voxels, to_mask
from halebrain.core.types import SCORE_STEP, FloatArray, MaskArray, ScanResult, voxel_mm3_of

LOWEST_THRESHOLD = SCORE_STEP
"""No threshold lies below the smallest score above 0 that a written map can hold."""


class ScoredMap:
    """The score of one scan on its own grid, cropped to the bounding box of the brain.

    In a healthy scan, every marked voxel is false positive. A higher threshold only shrinks components, so the marked
    volume never increases with the threshold, for any minimum lesion size.

    Args:
        score: Anomaly score in [0, 1], `(i, j, k)`.
        brain_mask: Bool, same shape; not empty.
        voxel_mm3: Volume of a voxel.
        min_lesion_mm3: Smallest lesion kept in a mask.
        modality: Contrast of the scan.
        scan_score: Its scan-level score.
        lesion: Annotated lesion, bool, same shape; `None` = a healthy scan.
        subject: Whose scan it is.
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
        lesion: MaskArray | None = None,
        subject: str = "",
    ) -> None:
        self.voxel_mm3, self.min_lesion_mm3 = voxel_mm3, min_lesion_mm3
        self.modality, self.scan_score, self.subject = modality, scan_score, subject
        used = [np.flatnonzero(brain_mask.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        self._brain = brain_mask[tuple(slice(index[0], index[-1] + 1) for index in used)].copy()
        self.scores: FloatArray = score[brain_mask]
        self.lesion: MaskArray = np.zeros(self.scores.shape, dtype=bool) if lesion is None else lesion[brain_mask]
        n_lesion = 0 if lesion is None else int(lesion.sum())
        self.lesion_ml = n_lesion * voxel_mm3 / 1000
        self._n_outside = n_lesion - int(self.lesion.sum())
        self._lowest: dict[float, float] = {}

    @classmethod
    def of(
        cls,
        result: ScanResult,
        *,
        min_lesion_mm3: float,
        modality: str,
        scan_score: float,
        lesion: MaskArray | None = None,
        subject: str = "",
    ) -> "ScoredMap":
        """Return the map of a scan from its result."""
        return cls(
            result.score,
            result.brain_mask,
            voxel_mm3=voxel_mm3_of(result.affine),
            min_lesion_mm3=min_lesion_mm3,
            modality=modality,
            scan_score=scan_score,
            lesion=lesion,
            subject=subject,
        )

    def judged(self) -> tuple[FloatArray, MaskArray]:
        """Return score and truth of the voxels of brain and lesion, `(m,)`, as evaluation judges them.

        Lesion outside the brain mask has score 0: it is missed at every threshold.
        """
        outside = np.zeros(self._n_outside, dtype=self.scores.dtype)
        return np.append(self.scores, outside), np.append(self.lesion, np.ones(self._n_outside, dtype=bool))

    def marked_ml(self, threshold: float) -> float:
        """Return the volume marked at a threshold above 0, in ml."""
        return self._count(self._volume(), threshold) * self.voxel_mm3 / 1000

    def lowest_threshold(self, allowed_ml: float) -> float:
        """Return the lowest threshold at which at most `allowed_ml` is marked; exact, and cached."""
        if allowed_ml not in self._lowest:
            self._lowest[allowed_ml] = self._find_lowest(math.floor(allowed_ml * 1000 / self.voxel_mm3 + 1e-9))
        return self._lowest[allowed_ml]

    def found(self, threshold: float) -> "FoundVolume":
        """Return what is marked at a threshold above 0, without growth."""
        marked = self._mask(self._volume(), Cut(threshold, self.min_lesion_mm3))[self._brain]
        voxels, overlap, voxel_ml = int(marked.sum()), int((marked & self.lesion).sum()), self.voxel_mm3 / 1000
        return FoundVolume(voxels * voxel_ml, overlap * voxel_ml, self.lesion_ml)

    def grown(self, grow_to: float) -> "GrownFindings":
        """Return the components that findings grow into, with the highest threshold at which each holds a seed."""
        volume = self._volume()
        inside = volume >= grow_to
        labels, count = ndimage.label(inside, structure=np.ones((3, 3, 3)))
        owner = labels[self._brain]
        levels = self._seed_levels(volume, labels, count)
        voxels = np.bincount(owner, minlength=count + 1)[1:]
        overlap = np.bincount(owner, weights=self.lesion, minlength=count + 1)[1:]
        usable = np.isfinite(levels)
        volumes, overlaps = (np.float64(self.voxel_mm3 / 1000) * part[usable] for part in (voxels, overlap))
        return GrownFindings(grow_to, levels[usable], volumes, overlaps, self.lesion_ml, self.subject)

    def _seed_levels(self, volume: FloatArray, labels: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.float64]:
        """Return for each component the highest threshold at which a seed is left in it; −∞ where there is none."""
        least = fewest_voxels(self.min_lesion_mm3, self.voxel_mm3)
        if least <= 1:
            return np.asarray(ndimage.maximum(volume, labels, np.arange(1, count + 1)), dtype=np.float64)
        levels = np.full(count, -np.inf)
        for index, box in enumerate(ndimage.find_objects(labels)):
            own = np.where(labels[box] == index + 1, volume[box], np.float32(0))
            if np.count_nonzero(own) >= least:
                levels[index] = self._highest_seed(own, np.unique(own[own > 0]))
        return levels

    def _highest_seed(self, own: FloatArray, steps: FloatArray) -> float:
        """Return the highest of the scores of one component at which a piece of the smallest size is left."""

        def is_gone(index: int) -> bool:
            return not self._mask(own, Cut(float(steps[index]), self.min_lesion_mm3)).any()

        return float(steps[bisect_left(range(len(steps)), True, key=is_gone) - 1])

    def _find_lowest(self, allowed: int) -> float:
        steps, counts = np.unique(self.scores[self.scores > 0], return_counts=True)
        # above[i]: voxels that reach steps[i]; above[-1] = 0: none reaches a threshold beyond the highest.
        above = np.append(np.cumsum(counts[::-1])[::-1], 0)
        found = int(np.argmax(above <= allowed))
        if fewest_voxels(self.min_lesion_mm3, self.voxel_mm3) > 1:
            volume = self._volume()
            found = _first_that(lambda i: self._count(volume, float(steps[i])) <= allowed, found, allowed)
        if found == 0:
            return LOWEST_THRESHOLD
        return max(_just_above(float(steps[found - 1])), LOWEST_THRESHOLD)

    def _volume(self) -> FloatArray:
        volume = np.zeros(self._brain.shape, dtype=np.float32)
        volume[self._brain] = self.scores
        return volume

    def _count(self, volume: FloatArray, threshold: float) -> int:
        return int(self._mask(volume, Cut(threshold, self.min_lesion_mm3)).sum())

    def _mask(self, volume: FloatArray, cut: Cut) -> MaskArray:
        return to_mask(volume, cut, voxel_mm3=self.voxel_mm3)


@dataclass(frozen=True)
class FoundVolume:
    """Volume of a mask, of its overlap with the annotated lesion, and of that lesion, in ml."""

    marked_ml: float
    overlap_ml: float
    lesion_ml: float

    @property
    def dice(self) -> float:
        """Dice overlap, 0 to 1; 0 where both are empty."""
        both = self.marked_ml + self.lesion_ml
        return 2 * self.overlap_ml / both if both > 0 else 0.0


@dataclass(frozen=True)
class GrownFindings:
    """The components of one scan that findings can grow into at a lower threshold.

    Args:
        grow_to: The lower threshold.
        levels: Highest threshold at which each component holds a seed, `(n,)`.
        volumes_ml: Volume of each, `(n,)`.
        overlaps_ml: Volume of the annotated lesion in each, `(n,)`.
        lesion_ml: Volume of the annotated lesion.
        subject: Whose scan it is.
    """

    grow_to: float
    levels: npt.NDArray[np.float64]
    volumes_ml: npt.NDArray[np.float64]
    overlaps_ml: npt.NDArray[np.float64]
    lesion_ml: float
    subject: str = ""

    def found(self, threshold: float) -> FoundVolume:
        """Return what is marked when seeds at a threshold above the lower one grow."""
        has_seed = self.levels >= threshold
        return FoundVolume(
            float(self.volumes_ml[has_seed].sum()), float(self.overlaps_ml[has_seed].sum()), self.lesion_ml
        )

    def marked_ml(self, threshold: float) -> float:
        """Return the volume marked when seeds at a threshold above the lower one grow, in ml."""
        return self.found(threshold).marked_ml

    def lowest_threshold(self, allowed_ml: float) -> float:
        """Return the lowest threshold above the lower one at which at most `allowed_ml` is marked; exact."""
        order = np.argsort(-self.levels, kind="stable")
        levels, marked = self.levels[order], np.cumsum(self.volumes_ml[order])
        # Findings of one level come and go together, and the first that is too many ends the search.
        too_many = np.flatnonzero(marked > allowed_ml + 1e-9)
        last = self.grow_to if len(too_many) == 0 else float(levels[too_many[0]])
        return _just_above(max(last, self.grow_to))


def _just_above(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


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
