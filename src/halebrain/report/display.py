"""From native maps to the maps of a page: reoriented to RAS, cropped to the brain, resampled for display."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from halebrain.core.types import Affine, FloatArray, MaskArray

Codes = npt.NDArray[np.uint8]
FINE_MM, COARSE_MM = 1.0, 2.0
"""The scan, its score and the mask are shown at 1 mm; what the networks made on a 2 mm grid needs no more than that."""
_MARGIN_MM = 8.0
_MOST_BYTES = 13.2e6
"""Of the volumes of a page, so that it stays below 15 MB with its picture and the rest."""
_BYTES_IN_BOX, _BYTES_IN_BRAIN = 1.5, 2.07
"""What a fine voxel takes at most in base64, even of noise: 4/3 for the scan, an eighth of that for its coarse
pseudo-healthy one; in the brain 4/3 more for the score, 0.23 for the mask and 1/6 for each of three coarse maps."""


@dataclass(frozen=True)
class DisplayGrid:
    """A box of the native grid, its axes in the order right, front, up.

    Positions are in mm from its left, posterior and inferior corner.

    Args:
        turn: Orientation of the native axes, as nibabel returns it.
        native_shape: Voxels of the native grid.
        start: First voxel of the box along each turned axis.
        stop: One past its last voxel.
        native_mm: Voxel size of the native grid along each turned axis.
        affine: Voxel-to-world of the native grid.
        brain_share: How much of the box is brain, in [0, 1]; maps hardly reach beyond it.
        n_scans: Scans that are shown in it.
    """

    turn: npt.NDArray[np.float64]
    native_shape: tuple[int, int, int]
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    native_mm: tuple[float, float, float]
    affine: Affine
    brain_share: float
    n_scans: int = 1

    @property
    def native_box(self) -> tuple[slice, slice, slice]:
        """The box as slices of the native grid."""
        sides = []
        for size, (axis, flip) in zip(self.native_shape, self.turn, strict=True):
            first, last = self.start[int(axis)], self.stop[int(axis)]
            sides.append(slice(first, last) if flip > 0 else slice(size - last, size - first))
        return sides[0], sides[1], sides[2]

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Edges of the box."""
        x, y, z = (mm * (b - a) for mm, a, b in zip(self.native_mm, self.start, self.stop, strict=True))
        return x, y, z

    @property
    def fine_mm(self) -> float:
        """Least voxel size of the scan and its score: 1 mm, more where the page could grow too large."""
        x, y, z = self.size_mm
        most_voxels = _MOST_BYTES / (_BYTES_IN_BOX * self.n_scans + _BYTES_IN_BRAIN * self.brain_share)
        return max(FINE_MM, float(np.cbrt(x * y * z / most_voxels)))

    @property
    def coarse_mm(self) -> float:
        """Least voxel size of what the networks made: 2 mm, and never less than twice the fine one."""
        return max(COARSE_MM, 2 * self.fine_mm)

    @property
    def to_voxel(self) -> Affine:
        """Matrix from mm in the box to voxels of the native grid (a voxel's middle is a whole number)."""
        into = np.diag([*(1 / mm for mm in self.native_mm), 1.0])
        into[:3, 3] = np.array(self.start) - 0.5
        back: Affine = inv_ornt_aff(self.turn, self.native_shape) @ into
        return back

    @property
    def oblique_degrees(self) -> float:
        """Largest angle between an axis of the scan and the axis of the body that it is shown as."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        along = np.abs(directions).max(axis=0)
        return float(np.degrees(np.arccos(np.clip(along, -1, 1))).max())

    def place_mm(self, voxel: tuple[int, int, int]) -> tuple[float, float, float]:
        """Return the middle of a native voxel in mm of the box."""
        x, y, z = (np.linalg.inv(self.to_voxel) @ [*voxel, 1.0])[:3]
        return round(float(x), 2), round(float(y), 2), round(float(z), 2)

    def spacing_mm(self, least_mm: float) -> tuple[float, float, float]:
        """Return the voxel size at which maps are shown that need no finer one than `least_mm`."""
        x, y, z = (max(mm, least_mm) for mm in self.native_mm)
        return x, y, z

    def crop(self, data: npt.NDArray[np.generic]) -> FloatArray:
        """Return a native map in the box, at native resolution."""
        turned = apply_orientation(np.asarray(data), self.turn)
        box = tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return np.asarray(turned[box], dtype=np.float32)

    def show(self, data: npt.NDArray[np.generic], least_mm: float) -> FloatArray:
        """Return a native map in the box: means over voxels of at least `least_mm`, each share of a voxel counted."""
        shown = self.crop(data)
        for axis, (mm, wanted) in enumerate(zip(self.native_mm, self.spacing_mm(least_mm), strict=True)):
            if wanted > mm:
                weights = mean_weights(shown.shape[axis], wanted / mm)
                shown = np.moveaxis(np.tensordot(weights, shown, axes=(1, axis)), 0, axis)
        return np.asarray(shown, dtype=np.float32)


def display_grid(affine: Affine, brain_mask: MaskArray, *, n_scans: int = 1) -> DisplayGrid:
    """Return the box around the brain, in which a number of scans is shown; around everything if there is no brain."""
    turn = io_orientation(affine)
    turned = apply_orientation(brain_mask, turn)
    axes = np.argsort(turn[:, 0])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)[axes]
    start, stop = [], []
    for axis, mm in enumerate(spacing):
        inside = np.flatnonzero(turned.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = int(np.ceil(_MARGIN_MM / mm))
        low, high = (int(inside[0]), int(inside[-1])) if inside.size else (0, turned.shape[axis] - 1)
        start.append(max(low - margin, 0))
        stop.append(min(high + margin + 1, turned.shape[axis]))
    i, j, k = brain_mask.shape
    native_mm = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    share = float(brain_mask.sum() / np.prod(np.subtract(stop, start)))
    corners = (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])
    return DisplayGrid(turn, (i, j, k), *corners, native_mm, affine, share, n_scans)


def mean_weights(size: int, factor: float) -> FloatArray:
    """Return the matrix that takes means over `factor` ≥ 1 voxels, `(ceil(size / factor), size)`; its rows sum to 1."""
    count = int(np.ceil(size / factor - 1e-6))
    low = factor * np.arange(count)[:, None]
    edges = np.arange(size)[None, :]
    overlap = np.minimum(low + factor, edges + 1) - np.maximum(low, edges)
    weights = np.clip(overlap, 0, 1)
    mean: FloatArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return mean
