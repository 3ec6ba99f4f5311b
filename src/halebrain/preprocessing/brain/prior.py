"""The template's brain as a surface: how far each point of template space lies outside or inside of it."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from halebrain.core.types import Affine, FloatArray, MaskArray
from halebrain.preprocessing.geometry import Grid
from halebrain.preprocessing.template import load_template

_SPACING_MM = 2
_MARGIN = 12
"""Voxels added on every side: the skin lies outside of the template's field."""
_NEIGHBOURS = 40
SHELL_MM = 20.0
"""How far from the surface it may be moved."""
_NEAREST = 6


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

    @cached_property
    def neighbours(self) -> npt.NDArray[np.int64]:
        """Index of the 40 surface points nearest to each, itself first, `(n, 40)`."""
        return np.asarray(self._tree.query(self.points, k=_NEIGHBOURS)[1], dtype=np.int64)

    @cached_property
    def shell(self) -> MaskArray:
        """Voxels within 20 mm of the surface, bool, `(i, j, k)`."""
        return np.abs(self.distance_mm) < SHELL_MM

    def to_shell(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what values at the surface points, `(n,)`, are in the voxels of the shell, by inverse distance."""
        index, weight = self._shell_weights
        spread: npt.NDArray[np.float64] = (values[index] * weight).sum(axis=1)
        return spread

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)

    @cached_property
    def _shell_weights(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        far, index = self._tree.query(np.argwhere(self.shell), k=_NEAREST)
        weight = 1 / (far + 0.5)
        return np.asarray(index, dtype=np.int64), weight / weight.sum(axis=1, keepdims=True)


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
