"""Voxel metrics: from the exact curve for graded maps, from four counts for masks."""

from halebrain.evaluation.case import Case
from halebrain.evaluation.metrics.base import ALWAYS, UNDEFINED, EmptyPolicy, define


def _dice(case: Case) -> float:
    true, false, missed, _ = case.counts
    return 2 * true / (2 * true + false + missed)


def _precision(case: Case) -> float:
    true, false, _, _ = case.counts
    return true / (true + false)


def _recall(case: Case) -> float:
    true, _, missed, _ = case.counts
    return true / (true + missed)


def _specificity(case: Case) -> float:
    _, false, _, quiet = case.counts
    return quiet / (quiet + false) if quiet + false else UNDEFINED


def _volume_error(case: Case) -> float:
    _, false, missed, _ = case.counts
    return (false - missed) * case.voxel_ml


def _false_volume(case: Case) -> float:
    return case.counts[1] * case.voxel_ml


def _false_volume_near_ventricles(case: Case) -> float:
    if case.near_ventricles is None:
        return UNDEFINED
    return int((case.predicted & ~case.reference & case.near_ventricles).sum()) * case.voxel_ml


define("auprc", "area under the precision–recall curve of voxels", lambda c: c.curve.average_precision, needs="score")
define("auroc", "area under the ROC curve of voxels", lambda c: c.curve.auroc, needs="score")
define("dice", "Dice at the frozen threshold: the main metric", _dice, needs="mask")
define(
    "dice_oracle_per_scan",
    "Dice at the threshold that is best for this scan: an upper bound, not a result",
    lambda c: c.curve.best_dice[0],
    needs="score",
)
# Precision of nothing is undefined, not zero: nothing was claimed.
_UNCLAIMED = EmptyPolicy(UNDEFINED, UNDEFINED, UNDEFINED)
define("precision", "fraction of the predicted voxels that are lesion", _precision, needs="mask", on_empty=_UNCLAIMED)
define("recall", "fraction of the lesion voxels that are predicted", _recall, needs="mask")
define(
    "specificity", "fraction of the other voxels that are not predicted", _specificity, needs="mask", on_empty=ALWAYS
)
define(
    "volume_error",
    "predicted minus true volume",
    _volume_error,
    needs="mask",
    unit="ml",
    better="nearer to 0",
    on_empty=ALWAYS,
)
define(
    "false_positive_volume",
    "false-positive volume: predicted volume outside any lesion",
    _false_volume,
    needs="mask",
    unit="ml",
    better="lower",
    on_empty=ALWAYS,
)
define(
    "false_positive_volume_near_ventricles",
    "its part in the template's ventricles or within 8 mm of them; old people have wide ventricles and caps there",
    _false_volume_near_ventricles,
    needs="mask",
    unit="ml",
    better="lower",
    on_empty=ALWAYS,
)
