"""Imperfect brain extraction: dura that stayed, cortex that was cut, slabs that were never scanned."""

import torch
from scipy import ndimage

from halebrain.core.config import Config
from halebrain.core.mask import largest_component
from halebrain.core.random import derive_seed
from halebrain.simulation.anatomy import Anatomy

_MOST_ML, _STEP_MM = 2400.0, 0.5
"""Larger masks, such as wide ones of large heads, are tightened: the readers accept at most 2500 ml."""


class StrippingParams(Config):
    """What was drawn for the brain mask of one subject.

    Args:
        offset_mm: How far the mask lies outside the brain on average; below 0 = inside.
        roughness_mm: Standard deviation of that distance from place to place.
        rim: Intensity of what lies outside the brain, relative to the brightest tissue.
        bottom_mm: Height in template space below which nothing was scanned.
        top_mm: Height above which nothing was scanned.
        seed: Seed of the fields.
    """

    offset_mm: float
    roughness_mm: float
    rim: float
    bottom_mm: float = -1000.0
    top_mm: float = 1000.0
    seed: int


def sample_stripping(generator: torch.Generator) -> StrippingParams:
    """Draw a brain mask: half of them close to the brain, the others too wide or too tight in places."""
    u, n = torch.rand(6, generator=generator).tolist(), torch.randn(1, generator=generator).tolist()
    wrong = u[0] < 0.5
    return StrippingParams(
        offset_mm=1.2 * n[0] if wrong else 0.4 * n[0],
        roughness_mm=1.0 + 1.8 * u[1] if wrong else 0.6,
        rim=0.1 + 0.9 * u[2] ** 1.5,
        bottom_mm=-60 + 40 * u[4] if u[3] < 0.1 else -1000.0,
        top_mm=50 + 25 * u[5] if u[3] > 0.93 else 1000.0,
        seed=int(torch.randint(2**40, (), generator=generator)),
    )


def stripped_mask(anatomy: Anatomy, params: StrippingParams) -> torch.Tensor:
    """Return the brain mask that an imperfect extractor gives, bool `(i, j, k)`; pure."""
    outside = ndimage.distance_transform_edt(~anatomy.brain_mask.numpy(), sampling=anatomy.spacing_mm)
    height = torch.from_numpy(outside).float() - anatomy.surface_distance_mm
    limit = params.offset_mm + params.roughness_mm * _field(anatomy, params, 0, 35)
    limit = limit + 0.5 * params.roughness_mm * _field(anatomy, params, 1, 12)
    z = anatomy.positions_mm()[2]
    scanned = (z >= params.bottom_mm) & (z <= params.top_mm)
    kept = (height <= limit.clamp(-5, 7)) & scanned
    most = _MOST_ML * 1000 / anatomy.spacing_mm**3
    while int(kept.sum()) > most and float(limit.max()) > -5:
        limit = limit - _STEP_MM
        kept = (height <= limit.clamp(-5, 7)) & scanned
    # Extractors keep only the largest component.
    return torch.from_numpy(largest_component(kept.numpy()))


def add_rim(image: torch.Tensor, anatomy: Anatomy, params: StrippingParams, brightest: float) -> torch.Tensor:
    """Return the ideal image with dura, fat and bone around the brain; the mask decides what of it is seen."""
    uneven = (1 + 0.5 * _field(anatomy, params, 2, 10)).clamp_min(0)
    return torch.where(anatomy.brain_mask, image, params.rim * brightest * uneven)


def _field(anatomy: Anatomy, params: StrippingParams, number: int, wavelength_mm: float) -> torch.Tensor:
    return anatomy.noise(wavelength_mm, derive_seed(params.seed, "stripping", number))
