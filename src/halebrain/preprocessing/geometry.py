"""Grids, resampling between them (any orientation, oblique, flipped or anisotropic), and reordering of axes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage
from torch.nn import functional as F

from halebrain.core.mask import Box, box_of
from halebrain.core.parallel import map_threads
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume, spacing_of, voxel_mm3_of

WORKING_CENTRE_MM = (0.0, -18.0, 6.0)
"""World point (RAS, template space) at the centre of the working grid: the middle of the template's brain."""
_SLAB_VOXELS = 2**19
"""Output voxels that a thread resamples at once, which bounds the memory of the coordinate grid."""
_MOST_THREADS = 4
"""However many cores there are, for the same reason."""
_TRUNCATE = 3.0
"""Reach of the smoothing before coarser voxels, in standard deviations."""
_TIE = 1e-6
"""A point this close to the middle between two voxels is as near to either: the later one is taken."""
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
    return resample_all([data], source, target, target_to_source=target_to_source, order=order, antialias=antialias)[0]


def resample_all(
    maps: Sequence[npt.NDArray[np.generic]],
    source: Grid,
    target: Grid,
    *,
    target_to_source: Affine | None = None,
    order: int = 1,
    antialias: bool = True,
    box: Box | None = None,
) -> list[FloatArray]:
    """Return several maps of one grid on another one, as `resample` does each, in a fraction of the time.

    Args:
        maps: Arrays on `source`, `(i, j, k)`.
        source: Their grid.
        target: Grid wanted.
        target_to_source: World-to-world `(4, 4)` from the target's space to the source's; `None` = the same.
        order: 0 = nearest neighbour, 1 = trilinear.
        antialias: Smooth before going to coarser voxels (order 1 only).
        box: The part of the target that is wanted; elsewhere the result is 0. `None` = all of it.
    """
    between = np.eye(4) if target_to_source is None else target_to_source
    matrix = np.linalg.inv(source.affine) @ between @ target.affine  # target voxel → source voxel
    here = box or (slice(0, target.shape[0]), slice(0, target.shape[1]), slice(0, target.shape[2]))
    outputs = [np.zeros(target.shape, dtype=np.float32) for _ in maps]
    if source.shape == target.shape and np.allclose(matrix, np.eye(4), rtol=0, atol=1e-9):
        for output, data in zip(outputs, maps, strict=True):
            output[here] = data[here]  # exact, where interpolation would round
        return outputs
    threads = min(torch.get_num_threads(), _MOST_THREADS)
    sigma = _smoothing_for(matrix) if order == 1 and antialias else np.zeros(3)
    # Memory that is never written costs nothing, and most of a stripped scan is 0.
    stacked = np.zeros((len(maps), *source.shape), dtype=np.float32)

    def prepare(index: int) -> None:
        _smooth_into(stacked[index], maps[index], sigma)

    map_threads(prepare, range(len(maps)), threads=threads)
    mode = "bilinear" if order == 1 else "nearest"
    volumes = torch.from_numpy(stacked)[None]
    rows, columns, layers = here
    area = max(1, (columns.stop - columns.start) * (layers.stop - layers.start))
    thickness = max(1, _SLAB_VOXELS // area)

    def fill(start: int) -> None:
        slab = slice(start, min(start + thickness, rows.stop))
        grid = _normalised_coordinates(matrix, (slab, columns, layers), source.shape, nearest=order == 0)
        sampled = F.grid_sample(volumes, grid[None], mode=mode, padding_mode="zeros", align_corners=True)
        for output, own in zip(outputs, sampled[0], strict=True):
            output[slab, columns, layers] = own.numpy()

    # torch samples a single volume in one thread.
    map_threads(fill, range(rows.start, rows.stop, thickness), threads=threads)
    return outputs


def apply_affine(affine: Affine, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return `points` `(n, 3)` moved by a `(4, 4)` matrix."""
    moved: npt.NDArray[np.float64] = points @ affine[:3, :3].T + affine[:3, 3]
    return moved


def _normalised_coordinates(matrix: Affine, box: Box, source: tuple[int, int, int], *, nearest: bool) -> torch.Tensor:
    """Return source coordinates of a box of the target in [−1, 1], `(i, j, k, 3)`, in (k, j, i) order as torch does.

    `nearest`: those of the nearest voxel.
    """
    # Sums of three vectors in double precision; far cheaper than a product with every voxel's index.
    scale = [2.0 / max(n - 1, 1) for n in source]
    axes = [
        torch.arange(side.start, side.stop, dtype=torch.float64).reshape([-1 if one == axis else 1 for one in range(3)])
        for axis, side in enumerate(box)
    ]
    parts = []
    for axis in (2, 1, 0):
        row = [float(v) for v in matrix[axis]]
        position = row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] + row[3]
        if nearest:
            # torch rounds halves to even numbers: of voxels halved in size it shows one three times, the next one once.
            position = torch.floor(position + (0.5 + _TIE))
        parts.append((position * scale[axis] - 1).float())
    return torch.stack(parts, dim=-1)


def _smoothing_for(matrix: Affine) -> npt.NDArray[np.float64]:
    """Return the blur along each source axis, in voxels: as much as the target's voxels are coarser."""
    step = np.abs(matrix[:3, :3]).max(axis=1)  # source voxels that one target voxel spans
    return np.where(step > 1.05, np.sqrt(np.maximum(step**2 - 1, 0)) / 2.355, 0)


def _smooth_into(empty: FloatArray, data: npt.NDArray[np.generic], sigma: npt.NDArray[np.float64]) -> None:
    """Write a map into an array of zeros, blurred; beyond the reach of what is not 0 nothing is written."""
    reach = [int(_TRUNCATE * width + 0.5) for width in sigma]
    here = tuple(
        slice(max(side.start - by, 0), side.stop + by) for side, by in zip(box_of(data != 0), reach, strict=True)
    )
    if sigma.any():
        part = np.asarray(data[here], dtype=np.float32)
        ndimage.gaussian_filter(part, sigma, output=empty[here], mode="constant", truncate=_TRUNCATE)
    else:
        empty[here] = data[here]


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
