"""Grids, resampling between them (any orientation, oblique, flipped or anisotropic), and reordering of axes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage
from torch.nn import functional as F

from halebrain.core.types import Affine, FloatArray, MaskArray, Volume, spacing_of, voxel_mm3_of

WORKING_CENTRE_MM = (0.0, -18.0, 6.0)
"""World point (RAS, template space) at the centre of the working grid: the middle of the template's brain."""
_SLAB_VOXELS = 2**21
"""Output voxels resampled at once, which bounds the memory of the coordinate grid."""
ToOriginal = Callable[[MaskArray], MaskArray]


@dataclass(frozen=True)
class Grid:
    """A lattice of voxels in space; `affine` is voxel-to-world in mm, RAS+."""

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along each axis in mm."""
        return spacing_of(self.affine)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm³."""
        return voxel_mm3_of(self.affine)


def working_grid(
    shape: tuple[int, int, int] = (96, 96, 80),
    spacing_mm: float = 2.0,
    centre_mm: tuple[float, float, float] = WORKING_CENTRE_MM,
) -> Grid:
    """Return the axis-aligned RAS grid in template space, centred on the template's brain."""
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = [c - spacing_mm * (n - 1) / 2 for c, n in zip(centre_mm, shape, strict=True)]
    return Grid(shape, affine)


def resample(
    data: npt.NDArray[np.generic],
    source: Grid,
    target: Grid,
    *,
    target_to_source: Affine | None = None,
    order: int = 1,
    antialias: bool = True,
) -> FloatArray:
    """Return `data` on another grid, 0 where the source does not reach; values never leave their range.

    Args:
        data: Array on `source`, `(i, j, k)`.
        source: Grid of `data`.
        target: Grid wanted.
        target_to_source: World-to-world `(4, 4)` from the target's space to the source's; `None` = the same.
        order: 0 = nearest neighbour, 1 = trilinear.
        antialias: Smooth before going to coarser voxels (order 1 only).
    """
    between = np.eye(4) if target_to_source is None else target_to_source
    matrix = np.linalg.inv(source.affine) @ between @ target.affine  # target voxel → source voxel
    array = np.asarray(data, dtype=np.float32)
    if source.shape == target.shape and np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9):
        return array.copy()  # exact, where interpolation would round
    if order == 1 and antialias:
        array = _smooth_for(array, matrix)
    mode = "bilinear" if order == 1 else "nearest"
    volume = torch.from_numpy(np.ascontiguousarray(array))[None, None]
    output = np.empty(target.shape, dtype=np.float32)
    thickness = max(1, _SLAB_VOXELS // (target.shape[1] * target.shape[2]))
    for start in range(0, target.shape[0], thickness):
        stop = min(start + thickness, target.shape[0])
        grid = _normalised_coordinates(matrix, (start, stop), target.shape, source.shape)
        sampled = F.grid_sample(volume, grid[None], mode=mode, padding_mode="zeros", align_corners=True)
        output[start:stop] = sampled[0, 0].numpy()
    return output


def apply_affine(affine: Affine, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return `points` `(n, 3)` moved by a `(4, 4)` matrix."""
    moved: npt.NDArray[np.float64] = points @ affine[:3, :3].T + affine[:3, 3]
    return moved


def _normalised_coordinates(
    matrix: Affine, rows: tuple[int, int], target: tuple[int, int, int], source: tuple[int, int, int]
) -> torch.Tensor:
    """Return source coordinates in [−1, 1], `(rows, j, k, 3)`, last axis in (k, j, i) order as torch wants it."""
    # Sums of three vectors in double precision; far cheaper than a product with every voxel's index.
    scale = [2.0 / max(n - 1, 1) for n in source]
    axes = [
        torch.arange(rows[0], rows[1], dtype=torch.float64)[:, None, None],
        torch.arange(target[1], dtype=torch.float64)[None, :, None],
        torch.arange(target[2], dtype=torch.float64)[None, None, :],
    ]
    parts = []
    for axis in (2, 1, 0):
        row = [float(v) for v in matrix[axis]]
        position = row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] + row[3]
        parts.append((position * scale[axis] - 1).float())
    return torch.stack(parts, dim=-1)


def _smooth_for(array: FloatArray, matrix: Affine) -> FloatArray:
    """Blur along each source axis by as much as the target's voxels are coarser."""
    step = np.abs(matrix[:3, :3]).max(axis=1)  # source voxels that one target voxel spans
    sigma = np.where(step > 1.05, np.sqrt(np.maximum(step**2 - 1, 0)) / 2.355, 0)
    if not sigma.any():
        return array
    smoothed: FloatArray = ndimage.gaussian_filter(array, sigma, mode="constant", truncate=3.0)
    return smoothed


def reorient(volume: Volume, codes: str) -> tuple[Volume, ToOriginal]:
    """Return a scan with its axes permuted and flipped, and what brings a mask on it back to the original order.

    Nothing is interpolated, so the way back is exact.

    Args:
        volume: The scan; its world coordinates stay, oblique ones too.
        codes: Where the axes shall point, "RAS" or "LIA" for example, as nearly as the scan allows.
    """
    present = io_orientation(volume.affine)
    wanted = axcodes2ornt(tuple(codes))
    turn, back = ornt_transform(present, wanted), ornt_transform(wanted, present)
    data = np.ascontiguousarray(apply_orientation(volume.data, turn), dtype=np.float32)
    affine: npt.NDArray[np.float64] = volume.affine @ inv_ornt_aff(turn, volume.shape)

    def to_original(mask: MaskArray) -> MaskArray:
        return np.ascontiguousarray(apply_orientation(mask, back), dtype=bool)

    return Volume(data, affine, name=volume.name), to_original
