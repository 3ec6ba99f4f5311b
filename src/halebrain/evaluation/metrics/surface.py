"""Distances between surfaces, in millimetres; a surface voxel has a face towards the outside, as in MONAI."""

import numpy as np

from halebrain.evaluation.case import Case, bounding_box
from halebrain.evaluation.metrics.base import UNDEFINED, EmptyPolicy, define

_TOLERANCE_MM = 2.0
"""One voxel of the usual working grid, and about what two readers differ by."""


def _hausdorff_95(case: Case) -> float:
    if not case.predicted.any():
        # A missed lesion must not vanish from the mean: it counts as the whole brain's diagonal.
        return brain_diagonal_mm(case)
    return max(float(np.percentile(distances, 95)) for distances in case.surface_distances_mm)


def _surface_dice(case: Case) -> float:
    forth, back = case.surface_distances_mm
    near = int((forth <= _TOLERANCE_MM).sum()) + int((back <= _TOLERANCE_MM).sum())
    return near / (len(forth) + len(back))


def brain_diagonal_mm(case: Case) -> float:
    """Return the diagonal of the box around all voxels that count: no distance in this scan is longer."""
    sides = [(side.stop - side.start) * mm for side, mm in zip(bounding_box(case.region), case.spacing_mm, strict=True)]
    return float(np.linalg.norm(sides))


define(
    "hd95",
    "95th percentile of the distances between surfaces, the worse direction; the brain's diagonal where all was missed",
    _hausdorff_95,
    needs="mask",
    unit="mm",
    better="lower",
    on_empty=EmptyPolicy(no_reference=UNDEFINED, no_prediction=None, neither=UNDEFINED),
)
define(
    "surface_dice_2mm",
    "fraction of both surfaces within 2 mm of the other (Nikolov et al. 2021, on voxel surfaces)",
    _surface_dice,
    needs="mask",
)
