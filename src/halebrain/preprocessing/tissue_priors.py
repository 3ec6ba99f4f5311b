"""Masks of pure tissue in the template, for measuring intensities of a registered brain.

Source: ICBM 2009a Nonlinear Symmetric (Fonov et al. 2009, 2011), as nilearn ships its tissue maps.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import ndimage

from halebrain.core.types import FloatArray, MaskArray
from halebrain.preprocessing.geometry import Grid, apply_affine, resample

_SURE = 0.9
"""Share of white matter from which a voxel of the average brain is taken to be nothing else."""
_CORTEX = 0.65
"""Share of grey matter of the average cortex; no two people fold alike, so that it hardly gets higher."""
_FLUID = 0.7
_DEEP_MM = 22.0


@dataclass(frozen=True)
class TissuePriors:
    """Bool masks on one grid of template space.

    Args:
        white: Deep white matter, a voxel away from everything else.
        cortex: Cortical grey matter.
        deep: Nuclei and thalami.
        ventricle: Middle of the lateral ventricles.
    """

    white: MaskArray
    cortex: MaskArray
    deep: MaskArray
    ventricle: MaskArray


def tissue_priors(grid: Grid) -> TissuePriors:
    """Return the places of the tissues on a grid in the space of the MNI template."""
    return _on(grid.shape, tuple(float(value) for value in grid.affine.ravel()))


@lru_cache(maxsize=4)
def _on(shape: tuple[int, int, int], affine: tuple[float, ...]) -> TissuePriors:
    from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template

    grid = Grid(shape, np.array(affine).reshape(4, 4))

    def on_grid(image: Any) -> FloatArray:
        data = np.asarray(image.get_fdata(), dtype=np.float32)
        i, j, k = data.shape
        return resample(data, Grid((i, j, k), np.asarray(image.affine, dtype=np.float64)), grid)

    white, grey = on_grid(load_mni152_wm_template(resolution=1)), on_grid(load_mni152_gm_template(resolution=1))
    inside = on_grid(load_mni152_brain_mask(resolution=1)) > 0.5
    position = apply_affine(grid.affine, np.indices(shape).reshape(3, -1).T.astype(float)).T.reshape(3, *shape)
    x, y, z = np.abs(position[0]), position[1], position[2]
    depth = ndimage.distance_transform_edt(inside, sampling=grid.spacing_mm)
    # Boxes in template space, mm: the bodies and horns of the lateral ventricles; the nuclei with the thalami.
    ventricles = (x < 36) & (y > -50) & (y < 36) & (z > 0) & (z < 32) & (depth > 20)
    nuclei = (x < 36) & (y > -36) & (y < 24) & (z > -12) & (z < 20) & (depth > _DEEP_MM)
    cerebrum = (z > -20) & ~nuclei
    fluid = inside & (1 - white - grey > _FLUID)
    return TissuePriors(
        white=ndimage.binary_erosion(white > _SURE) & cerebrum,
        cortex=(grey > _CORTEX) & inside & cerebrum & (depth < _DEEP_MM),
        deep=(grey > _CORTEX) & nuclei,
        ventricle=fluid & ventricles,
    )
