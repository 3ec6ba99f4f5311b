"""Contrast: from tissues to the intensities of one modality, with inhomogeneity of healthy tissue."""

import torch

from halebrain.simulation.anatomy import CSF, DEEP, GM, TISSUES, VENTRICLE, WM, Anatomy
from halebrain.simulation.contrast_params import ContrastParams
from halebrain.simulation.nuisance import add_nuisances


def render(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Return the ideal image `(i, j, k)`, about [0, 1.2], 0 outside the brain; pure."""

    def field(number: int, wavelength_mm: float) -> torch.Tensor:
        return anatomy.noise(wavelength_mm, params.seed + number)

    y = torch.linspace(-1, 1, anatomy.shape[1])[None, :, None]
    image = torch.zeros(anatomy.shape)
    for tissue in range(len(TISSUES)):
        grain = params.unevenness * (0.5 * field(tissue, 30) + 0.8 * field(10 + tissue, 5))
        value = params.means[tissue] * (1 + grain)
        if tissue in (WM, DEEP):
            value = value * (1 + params.gradient * y)
        if tissue in (CSF, VENTRICLE) and params.nulling > 0:
            value = value + params.nulling * params.means[GM] * (field(30, 30) - 0.8).clamp(0, 1.5)
        image = image + anatomy.tissues[tissue] * value
    image = image + _caps(anatomy, params, field(31, 12))
    image = image + _vessels(anatomy, params, field(32, 4), field(33, 3.5))
    image = add_nuisances(image, anatomy, params)
    return image.clamp_min(0) * anatomy.brain_mask


def _caps(anatomy: Anatomy, params: ContrastParams, field: torch.Tensor) -> torch.Tensor:
    """Return the healthy brightening of white matter along the ventricle walls."""
    if params.cap == 0:
        return torch.zeros_like(field)
    near = torch.exp(-((anatomy.ventricle_distance_mm / 3.0) ** 2))
    return params.cap * params.means[GM] * near * anatomy.tissues[WM] * (1 + 0.6 * field).clamp(0, 2)


def _vessels(anatomy: Anatomy, params: ContrastParams, field: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return small dark or bright spots: vessels in the sulci, perivascular spaces and flow voids in the depth."""
    brightest = max(params.means)
    in_csf = ((field - 1.8) * 2).clamp(0, 1) * anatomy.tissues[CSF]
    csf_contrast = params.means[GM] - params.means[CSF]
    in_depth = ((other - 2.2) * 2).clamp(0, 1) * (anatomy.tissues[DEEP] + 0.3 * anatomy.tissues[WM])
    return params.vessel * (0.8 * csf_contrast * in_csf + 0.35 * (params.means[CSF] - 0.5 * brightest) * in_depth)
