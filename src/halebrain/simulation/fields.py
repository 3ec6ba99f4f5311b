"""Smooth random fields and warps on a regular grid: the shared arithmetic of the virtual cohort."""

import torch
from torch.nn import functional as F

from halebrain.core.random import make_generator

Shape = tuple[int, int, int]
_SQUARINGS = 6
"""Each doubles the time that a velocity field has flowed."""


def smooth_noise(shape: Shape, *, wavelength_mm: float, spacing_mm: float, seed: int) -> torch.Tensor:
    """Return a random field `shape` of zero mean and unit variance that varies over about `wavelength_mm`."""
    nodes = [max(2, round(n * spacing_mm / wavelength_mm) + 2) for n in shape]
    coarse = torch.randn(1, 1, *nodes, generator=make_generator(seed, "smooth noise"))
    field = F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0]
    return (field - field.mean()) / field.std().clamp_min(1e-6)


def smooth_vectors(shape: Shape, *, wavelength_mm: float, spacing_mm: float, seed: int) -> torch.Tensor:
    """Return a random vector field `(3, *shape)`, each component of unit variance, in the unit that it is scaled to."""
    components = [
        smooth_noise(shape, wavelength_mm=wavelength_mm, spacing_mm=spacing_mm, seed=seed + axis) for axis in range(3)
    ]
    return torch.stack(components)


def coordinates_mm(shape: Shape, affine: torch.Tensor) -> torch.Tensor:
    """Return the world coordinates of every voxel, `(3, *shape)`, of an axis-aligned grid."""
    axes = [affine[a, 3] + affine[a, a] * torch.arange(n, dtype=torch.float32) for a, n in enumerate(shape)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def sample(maps: torch.Tensor, displacement_mm: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Return `maps` `(c, *shape)` read at x + displacement(x), trilinear, edge values outside.

    The displacement is `(3, *shape)`, in mm along the grid's axes.
    """
    shape = maps.shape[1:]
    index = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij")
    parts = [(index[axis] + displacement_mm[axis] / spacing_mm) * (2 / (shape[axis] - 1)) - 1 for axis in (2, 1, 0)]
    grid = torch.stack(parts, dim=-1)[None]
    read = F.grid_sample(maps[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return torch.as_tensor(read[0])


def exponentiate(velocity_mm: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Return the displacement of the flow of a stationary velocity field (scaling and squaring; Arsigny 2006)."""
    displacement: torch.Tensor = velocity_mm / 2.0**_SQUARINGS
    for _ in range(_SQUARINGS):
        displacement = displacement + sample(displacement, displacement, spacing_mm)
    return displacement


def compose(first_mm: torch.Tensor, then_mm: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Return the displacement of x → x + first(x) → that + then(there)."""
    return first_mm + sample(then_mm, first_mm, spacing_mm)


def blur(volume: torch.Tensor, sigma_voxels: float | tuple[float, float, float]) -> torch.Tensor:
    """Return a volume smoothed by a Gaussian, edge values repeated."""
    sigmas = (sigma_voxels,) * 3 if isinstance(sigma_voxels, float) else sigma_voxels
    out = volume[None, None]
    for axis, sigma in enumerate(sigmas):
        if sigma < 0.05:
            continue
        radius = max(1, round(3 * sigma))
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = -1
        pad = [0, 0, 0, 0, 0, 0]
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        out = F.conv3d(F.pad(out, pad, mode="replicate"), (kernel / kernel.sum()).view(shape))
    return out[0, 0]
