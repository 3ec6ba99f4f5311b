"""Reliability curve and expected calibration error of the score."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

_BINS = 15


@dataclass
class Reliability:
    """Counts over equal bins of [0, 1], as scans come; exact whatever their number.

    Args:
        count: Voxels in each bin.
        total: Sum of their scores.
        lesion: How many of them are lesion.
    """

    count: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    total: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(_BINS))
    lesion: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, score: npt.NDArray[np.floating], reference: npt.NDArray[np.bool_]) -> None:
        """Add the voxels of one scan, scores in [0, 1].

        Raises:
            ValueError: A score lies outside.
        """
        if score.size and (score.min() < 0 or score.max() > 1):
            raise ValueError(f"probabilities lie in [0, 1], got {score.min():g} to {score.max():g}")
        place = np.minimum((score * _BINS).astype(np.int64), _BINS - 1)
        self.count += np.bincount(place, minlength=_BINS)
        self.total += np.bincount(place, weights=score, minlength=_BINS)
        self.lesion += np.bincount(place[reference], minlength=_BINS)

    def curve(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return mean score, share of lesion and number of voxels of each bin that holds any."""
        held = self.count > 0
        return self.total[held] / self.count[held], self.lesion[held] / self.count[held], self.count[held]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean |score − share of lesion| over bins, weighted by voxels; in [0, 1]."""
        score, share, count = self.curve()
        return float((np.abs(score - share) * count).sum() / max(count.sum(), 1))
