"""Every operating point of a graded map, exact: no bin, no thinning, from one sort of each class."""

import shutil
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halebrain.core.leftovers import new_scratch_folder

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """True and false positives at each distinct score of a lesion voxel, from high to low.

    Other thresholds are not needed: between two of these points only false positives are added, so neither the
    best Dice nor a step of the precision–recall curve lies there.

    Args:
        thresholds: Distinct scores of lesion voxels, descending, `(n,)`; a voxel is marked where score ≥ threshold.
        true: True positives, `(n,)`.
        false: False positives, `(n,)`.
        false_above: Other voxels whose score exceeds the threshold, `(n,)`; differs from `false` by ties.
        n_negative: Voxels without lesion.
    """

    thresholds: Scores
    true: Counts
    false: Counts
    false_above: Counts
    n_negative: int

    @classmethod
    def of(cls, score: Scores, reference: Labels) -> "Curve":
        """Return the curve of the scores `(m,)` of labelled voxels `(m,)`; `ValueError` without a lesion voxel."""
        positive, negative = split_by_label(score, reference)
        return _assemble(positive, [negative])

    @cached_property
    def average_precision(self) -> float:
        """Area under the precision–recall curve, Σ (Rₙ − Rₙ₋₁) Pₙ, in (0, 1]; higher = better."""
        steps = np.diff(self.true, prepend=0)
        return float((steps * (self.true / (self.true + self.false))).sum() / self.true[-1])

    @cached_property
    def auroc(self) -> float:
        """Share of (lesion, other) pairs in the right order, ties half; NaN without other voxels."""
        if self.n_negative == 0:
            return float("nan")
        steps = np.diff(self.true, prepend=0).astype(np.float64)
        below = self.n_negative - (self.false + self.false_above) / 2
        return float((steps * below).sum() / (float(self.true[-1]) * self.n_negative))

    @cached_property
    def best_dice(self) -> tuple[float, float]:
        """The best Dice over all thresholds, and the highest threshold that reaches it."""
        return self.best_dice_from(-np.inf)

    def best_dice_from(self, lowest: float) -> tuple[float, float]:
        """Return the best Dice over thresholds of at least `lowest`, and the highest one that reaches it.

        Where no lesion voxel has such a score, that is 0, at `lowest`.
        """
        usable = self.thresholds >= lowest
        if not usable.any():
            return 0.0, lowest
        dices = (2 * self.true / (self.true + self.false + self.true[-1]))[usable]
        best = int(np.argmax(dices))
        return float(dices[best]), float(self.thresholds[best])

    def points(self, most: int = 400) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return recall and precision for a figure, at most `most` points, spread over recall."""
        recall, precision = self.true / self.true[-1], self.true / (self.true + self.false)
        keep = np.unique(np.searchsorted(recall, np.linspace(0, 1, most)).clip(max=len(recall) - 1))
        return recall[keep], precision[keep]


class PooledCurve:
    """The curve over the voxels of many scans together, exact, without holding them all.

    Scores of lesion voxels, which are few, stay in memory; those of the others are sorted and laid in a temporary
    file a scan, and read one at a time in the end.
    """

    def __init__(self) -> None:
        self._folder = new_scratch_folder()
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._positive: list[Scores] = []
        self._files: list[Path] = []

    def add(self, score: Scores, reference: Labels) -> None:
        """Add the voxels of one scan."""
        self.add_sorted(*split_by_label(score, reference, needs_lesion=False))

    def add_sorted(self, positive: Scores, negative: Scores) -> None:
        """Add one scan by the sorted scores of its lesion voxels and of the others."""
        self._positive.append(positive)
        path = self._folder / f"{len(self._files)}.npy"
        np.save(path, negative)
        self._files.append(path)

    @property
    def has_lesion(self) -> bool:
        """Whether any voxel so far is lesion."""
        return any(values.size for values in self._positive)

    def finish(self) -> Curve:
        """Return the curve; `ValueError` where no scan had a lesion voxel."""
        return _assemble(np.sort(np.concatenate(self._positive)), self._stream())

    def _stream(self) -> Iterator[Scores]:
        for path in self._files:
            yield np.load(path)


def split_by_label(score: Scores, reference: Labels, *, needs_lesion: bool = True) -> tuple[Scores, Scores]:
    """Return the sorted scores of lesion voxels and of the others; `ValueError` where a needed lesion is missing."""
    if score.size == 0 or np.isnan(score).any():
        # NaN would sort as the highest score and pass silently.
        raise ValueError(f"scores must be finite and not empty, got {score.size} voxels")
    positive = np.sort(score[reference])
    if needs_lesion and positive.size == 0:
        raise ValueError("a curve needs lesion voxels")
    return positive, np.sort(score[~reference])


def _assemble(positive: Scores, negatives: "list[Scores] | Iterator[Scores]") -> Curve:
    if positive.size == 0:
        raise ValueError("a curve needs lesion voxels")
    thresholds = np.unique(positive)
    true = len(positive) - np.searchsorted(positive, thresholds, side="left")
    false, above = np.zeros(len(thresholds), np.int64), np.zeros(len(thresholds), np.int64)
    # How many scores lie between two thresholds, which is faster where there are more thresholds than scores in a scan.
    at, beyond = np.zeros(len(thresholds) + 1, np.int64), np.zeros(len(thresholds) + 1, np.int64)
    total = 0
    for negative in negatives:
        total += len(negative)
        if len(thresholds) <= len(negative):
            false += len(negative) - np.searchsorted(negative, thresholds, side="left")
            above += len(negative) - np.searchsorted(negative, thresholds, side="right")
        else:
            np.add.at(at, np.searchsorted(thresholds, negative, side="right"), 1)
            np.add.at(beyond, np.searchsorted(thresholds, negative, side="left"), 1)
    false += np.cumsum(at[::-1])[-2::-1]
    above += np.cumsum(beyond[::-1])[-2::-1]
    return Curve(thresholds[::-1], true[::-1].astype(np.int64), false[::-1], above[::-1], total)
