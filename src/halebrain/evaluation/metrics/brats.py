"""Lesion-wise Dice and HD95 as the BraTS-2023 glioma challenge defines them.

Source: Saluja et al., "BraTS 2023 lesion-wise performance metrics". True lesions that meet when dilated three times
(18 neighbours) are one; every predicted component that touches a dilated lesion belongs to it; true ones of 50 mm³ or
less are left out, found or missed; missed and false ones count 0 (Dice) and 374 mm (HD95). So a scan whose only lesion
is that small, and where nothing is predicted, scores 1, as officially.
Differs from BraTS: surfaces are voxels with an open face, not triangles weighted by area; HD95 may differ by a voxel.
"""

import numpy as np
from scipy import ndimage

from halebrain.core.types import MaskArray
from halebrain.evaluation.case import Case, bounding_box, components, surface_distances_mm
from halebrain.evaluation.metrics.base import ALWAYS, define

_DILATIONS, _SMALLEST_MM3, _PENALTY_MM = 3, 50.0, 374.0
_EDGES = ndimage.generate_binary_structure(3, 2)


def brats_lesions(case: Case) -> tuple[list[tuple[float, float]], int]:
    """Return Dice and HD95 of each true lesion that counts, and the number of false predicted lesions."""
    reference = case.reference & case.region
    numbered, n_predicted = case.predicted_lesions
    if not reference.any():
        return [], n_predicted
    box = bounding_box(reference | (numbered > 0), margin=_DILATIONS + 1)
    reference, numbered = reference[box], numbered[box]
    scores, matched = [], np.zeros(n_predicted + 1, dtype=bool)
    groups, count = components(_dilate(reference))
    for group in range(1, count + 1):
        lesion = reference & (groups == group)
        touched = np.bincount(numbered[_dilate(lesion)], minlength=n_predicted + 1) > 0
        touched[0] = False
        matched |= touched
        if lesion.sum() * case.voxel_ml * 1000 > _SMALLEST_MM3:
            scores.append(_score(touched[numbered], lesion, case.spacing_mm))
    return scores, int((~matched[1:]).sum())


def _score(prediction: MaskArray, lesion: MaskArray, spacing_mm: tuple[float, float, float]) -> tuple[float, float]:
    if not prediction.any():
        return 0.0, _PENALTY_MM
    dice = 2 * int((prediction & lesion).sum()) / int(prediction.sum() + lesion.sum())
    distances = surface_distances_mm(prediction, lesion, spacing_mm)
    return dice, max(float(np.percentile(d, 95)) for d in distances)


def _dilate(mask: MaskArray) -> MaskArray:
    box = bounding_box(mask, margin=_DILATIONS + 1)
    dilated = np.zeros_like(mask)
    dilated[box] = ndimage.binary_dilation(mask[box], _EDGES, iterations=_DILATIONS)
    return dilated


def _lesion_dice(case: Case) -> float:
    scores, false = brats_lesions(case)
    total = len(scores) + false
    return sum(dice for dice, _ in scores) / total if total else 1.0


def _lesion_hd95(case: Case) -> float:
    scores, false = brats_lesions(case)
    total = len(scores) + false
    return (sum(hd for _, hd in scores) + false * _PENALTY_MM) / total if total else 0.0


_SMALL = "lesions up to 50 mm³ do not count there, so that a scan with no other, all missed, scores"
# As in the challenge, a scan without lesion and without prediction is perfect, not undefined.
define(
    "brats2023_lesion_dice",
    f"lesion-wise Dice of BraTS 2023; {_SMALL} 1",
    _lesion_dice,
    needs="mask",
    on_empty=ALWAYS,
)
define(
    "brats2023_lesion_hd95",
    f"lesion-wise HD95 of BraTS 2023; {_SMALL} 0",
    _lesion_hd95,
    needs="mask",
    unit="mm",
    better="lower",
    on_empty=ALWAYS,
)
