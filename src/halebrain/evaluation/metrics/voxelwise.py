"""Voxel metrics inside the brain: from one sort for graded maps, from four counts for masks."""

import numpy as np
import numpy.typing as npt

from halebrain.evaluation.metrics.base import METRICS, EmptyPolicy, Metric, MetricFunction

Scores = npt.NDArray[np.generic]
Labels = npt.NDArray[np.bool_]
Spacing = tuple[float, float, float]
_UNDEFINED = float("nan")


def precision_recall_counts(
    prediction: Scores, reference: Labels
) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for each distinct score from high to low, the score, true and false positives at that threshold.

    Exact: ties enter together, nothing is binned or thinned.

    Raises:
        ValueError: There is no voxel, or a score is NaN.
    """
    if prediction.size == 0 or np.isnan(prediction).any():
        # NaN would sort as the highest score and pass silently.
        raise ValueError(f"scores must be finite and not empty, got {prediction.size} voxels")
    order = np.argsort(prediction, kind="stable")[::-1]
    scores, hits = prediction[order], reference[order]
    last_of_tie = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    true = np.cumsum(hits, dtype=np.int64)[last_of_tie]
    return scores[last_of_tie], true, last_of_tie + 1 - true


def average_precision(prediction: Scores, reference: Labels) -> float:
    """Return the area under the precision–recall curve, Σ (Rₙ − Rₙ₋₁) Pₙ, in (0, 1]; higher = better."""
    _, true, false = precision_recall_counts(prediction, reference)
    steps = np.diff(true, prepend=0)
    return float((steps * (true / (true + false))).sum() / true[-1])


def best_dice(prediction: Scores, reference: Labels) -> tuple[float, float]:
    """Return the best Dice over all thresholds, and the highest threshold (score ≥ it) that reaches it."""
    scores, true, false = precision_recall_counts(prediction, reference)
    dices = 2 * true / (true + false + int(reference.sum()))
    best = int(np.argmax(dices))
    return float(dices[best]), float(scores[best])


def _metric(name: str, unit: str, better: bool | None, needs: str, on_empty: EmptyPolicy, fn: MetricFunction) -> None:
    METRICS.register(name)(Metric(name, unit, better, needs, on_empty, fn))  # type: ignore[arg-type]


def _counts(prediction: Scores, reference: Labels) -> tuple[int, int, int]:
    predicted = prediction.astype(bool)
    true = int((predicted & reference).sum())
    return true, int(predicted.sum()) - true, int(reference.sum()) - true


def _auprc(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    return average_precision(prediction, reference)


def _auroc(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    _, true, false = precision_recall_counts(prediction, reference)
    if false[-1] == 0:
        return _UNDEFINED
    return float(np.trapezoid(np.append(0, true / true[-1]), np.append(0, false / false[-1])))


def _oracle_dice(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    return best_dice(prediction, reference)[0]


def _dice(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    true, false, missed = _counts(prediction, reference)
    return 2 * true / (2 * true + false + missed)


def _precision(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    true, false, _ = _counts(prediction, reference)
    return true / (true + false)


def _recall(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    true, _, missed = _counts(prediction, reference)
    return true / (true + missed)


def _volume_error(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    return (int(prediction.astype(bool).sum()) - int(reference.sum())) * float(np.prod(spacing_mm)) / 1000


def _false_volume(*, prediction: Scores, reference: Labels, spacing_mm: Spacing) -> float:
    return _counts(prediction, reference)[1] * float(np.prod(spacing_mm)) / 1000


_NO_LESION = EmptyPolicy(no_reference=_UNDEFINED, no_prediction=0.0, neither=_UNDEFINED)
_ALWAYS = EmptyPolicy(no_reference=None, no_prediction=None, neither=None)

_metric("auprc", "", True, "score", _NO_LESION, _auprc)
_metric("auroc", "", True, "score", _NO_LESION, _auroc)
_metric("dice", "", True, "mask", _NO_LESION, _dice)
_metric("dice_oracle_per_scan", "", True, "score", _NO_LESION, _oracle_dice)
# Precision of nothing is undefined, not zero: nothing was claimed.
_metric("precision", "", True, "mask", EmptyPolicy(_UNDEFINED, _UNDEFINED, _UNDEFINED), _precision)
_metric("recall", "", True, "mask", _NO_LESION, _recall)
_metric("volume_error", "ml", None, "mask", _ALWAYS, _volume_error)
_metric("false_positive_volume", "ml", False, "mask", _ALWAYS, _false_volume)
