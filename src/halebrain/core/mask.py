"""From a continuous map to a mask, by the same rule for writing and for evaluation; and parts of masks."""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from halebrain.core.types import FloatArray, MaskArray

Box = tuple[slice, slice, slice]
_EVERY_NEIGHBOUR = np.ones((3, 3, 3), dtype=bool)
_ROUNDING = 1e-6
"""Relative error of the volume of a voxel, as headers round: a turned grid of 1 mm has voxels of 0.9999999 mm³."""


@dataclass(frozen=True)
class Cut:
    """How a map becomes a mask.

    Args:
        threshold: Voxels with at least this score are predicted positive; chosen beforehand on other scans.
        min_lesion_mm3: Smallest component (26 neighbours) that is kept; 0 = all.
        grow_to: Lower threshold, in (0, `threshold`), down to which each kept component grows; `None` = no growth.
    """

    threshold: float
    min_lesion_mm3: float = 0.0
    grow_to: float | None = None

    def __post_init__(self) -> None:
        if self.grow_to is not None and not 0 < self.grow_to < self.threshold:
            raise ValueError(f"grow_to must lie between 0 and the threshold {self.threshold:g}, not {self.grow_to:g}")

    @property
    def seeds(self) -> "Cut":
        """The same without growth: every finding contains one of these components."""
        return replace(self, grow_to=None)


def to_mask(score: FloatArray, cut: Cut, *, voxel_mm3: float) -> MaskArray:
    """Return the mask of a score map; connected components have 26 neighbours.

    Components of voxels that reach the threshold, without those below the smallest size, are the mask, or with growth
    its seeds. A seed grows into the whole component of voxels that reach the lower threshold around it (hysteresis;
    Canny 1986). So growth adds no finding: each holds a seed, and without a seed the mask stays empty.
    """
    mask = _large_components(score >= cut.threshold, cut.min_lesion_mm3, voxel_mm3)
    if cut.grow_to is None or not mask.any():
        return mask
    grown = score >= cut.grow_to
    box = ndimage.find_objects(grown.astype(np.uint8))[0]
    labels, count = ndimage.label(grown[box], structure=_EVERY_NEIGHBOUR)
    keep = np.zeros(count + 1, dtype=bool)
    keep[labels[mask[box]]] = True
    grown[box] = keep[labels]
    return grown


def fewest_voxels(min_lesion_mm3: float, voxel_mm3: float) -> int:
    """Return how many voxels the smallest component that is kept has.

    Example:
        >>> fewest_voxels(30, 0.9999999), fewest_voxels(30, 1), fewest_voxels(30, 4), fewest_voxels(0, 1)
        (30, 30, 8, 0)
    """
    return math.ceil(min_lesion_mm3 / voxel_mm3 * (1 - _ROUNDING))


def _large_components(mask: MaskArray, min_lesion_mm3: float, voxel_mm3: float) -> MaskArray:
    if min_lesion_mm3 <= 0 or not mask.any():
        return mask
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    labels, count = ndimage.label(mask[box], structure=_EVERY_NEIGHBOUR)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= fewest_voxels(min_lesion_mm3, voxel_mm3)
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


def box_of(mask: MaskArray) -> Box:
    """Return the smallest box that holds a mask; an empty one for an empty mask."""
    across = np.any(mask, axis=0)
    sides = []
    for line in (np.any(mask, axis=(1, 2)), np.any(across, axis=1), np.any(across, axis=0)):
        used = np.flatnonzero(line)
        sides.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0))
    return sides[0], sides[1], sides[2]


def masked(data: FloatArray, mask: MaskArray, *, minus: float = 0.0) -> FloatArray:
    """Return `data` less `minus` inside a mask and 0 outside it, in the time that the box of the mask takes."""
    found = np.zeros(data.shape, dtype=np.float32)
    box = box_of(mask)
    np.subtract(data[box], minus, out=found[box], where=mask[box])
    return found
