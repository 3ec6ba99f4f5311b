"""Residual maps that need a scan as a whole, or every reconstruction of it, instead of one slice and the mean.

Maps lie in [0, 1], higher = more anomalous; 0 outside the brain.
Sources: 1 − SSIM in three dimensions: the published code of Behrendt et al. 2024 (MIDL). Mahalanobis distance with the
covariance of pixels: Behrendt et al. 2024, arXiv 2407.12474.
"""

from collections.abc import Callable

import torch
from torch.nn import functional as F

from halebrain.core.registry import Registry
from halebrain.core.similarity import ssim_volume

ScanResidual = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(slices, reconstructions over levels and draws, brain) → map.

Slices of one scan in their order, `(n, 1, h, w)` in [0, 1]; reconstructions `(s, n, 1, h, w)`; brain bool
`(n, 1, h, w)`; map `(n, 1, h, w)` in [0, 1].
"""

SCAN_RESIDUALS: Registry[ScanResidual] = Registry("residual of a scan")
_REGULARISATION = 0.01
"""Added to the diagonal of the covariance (published code): that of few reconstructions has no inverse."""


@SCAN_RESIDUALS.register("ssim_3d")
def ssim_3d(image: torch.Tensor, samples: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return (1 − SSIM) / 2 of the scan and its mean reconstruction: windows of 9³ voxels, the range of the scan.

    Halved instead of clamped, so that anticorrelated voxels, of which 1 − SSIM exceeds 1, keep their order. With
    `residual_weight` 2/3 the fused score orders voxels as the paper's (1 − SSIM) + ŷ does.
    """
    return (1 - ssim_volume(image[:, 0], samples.mean(dim=0)[:, 0]))[:, None].clamp(0, 2) / 2 * inside


@SCAN_RESIDUALS.register("mahalanobis_full")
def mahalanobis_full(image: torch.Tensor, samples: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    r"""Return m / (1 + m) with m the part of each pixel in the Mahalanobis distance of its slice.

    $m_i = \sqrt{\max(0,\ \delta_i\,(\Sigma^{-1}\delta)_i)}$ with δ the slice minus the mean of its reconstructions, and
    Σ their covariance over the pixels of the brain plus 0.01 on the diagonal. Differs from paper: mapped into [0, 1),
    which keeps the order; parts below 0, whose root is undefined, are 0.
    """
    distance = mahalanobis_distance(image, samples, inside)
    return distance / (1 + distance)


@SCAN_RESIDUALS.register("ssim_mahalanobis")
def ssim_mahalanobis(image: torch.Tensor, samples: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return (1 − SSIM) / 2 of `ssim_3d` times the Mahalanobis distance: the published score of arXiv 2407.12474.

    The distance is scaled to [0, 1] over the scan and smoothed with σ = 1 voxel before. The paper has ten
    reconstructions from level 500: `draws` and `levels` of a detection.
    """
    distance = mahalanobis_distance(image, samples, inside)
    span = float(distance.max() - distance.min())
    scaled = (distance - distance.min()) / span if span > 0 else torch.zeros_like(distance)
    return ssim_3d(image, samples, inside) * _smooth(scaled[:, 0])[:, None]


def mahalanobis_distance(image: torch.Tensor, samples: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return m of `mahalanobis_full`, ≥ 0, `(n, 1, h, w)`.

    With s reconstructions, the inverse of the covariance of all pixels is found from one of s × s (Woodbury), exactly.
    """
    found = torch.zeros(image.shape, dtype=torch.float64)
    for number in range(len(image)):
        brain = inside[number, 0]
        if not bool(brain.any()):
            continue
        own = samples[:, number, 0][:, brain].double()
        mean = own.mean(dim=0)
        delta = image[number, 0][brain].double() - mean
        # Σ = XᵀX + ρ I, so Σ⁻¹ = (I − Xᵀ (X Xᵀ + ρ I)⁻¹ X) / ρ; one reconstruction has no spread: X = 0.
        spread = (own - mean) / max(len(own) - 1, 1) ** 0.5
        small = spread @ spread.T + _REGULARISATION * torch.eye(len(own), dtype=torch.float64)
        solved = (delta - spread.T @ torch.linalg.solve(small, spread @ delta)) / _REGULARISATION
        found[number, 0][brain] = (delta * solved).clamp_min(0).sqrt()
    return found.to(image.dtype)


def _smooth(volume: torch.Tensor) -> torch.Tensor:
    """Return a volume `(n, h, w)` smoothed with a Gaussian of σ = 1 voxel, cut at 4 σ; edges mirrored."""
    offset = torch.arange(-4, 5, dtype=volume.dtype)
    kernel = torch.exp(-0.5 * offset**2)
    kernel = kernel / kernel.sum()
    x = volume[None, None]
    for axis in range(3):
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[2 + axis] = len(kernel)
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = 4
        x = F.conv3d(F.pad(x, pad, mode="replicate"), kernel.view(shape))
    return x[0, 0]
