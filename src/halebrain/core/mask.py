"""From a continuous map to a mask, by the same rule for writing and for evaluation; and parts of masks."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from halebrain.core.types import FloatArray, MaskArray


@dataclass(frozen=True)
class Cut:
    """How a map becomes a mask.

    Args:
        threshold: Voxels with at least this score are predicted positive; chosen beforehand on other scans.
        min_lesion_mm3: Smallest component (26 neighbours) that is kept; 0 = all.
    """

    threshold: float
    min_lesion_mm3: float = 0.0


def to_mask(score: FloatArray, *, threshold: float, min_lesion_mm3: float, voxel_mm3: float) -> MaskArray:
    """Return where the score reaches `threshold`, without components (26-neighbours) smaller than `min_lesion_mm3`."""
    mask = score >= threshold
    if min_lesion_mm3 <= 0 or not mask.any():
        return mask
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    labels, count = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * voxel_mm3
    keep = sizes >= min_lesion_mm3
    keep[0] = False
    mask[box] = keep[labels]
    return mask


def dice(one: MaskArray, other: MaskArray) -> float:
    """Return the Dice overlap of two masks, 0 to 1; 0 where both are empty."""
    return 2 * float((one & other).sum()) / max(float(one.sum() + other.sum()), 1.0)


def largest_component(mask: MaskArray, *, corners: bool = False) -> MaskArray:
    """Return the largest connected component (6 neighbours, with `corners` 26); an empty mask is returned unchanged."""
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 3 if corners else 1))
    return mask if count == 0 else np.asarray(labels == int(np.bincount(labels.ravel())[1:].argmax()) + 1)
