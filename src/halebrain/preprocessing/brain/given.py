"""Brains that need no search: the mask that the user gives, a scan that is skull-stripped already, or no extraction."""

import numpy as np
from scipy import ndimage

from halebrain.core.errors import DataError
from halebrain.core.mask import box_of, largest_component
from halebrain.core.types import MaskArray, Volume
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask, background_of, volume_ml

_GIVEN_ML = (200.0, 2500.0)
_BACKGROUND_SHARE = 0.02
"""Voxels below this share of the 99th percentile are background; above the ringing that resampling leaves."""
_PLAUSIBLE_ML = (400.0, 2200.0)
"""Stripped adult brains measure 1.0 to 1.7 litres, whole heads 2.6 to 7; slabs hold less."""
_LEAST_EMPTY = 0.85
"""Share of the background that must be one same value; scanner noise around a head is not."""


def from_given_mask(volume: Volume, mask: MaskArray) -> BrainMask:
    """Use the mask unchanged; refuse one on another grid or with a volume outside 0.2–2.5 litres."""
    if mask.shape != volume.shape:
        raise DataError(
            f"a brain mask must have the shape of its scan {volume.shape}",
            received=mask.shape,
            where=volume.name,
            remedy="resample the mask to the scan",
        )
    size = volume_ml(mask, volume)
    if not _GIVEN_ML[0] <= size <= _GIVEN_ML[1]:
        raise DataError(
            "the brain mask given for a scan must hold 200 to 2500 ml",
            received=f"{size:.0f} ml",
            where=volume.name,
            remedy="check that it is a brain mask",
        )
    return BrainMask(mask, "given", 1.0, size)


@BRAIN_EXTRACTORS.register("none")
def extract_nothing(volume: Volume) -> BrainMask:
    """Return a mask that is true everywhere, with a note."""
    mask = np.ones(volume.shape, dtype=bool)
    note = "no brain was extracted: the whole field of view counts as brain"
    return BrainMask(mask, "none", 1.0, volume_ml(mask, volume), notes=(note,))


@BRAIN_EXTRACTORS.register("stripped")
def extract_stripped(volume: Volume) -> BrainMask:
    """Return the brain of a stripped scan; refuse one that still shows its skull."""
    mask, emptiness = _foreground(volume)
    size = volume_ml(mask, volume)
    whole_head = size > _PLAUSIBLE_ML[1] or emptiness < _LEAST_EMPTY
    if whole_head or size < _PLAUSIBLE_ML[0]:
        what = "whole head" if whole_head else "too little tissue"
        raise DataError(
            "a scan must be skull-stripped or come with a brain mask",
            received=f"{what}: {size:.0f} ml of tissue, {emptiness:.0%} of the background empty",
            where=volume.name,
            remedy="strip it first (HD-BET, SynthStrip, deepbet) or give --brain-mask",
        )
    return BrainMask(mask, "stripped", float(min(1.0, emptiness)), size)


def _foreground(volume: Volume) -> tuple[MaskArray, float]:
    """Return the largest component above background, holes filled, and the fraction of uniform background."""
    data = volume.data
    # By its distance: a scan that was standardised inside the brain is darker than its background in half of it.
    above = np.abs(data - background_of(data))
    positive = above[above > 0]
    if positive.size == 0:
        raise DataError(
            "tissue must be brighter than the background", where=volume.name, remedy="give the scan as it was acquired"
        )
    is_tissue = above > _BACKGROUND_SHARE * np.percentile(positive, 99)
    mask = np.zeros(volume.shape, dtype=bool)
    # What follows changes nothing outside the box of all tissue and one voxel around it, which joins the outside.
    here = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box_of(is_tissue))
    tissue = is_tissue[here]
    # Opening cuts threads (dura, noise) that would join the brain to something else.
    opened = ndimage.binary_opening(tissue, ndimage.generate_binary_structure(3, 1))
    if not opened.any():
        return mask, 0.0
    near = ndimage.binary_dilation(largest_component(opened), ndimage.generate_binary_structure(3, 1))
    mask[here] = ndimage.binary_fill_holes(near & tissue)
    n_empty = np.count_nonzero((above <= 1e-6 * float(above.max())) & ~mask)
    n_outside = mask.size - np.count_nonzero(mask)
    return mask, float(n_empty / np.maximum(n_outside, 1))
