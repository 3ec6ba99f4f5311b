"""The template's brain as a surface: how far each point of template space lies outside or inside of it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.types import Affine, FloatArray
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.template import load_template

_SPACING_MM = 2
_MARGIN = 12
"""Voxels added on every side: the skin lies outside of the template's field."""


@dataclass(frozen=True)
class BrainPrior:
    """The template's brain on a 2 mm grid of template space.

    Args:
        distance_mm: Signed distance to its surface, negative inside, `(i, j, k)`.
        affine: Voxel-to-world in mm, RAS.
        points: Voxels at the surface, `(n, 3)`, in voxel coordinates.
        normals: Outward unit normals there, `(n, 3)`.
        brightness: The T1 template as shares of its brain's median; white matter is brightest, fluid dark, `(i, j, k)`.
    """

    distance_mm: FloatArray
    affine: Affine
    points: npt.NDArray[np.float64]
    normals: npt.NDArray[np.float64]
    brightness: FloatArray

    @property
    def grid(self) -> Grid:
        """Its grid."""
        i, j, k = self.distance_mm.shape
        return Grid((i, j, k), self.affine)


@lru_cache(maxsize=1)
def load_prior() -> BrainPrior:
    """Return the template's brain."""
    template, mask = load_template(_SPACING_MM)
    brain = ndimage.binary_fill_holes(np.pad(mask, _MARGIN))
    affine = template.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, float(_MARGIN))
    outside, inside = ndimage.distance_transform_edt(~brain), ndimage.distance_transform_edt(brain)
    distance = ndimage.gaussian_filter((outside - inside) * _SPACING_MM, 1.0).astype(np.float32)
    points = np.argwhere(np.abs(distance) < 1.0)
    slope = np.stack(np.gradient(distance), axis=-1)[tuple(points.T)]
    normals = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-9)
    brightness = np.pad(template.data / np.median(template.data[mask]), _MARGIN).astype(np.float32)
    return BrainPrior(distance, affine, points.astype(np.float64), normals.astype(np.float64), brightness)
