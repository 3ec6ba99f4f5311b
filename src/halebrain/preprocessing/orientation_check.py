"""Orientation check of a registered scan: upright or inverted, by comparison with the template.

Affine registration fits an inverted or back-to-front head nearly as well as an upright one, as brains are
egg-shaped. The interior of the brain shows the difference.
"""

import numpy as np
from scipy import ndimage

from halebrain.core.types import FloatArray, MaskArray

TURNED_RATIO = 1.25
"""Below this the scan is taken to be inverted. Upright real scans: 1.7 to 5; inverted ones: 0.3 to 1.0."""
_TURNS = ((1,), (2,), (1, 2))
"""Axes that are flipped: back to front, upside down, both. A symmetric template cannot show left–right flips."""


def normalised_mutual_information(one: FloatArray, other: FloatArray, mask: MaskArray, *, bins: int = 32) -> float:
    """Return (H(a) + H(b)) / H(a, b) within a mask (Studholme et al. 1999): 1 = independent, 2 = the same."""
    joint, _, _ = np.histogram2d(one[mask], other[mask], bins=bins)
    share = joint / max(joint.sum(), 1.0)
    both = _entropy(share)
    return (_entropy(share.sum(axis=0)) + _entropy(share.sum(axis=1))) / both if both > 0 else 2.0


def orientation_ratio(
    image: FloatArray, brain_mask: MaskArray, template: FloatArray, template_mask: MaskArray
) -> float | None:
    """Return the similarity of image and template, relative to the best similarity of an inverted image.

    Args:
        image: Registered scan.
        brain_mask: Its brain.
        template: On the same grid, RAS.
        template_mask: Its brain.

    Returns:
        Ratio of normalised mutual information above 1; `None` where there is none either way.
    """
    if not brain_mask.any():
        return None
    own = normalised_mutual_information(image, template, brain_mask) - 1
    centre = np.array(ndimage.center_of_mass(template_mask))
    turned = []
    for axes in _TURNS:
        mask = np.flip(brain_mask, axes)
        shift = tuple(int(n) for n in np.round(centre - np.array(ndimage.center_of_mass(mask))))
        moved = np.roll(np.flip(image, axes), shift, (0, 1, 2))
        turned.append(normalised_mutual_information(moved, template, np.roll(mask, shift, (0, 1, 2))) - 1)
    best = max(turned)
    return own / best if best > 1e-9 else None


def _entropy(share: FloatArray) -> float:
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum())
