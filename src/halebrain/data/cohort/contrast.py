"""Contrast: from tissues to the intensities of one modality, with what makes healthy tissue uneven.

Means are relative to the brightest tissue, close to those measured on public T1, T2 and FLAIR scans; the
randomised contrast follows the spirit of SynthSeg (Billot et al. 2023).
"""

import torch

from halebrain.core.config import Config
from halebrain.data.cohort.anatomy import CSF, DEEP, GM, TISSUES, VENTRICLE, WM, Anatomy
from halebrain.data.cohort.fields import smooth_noise

MODALITIES = ("T1w", "T2w", "FLAIR", "random")
_MEANS = {
    "T1w": (0.90, 0.56, 0.74, 0.12, 0.10),
    "T2w": (0.21, 0.33, 0.25, 0.95, 1.00),
    "FLAIR": (0.66, 0.80, 0.75, 0.20, 0.08),
}
_SPREAD = 0.06


class ContrastParams(Config):
    """What was drawn for one image's contrast.

    Args:
        modality: "T1w", "T2w", "FLAIR" or "random".
        means: Intensity of each tissue, in the order of `TISSUES`.
        unevenness: Relative spread of intensity inside a tissue.
        gradient: Relative difference of white matter between front and back.
        cap: Brightening beside the ventricles (FLAIR and T2 of healthy people show it too).
        nulling: How unevenly CSF is suppressed (FLAIR).
        vessel: Contrast of vessels and flow voids.
        seed: Seed of the fields.
    """

    modality: str
    means: tuple[float, float, float, float, float]
    unevenness: float
    gradient: float
    cap: float
    nulling: float
    vessel: float
    seed: int


def sample_contrast(modality: str, generator: torch.Generator) -> ContrastParams:
    """Draw the contrast of one image."""
    u = torch.rand(12, generator=generator).tolist()
    n = torch.randn(8, generator=generator).tolist()
    if modality == "random":
        means = _random_means(u[5:10])
    else:
        shift = [m + _SPREAD * m * n[i] for i, m in enumerate(_MEANS[modality])]
        means = (shift[0], shift[1], shift[2], shift[3], shift[4])
    water = modality in ("FLAIR", "T2w")
    return ContrastParams(
        modality=modality,
        means=means,
        unevenness=0.025 + 0.035 * u[0],
        gradient=0.04 * n[5],
        cap=(0.02 + 0.20 * u[1]) if water else 0.0,
        nulling=0.25 * u[2] if modality == "FLAIR" else 0.0,
        vessel=0.7 * u[3],
        seed=int(torch.randint(2**40, (), generator=generator)),
    )


def render(anatomy: Anatomy, params: ContrastParams) -> torch.Tensor:
    """Return the ideal image `(i, j, k)`, about [0, 1.2], 0 outside the brain; pure."""
    shape, spacing = _shape(anatomy), anatomy.spacing_mm

    def field(number: int, wavelength_mm: float) -> torch.Tensor:
        return smooth_noise(shape, wavelength_mm=wavelength_mm, spacing_mm=spacing, seed=params.seed + number)

    y = torch.linspace(-1, 1, shape[1])[None, :, None]
    image = torch.zeros(shape)
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


def _random_means(u: list[float]) -> tuple[float, float, float, float, float]:
    """Return intensities of any order; deep grey lies between white and grey, as it does in every contrast."""
    wm, gm, csf = (0.05 + 0.95 * v for v in u[:3])
    mix = 0.3 + 0.4 * u[3]
    return wm, gm, mix * wm + (1 - mix) * gm, csf, min(1.0, max(0.02, csf + 0.1 * (u[4] - 0.5)))


def _shape(anatomy: Anatomy) -> tuple[int, int, int]:
    i, j, k = anatomy.brain_mask.shape
    return i, j, k
