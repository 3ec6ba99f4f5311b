"""Whether two images have the same grid: the same voxels in any axis order, up to rounding in headers."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from halebrain.core.types import Affine, FloatArray, corners

TOLERANCE_VOXELS = 0.1
"""Tolerance of the grid corners, in voxels along each axis; masks are less exact than this."""


@dataclass(frozen=True)
class Match:
    """How an image lies on a grid; the distance is that of the farthest corner from its place.

    `turn` is how its axes must be reordered, as a nibabel orientation; `None` where they are in order.
    """

    turn: npt.NDArray[np.float64] | None
    voxels: float
    distance_mm: float

    @property
    def fits(self) -> bool:
        """Whether they are one place."""
        return self.voxels <= TOLERANCE_VOXELS

    def turned(self, data: FloatArray) -> FloatArray:
        """Return the values in the order of the grid."""
        return data if self.turn is None else np.ascontiguousarray(apply_orientation(data, self.turn))


def match(shape: tuple[int, ...], affine: Affine, like_shape: tuple[int, ...], like_affine: Affine) -> Match | None:
    """Return how an image lies on a grid; `None` where it has other voxels, in whatever order."""
    if len(shape) != 3:
        return None
    found = None
    if shape == like_shape:
        found = Match(None, *_apart(affine, like_affine, like_shape))
        if found.fits:
            return found
    between: Affine = np.linalg.inv(like_affine) @ affine  # voxel of the image → voxel of the grid
    turn = io_orientation(between)
    if np.isnan(turn).any():
        return found
    i, j, k = (shape[int(np.flatnonzero(turn[:, 0] == axis)[0])] for axis in range(3))
    if (i, j, k) != like_shape:
        return found
    turned = Match(turn, *_apart(affine @ inv_ornt_aff(turn, shape), like_affine, like_shape))
    return turned if found is None or turned.voxels < found.voxels else found


def _apart(affine: Affine, like: Affine, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return how far two affines put the corners of a grid apart: in voxels along an axis, and in mm."""
    moved = corners(shape) @ (affine - like).T
    voxels = moved[:, :3] @ np.linalg.inv(like[:3, :3]).T
    return float(np.abs(voxels).max()), float(np.linalg.norm(moved, axis=1).max())
