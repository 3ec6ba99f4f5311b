"""Lesion-wise metrics: found and missed lesions, by size, and false positives.

Matching rule: lesions are components of 26 neighbours; a true lesion is found where the prediction shares at least one
voxel with it; a predicted lesion is false where it shares none with any true one.
"""

import numpy as np
import numpy.typing as npt

from halebrain.evaluation.case import Case
from halebrain.evaluation.metrics.base import ALWAYS, UNDEFINED, EmptyPolicy, define

SIZE_BINS_ML = {"0-0.1ml": (0.0, 0.1), "0.1-1ml": (0.1, 1.0), "1-10ml": (1.0, 10.0), "10ml-": (10.0, float("inf"))}
"""Sizes of true lesions by their names in tables, from low (included) to high."""


def found_lesions(case: Case) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return the volume in ml of each true lesion, and whether it was found."""
    labels, count = case.reference_lesions
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    touched = np.bincount(labels[case.predicted], minlength=count + 1)[1:]
    return voxels.astype(np.float64) * case.voxel_ml, touched > 0


def count_false_lesions(case: Case) -> int:
    """Return how many predicted lesions touch no true one."""
    labels, count = case.predicted_lesions
    touched = np.bincount(labels[case.reference & case.region], minlength=count + 1)[1:]
    return int((touched == 0).sum())


def _sensitivity(case: Case) -> float:
    return float(found_lesions(case)[1].mean())


def _f1(case: Case) -> float:
    found = found_lesions(case)[1]
    return 2 * int(found.sum()) / (2 * int(found.sum()) + int((~found).sum()) + count_false_lesions(case))


def _sensitivity_of_size(case: Case, low: float, high: float) -> float:
    volume, found = found_lesions(case)
    chosen = (volume >= low) & (volume < high)
    return float(found[chosen].mean()) if chosen.any() else UNDEFINED


define(
    "lesion_sensitivity",
    "fraction of true lesions (26-neighbour components) that overlap the prediction",
    _sensitivity,
    needs="mask",
)
define("lesion_f1", "F1 of lesions: found, missed, false positive; found = overlaps the prediction", _f1, needs="mask")
define(
    "false_lesions",
    "predicted lesions that overlap no true lesion",
    lambda c: float(count_false_lesions(c)),
    needs="mask",
    unit="lesions",
    better="lower",
    on_empty=ALWAYS,
)
_BY_SIZE = EmptyPolicy(no_reference=UNDEFINED, no_prediction=None, neither=UNDEFINED)
for _name, (_low, _high) in SIZE_BINS_ML.items():
    define(
        f"lesion_sensitivity_{_name}",
        f"fraction of true lesions of {_name} that were found",
        lambda c, low=_low, high=_high: _sensitivity_of_size(c, low, high),  # type: ignore[misc]
        needs="mask",
        on_empty=_BY_SIZE,
    )
