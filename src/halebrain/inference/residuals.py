"""Residual maps between an image and its pseudo-healthy version, all in [0, 1], higher = more anomalous.

Sources: 1 − SSIM: Behrendt et al. 2024 (MIDL). Several kernel sizes: Behrendt et al. 2024, arXiv 2403.14262.
Mahalanobis distance over several reconstructions: Behrendt et al. 2024, arXiv 2407.12474.
"""

from collections.abc import Callable

import torch

from halebrain.core.registry import Registry
from halebrain.core.similarity import multi_ssim_map, ssim_map

Residual = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(image, mean reconstruction, variance of the reconstructions over levels and draws) → map.

All `(b, 1, h, w)`; intensities in [0, 1], variance ≥ 0 and 0 where there is one reconstruction only; map in [0, 1].
"""

RESIDUALS: Registry[Residual] = Registry("residual")
_FLOOR = 0.05**2
"""Variance added to the observed one, as few samples can agree by chance (5 % of the range)."""


def residual_map(
    image: torch.Tensor, reconstruction: torch.Tensor, kind: str, *, variance: torch.Tensor | None = None
) -> torch.Tensor:
    """Return how much the reconstruction deviates, in [0, 1], higher = more, shape `(b, 1, h, w)` as the inputs.

    Args:
        image: Intensities in [0, 1].
        reconstruction: Mean of the reconstructions, in [0, 1].
        kind: A name in `RESIDUALS`.
        variance: Variance of the reconstructions; `None` = there is one only.

    Raises:
        ConfigError: The name is unknown.
    """
    spread = torch.zeros_like(image) if variance is None else variance
    return RESIDUALS.get(kind)(image, reconstruction, spread)


@RESIDUALS.register("ssim")
def ssim(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return 1 − SSIM, anticorrelation counting as 1 (the paper)."""
    return (1 - ssim_map(image, mean)).clamp(0, 1)


@RESIDUALS.register("ssim_multi")
def ssim_multi(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return 1 − SSIM averaged over several kernel sizes: small and large lesions both find theirs."""
    return (1 - multi_ssim_map(image, mean)).clamp(0, 1)


@RESIDUALS.register("absolute")
def absolute(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return |x − x̂|."""
    return (image - mean).abs()


@RESIDUALS.register("squared")
def squared(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return (x − x̂)²."""
    return (image - mean).square()


@RESIDUALS.register("positive")
def positive(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return max(x − x̂, 0): brighter than healthy, as lesions are on FLAIR and T2."""
    return (image - mean).clamp_min(0)


@RESIDUALS.register("negative")
def negative(image: torch.Tensor, mean: torch.Tensor, _variance: torch.Tensor) -> torch.Tensor:
    """Return max(x̂ − x, 0): darker than healthy, as lesions are on T1."""
    return (mean - image).clamp_min(0)


@RESIDUALS.register("mahalanobis")
def mahalanobis(image: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Return d² / (1 + d²) with d² = (x − mean)² / (variance + ε): a deviation where draws agree counts for more.

    Differs from paper: the variance of each voxel alone, without covariances, and mapped into [0, 1) so that it can be
    fused with a probability; the order of voxels is that of d².
    """
    squares = (image - mean).square()
    return squares / (squares + variance + _FLOOR)
