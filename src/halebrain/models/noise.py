"""Noise fields for the forward process: Gaussian, and simplex noise as AnoDDPM uses it.

Each sample has its own seed, so a field does not depend on the batch that it is drawn in. Both kinds have zero mean
and unit variance at every pixel.
"""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch

from halebrain.core.registry import Registry

NoiseSource = Callable[[torch.Tensor, int, int, torch.device], torch.Tensor]
"""`(seeds (b,), height, width, device) -> field (b, 1, height, width)`, float32."""

NOISES: Registry[NoiseSource] = Registry("noise")

_OCTAVES, _PERSISTENCE, _WAVELENGTH = 6, 0.8, 64.0
_SKEW = (math.sqrt(3) - 1) / 2
_UNSKEW = (3 - math.sqrt(3)) / 6
_BITS = 62
"""Random signs taken from one 64-bit draw; the top bits of a signed draw are left alone."""
_SHIFT = 24
"""Pixels by which the lattice is shifted at random: half a cell of the coarse octaves."""


@NOISES.register("gaussian")
def gaussian_noise(seeds: torch.Tensor, height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return independent standard normal pixels, `(b, 1, height, width)`."""
    return seeded_normal(seeds, 1, height, width).to(device)


def seeded_normal(seeds: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return standard normal numbers `(b, *shape)` on the CPU, those of a sample from its own seed."""
    generator = torch.Generator()
    return torch.stack([torch.randn(shape, generator=generator.manual_seed(int(s))) for s in seeds])


@NOISES.register("simplex")
def simplex_noise(seeds: torch.Tensor, height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return simplex noise `(b, 1, height, width)`: 6 octaves, persistence 0.8, largest wavelength 64 pixels.

    Source: Wyatt et al., AnoDDPM, CVPRW 2022. The value at a pixel is linear in the gradients at the lattice points
    around it, and which points those are never changes, so all octaves together are one sparse matrix, computed
    once, times random gradients.

    Differs from paper: the published field has standard deviation 0.59 and a drifting mean; here each
    pixel is scaled to zero mean and unit variance over seeds, which is what the schedule assumes. Gradients are
    drawn per sample (the published code shares one field over the batch), and the lattice is shifted per sample.
    """
    basis = _simplex_basis(height + _SHIFT, width + _SHIFT, device)
    signs = _random_signs(seeds, basis.n_columns, device)
    with torch.autocast(device.type, enabled=False):  # the sparse product has no half-precision kernel
        product = torch.sparse.mm(basis.matrix, signs)
    fields = product.view(height + _SHIFT, width + _SHIFT, len(seeds))
    crops = []
    for number, seed in enumerate(seeds.tolist()):
        top, left = seed % (_SHIFT + 1), seed // (_SHIFT + 1) % (_SHIFT + 1)
        crops.append(fields[top : top + height, left : left + width, number])
    return torch.stack(crops)[:, None]


class _Basis(NamedTuple):
    matrix: torch.Tensor
    n_columns: int


@lru_cache(maxsize=8)
def _simplex_basis(height: int, width: int, device: torch.device) -> _Basis:
    """Return the sparse map from lattice gradients (x and y components) to pixels, rows of unit norm."""
    rows, columns, values, n_columns = [], [], [], 0
    for octave in range(_OCTAVES):
        row, point, offsets = _octave_corners(height, width, _WAVELENGTH / 2**octave, octave)
        unique, index = torch.unique(point, dim=0, return_inverse=True)
        kernel = (0.5 - offsets.square().sum(dim=1)).clamp_min(0) ** 4
        contribution = _PERSISTENCE**octave * kernel[:, None] * offsets
        for axis in range(2):
            rows.append(row)
            columns.append(n_columns + 2 * index + axis)
            values.append(contribution[:, axis])
        n_columns += 2 * len(unique)
    entries = torch.stack([torch.cat(rows), torch.cat(columns)])
    size = (height * width, n_columns)
    matrix = torch.sparse_coo_tensor(entries, torch.cat(values), size, check_invariants=True).coalesce()
    # Signs have unit variance, so a row of unit norm gives a pixel of unit variance.
    pixel, norm = matrix.indices()[0], torch.zeros(height * width, dtype=torch.float64)
    norm.index_add_(0, pixel, matrix.values().square())
    scaled = (matrix.values() / norm.sqrt()[pixel]).float()
    keep = scaled != 0
    entries = matrix.indices()[:, keep]
    matrix = torch.sparse_coo_tensor(entries, scaled[keep], size, check_invariants=True).coalesce()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return _Basis(matrix.to_sparse_csr().to(device), n_columns)


def _octave_corners(
    height: int, width: int, wavelength: float, octave: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pixel index, lattice point and offset from it, for the three corners around every pixel."""
    # An irrational shift and turn per octave keep pixels away from lattice points, where simplex noise is zero.
    angle = 0.7 + 1.1 * octave
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    u = (math.cos(angle) * x - math.sin(angle) * y).flatten() / wavelength + math.sqrt(2) * (octave + 1)
    v = (math.sin(angle) * x + math.cos(angle) * y).flatten() / wavelength + math.sqrt(3) * (octave + 1)
    skew = (u + v) * _SKEW
    base = torch.stack([(u + skew).floor(), (v + skew).floor()], dim=1)
    inside = torch.stack([u, v], dim=1) - (base - base.sum(dim=1, keepdim=True) * _UNSKEW)
    lower = inside[:, 0] > inside[:, 1]
    middle = torch.stack([lower, ~lower], dim=1).double()
    corners = [torch.zeros_like(middle), middle, torch.ones_like(middle)]
    points = torch.cat([base + corner for corner in corners])
    offsets = torch.cat([inside - corner + corner.sum(1, keepdim=True) * _UNSKEW for corner in corners])
    return torch.arange(height * width).repeat(3), points, offsets


def _random_signs(seeds: torch.Tensor, count: int, device: torch.device) -> torch.Tensor:
    """Return signs ±1 of shape `(count, b)`; column b depends on seed b alone."""
    n_words = -(-count // _BITS)
    generator = torch.Generator()
    high = 2**_BITS
    words = torch.stack(
        [torch.randint(high, (n_words,), generator=generator.manual_seed(int(s))) for s in seeds], dim=1
    ).to(device)
    shifts = torch.arange(_BITS, device=device)[:, None, None]
    bits = (words[None] >> shifts) & 1
    return bits.flatten(0, 1)[:count].float().mul_(2).sub_(1)
