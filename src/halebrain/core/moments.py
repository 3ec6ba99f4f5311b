"""Mean and spread at each voxel over many scans, pooled over a neighbourhood, and scores in these units."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.types import FloatArray, MaskArray

Moments = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VoxelSums:
    """Sums over scans at each voxel, `(i, j, k)`; scans are added, and taken away again to leave them out.

    Args:
        count: How many scans show brain there.
        total: Sum of their values.
        squares: Sum of the squared values.
    """

    count: Moments
    total: Moments
    squares: Moments

    @classmethod
    def of(cls, values: FloatArray, brain_mask: MaskArray) -> "VoxelSums":
        """Return the sums of one scan; its values count inside its brain, `(i, j, k)`."""
        inside: Moments = np.where(brain_mask, values, 0).astype(np.float64)
        return cls(brain_mask.astype(np.float64), inside, inside**2)

    def __add__(self, other: "VoxelSums") -> "VoxelSums":
        return VoxelSums(self.count + other.count, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: "VoxelSums") -> "VoxelSums":
        return VoxelSums(self.count - other.count, self.total - other.total, self.squares - other.squares)

    def pooled(self, sigma_voxels: float) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation (population) over scans and a Gaussian neighbourhood.

        Voxels weigh by how many scans show brain. The mean is 0 where none does, and the standard deviation infinite
        where fewer than two do. `sigma_voxels` is the standard deviation of the neighbourhood; 0 = each voxel for
        itself.
        """
        count, total, squares = (_smooth(sums, sigma_voxels) for sums in (self.count, self.total, self.squares))
        weight = np.maximum(count, 1e-9)
        mean = np.where(self.count > 0, total / weight, 0)
        # The variance of all is the mean of the variances and the variance of the means.
        variance = np.maximum(squares / weight - mean**2, 0)
        std = np.where(self.count > 1, np.sqrt(variance), np.inf)
        return mean.astype(np.float32), std.astype(np.float32)


def sums_of(scans: Iterable[tuple[FloatArray, MaskArray]]) -> tuple[VoxelSums | None, int]:
    """Return the sums of scans and how many they are; values and brains stream through one at a time."""
    sums, n_scans = None, 0
    for values, brain_mask in scans:
        own = VoxelSums.of(values, brain_mask)
        sums, n_scans = own if sums is None else sums + own, n_scans + 1
    return sums, n_scans


def squash(z: FloatArray) -> FloatArray:
    """Return z / (1 + z) in [0, 1) of deviations z ≥ 0: the same order, a range that can be fused."""
    return np.asarray(z / (1 + z), dtype=np.float32)


def unsquash(squashed: FloatArray) -> FloatArray:
    """Return z of z / (1 + z); the inverse of `squash`."""
    return np.asarray(squashed / np.maximum(1 - squashed, 1e-6), dtype=np.float32)


def _smooth(sums: Moments, sigma_voxels: float) -> Moments:
    if sigma_voxels <= 0:
        return sums
    blurred: Moments = ndimage.gaussian_filter(sums, sigma_voxels, mode="constant")
    return blurred
