"""Fusion of the anomaly scores of several contrasts of one exam, voxel by voxel on the working grid.

Each contrast has its own scale: what is high on T1 is low on FLAIR. A fusion brings them to a common scale by what
healthy scans show, the healthy threshold of each contrast, and works with any set of contrasts. One contrast alone
keeps its score to the bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from halebrain.core.registry import Registry
from halebrain.core.types import FloatArray, MaskArray

DEFAULT = "root_odds"
WEIGHTS = {"FLAIR": 3.0, "T2w": 2.0, "T1w": 1.0, "T1ce": 0.5}
"""Weights of contrasts, chosen on virtual validation exams (docs/notes/exams.md). T1 with a contrast agent, which these
do not have, is scored by the networks of T1, to which vessels are unusual."""
_OTHER_WEIGHT = 1.0
_LEAST, _MOST = 1e-4, 1 - 1e-4
"""Scores are kept away from 0 and 1, where odds have no logarithm."""


@dataclass(frozen=True)
class ContrastScore:
    """The anomaly score of one contrast on the working grid.

    Args:
        contrast: A BIDS suffix, or `None` where it is not known.
        score: In [0, 1], `(i, j, k)`.
        inside: Where the scan shows brain, bool, same shape.
        healthy: The score that is high in a healthy scan of the contrast: its threshold by healthy scans, in (0, 1).
    """

    contrast: str | None
    score: FloatArray
    inside: MaskArray
    healthy: float


Fusion = Callable[[Sequence[ContrastScore]], FloatArray]
"""Two scores or more → the fused score in [0, 1], 0 where none of them shows brain."""

FUSIONS: Registry[Fusion] = Registry("fusion")


def fuse_contrasts(scores: Sequence[ContrastScore], name: str = DEFAULT) -> FloatArray:
    """Return the anomaly score of an exam in [0, 1], float32 `(i, j, k)`; 0 where no scan shows brain.

    Args:
        scores: The score of each contrast, one at least.
        name: A name in `FUSIONS`.

    Raises:
        ConfigError: The name is unknown.
    """
    fusion = FUSIONS.get(name)
    if len(scores) == 1:
        return scores[0].score
    return fusion(scores)


def fused_value(values: Sequence[tuple[str | None, float, float]], name: str = DEFAULT) -> float:
    """Return the fused score where contrasts have the given scores.

    Thresholds of single contrasts give that of an exam so.

    Args:
        values: Name, score and healthy score of each contrast.
        name: A name in `FUSIONS`.
    """
    shape, inside = (1, 1, 1), np.ones((1, 1, 1), dtype=bool)
    scores = [
        ContrastScore(contrast, np.full(shape, score, np.float32), inside, healthy)
        for contrast, score, healthy in values
    ]
    return float(fuse_contrasts(scores, name)[0, 0, 0])


@FUSIONS.register("mean")
def mean_score(scores: Sequence[ContrastScore]) -> FloatArray:
    """Return the mean of the scores of those contrasts that show a voxel."""
    inside = np.stack([score.inside for score in scores])
    total = np.stack([np.where(score.inside, score.score, 0) for score in scores]).sum(axis=0)
    return np.where(inside.any(axis=0), total / np.maximum(inside.sum(axis=0), 1), 0).astype(np.float32)


@FUSIONS.register("log_odds")
def mean_log_odds(scores: Sequence[ContrastScore]) -> FloatArray:
    """Return the mean of the log-odds relative to the healthy score of each contrast, as a score again."""
    evidence, inside, anchor = _evidence(scores)
    return _as_score(_mean(evidence, inside), inside, anchor)


@FUSIONS.register("weighted_odds")
def weighted_mean_odds(scores: Sequence[ContrastScore]) -> FloatArray:
    """Return the weighted mean of the odds relative to the healthy score of each contrast, as a score again.

    A mean of odds, unlike one of log-odds, keeps a lesion that one contrast shows clearly and another one not at all.
    """
    return _mean_power(scores, 1.0)


@FUSIONS.register("root_odds")
def weighted_mean_root_odds(scores: Sequence[ContrastScore]) -> FloatArray:
    """Return the same with the roots of the odds, squared after the mean.

    The false positives of one contrast weigh less.
    """
    return _mean_power(scores, 0.5)


def _mean_power(scores: Sequence[ContrastScore], power: float) -> FloatArray:
    """Return the weighted power mean of the odds relative to the healthy scores, as a score again."""
    evidence, inside, anchor = _evidence(scores)
    weights = np.array([WEIGHTS.get(score.contrast or "", _OTHER_WEIGHT) for score in scores])
    shown = np.where(inside, weights[:, None, None, None], 0)
    mean = (shown * np.exp(power * evidence)).sum(axis=0) / np.maximum(shown.sum(axis=0), 1e-9)
    return _as_score(np.log(np.where(inside.any(axis=0), mean, 1.0)) / power, inside, anchor)


def _evidence(
    scores: Sequence[ContrastScore],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], float]:
    """Return log-odds relative to the healthy score `(contrasts, i, j, k)`, where each shows brain, and the anchor.

    The anchor is the log-odds that evidence 0 becomes: the mean of those of the healthy scores.
    """
    healthy = [float(logit(np.clip(score.healthy, _LEAST, _MOST))) for score in scores]
    evidence = np.stack(
        [
            logit(np.clip(score.score.astype(np.float64), _LEAST, _MOST)) - usual
            for score, usual in zip(scores, healthy, strict=True)
        ]
    )
    return evidence, np.stack([score.inside for score in scores]), float(np.mean(healthy))


def _mean(evidence: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the mean over the contrasts that show a voxel; 0 where none does."""
    total: npt.NDArray[np.float64] = np.where(inside, evidence, 0).sum(axis=0) / np.maximum(inside.sum(axis=0), 1)
    return total


def _as_score(evidence: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_], anchor: float) -> FloatArray:
    return np.where(inside.any(axis=0), expit(evidence + anchor), 0).astype(np.float32)
