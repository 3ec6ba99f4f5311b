"""Volume of the ventricles of a scan, from what is as dark or bright as fluid where they lie in the template.

People with wide ventricles, mostly old ones, are rare among those whom models and thresholds know.
"""

from functools import lru_cache

import numpy as np
from scipy import ndimage

from halebrain.core.types import FloatArray, MaskArray
from halebrain.preprocessing.geometry import Grid, apply_affine
from halebrain.preprocessing.quality.contrast import TissueLevels, tissue_priors

_DEEP_MM = 12.0
"""From the edge of the brain: sulci are nearer, and the walls of even the widest ventricles hardly."""
_BOX_MM = ((-48.0, 48.0), (-75.0, 45.0), (-22.0, 42.0))
"""Lateral and third ventricle of an adult in template space, as far as they reach where they are wide."""


def ventricles_ml(image: FloatArray, brain_mask: MaskArray, grid: Grid, levels: TissueLevels) -> float:
    """Return the volume of lateral and third ventricles in template space, about; with a cavity that opens into them.

    What lies on the fluid's side half way between fluid and the tissue nearest to it, is deep in the brain, and is
    joined to the middle of the lateral ventricles by more than a thread. Real T1w of young adults: 6 to 41 ml. For
    virtual people and how far it is off: `benchmarks/ventricles.py`.

    Args:
        image: The scan on a grid in template space, any unit.
        brain_mask: Its brain, bool.
        grid: The grid.
        levels: How bright its tissues are (`measure_levels`).
    """
    nearest = min((levels.white, levels.cortex, levels.deep), key=lambda level: abs(level - levels.fluid))
    half = (levels.fluid + nearest) / 2
    fluid = image < half if levels.fluid < nearest else image > half
    depth = ndimage.distance_transform_edt(brain_mask, sampling=grid.spacing_mm)
    fluid &= _box_on(grid.shape, tuple(float(value) for value in grid.affine.ravel())) & (depth > _DEEP_MM)
    apart, _ = ndimage.label(ndimage.binary_opening(fluid))
    known = np.unique(apart[tissue_priors(grid).ventricle])
    joined = ndimage.binary_dilation(np.isin(apart, known[known > 0])) & fluid
    return float(joined.sum()) * float(np.prod(grid.spacing_mm)) / 1000


@lru_cache(maxsize=4)
def _box_on(shape: tuple[int, int, int], affine: tuple[float, ...]) -> MaskArray:
    places = apply_affine(np.array(affine).reshape(4, 4), np.indices(shape).reshape(3, -1).T.astype(float))
    low, high = np.array(_BOX_MM).T
    found: MaskArray = ((places > low) & (places < high)).all(axis=1).reshape(shape)
    return found
