"""Structural similarity, for the anomaly map and for evaluating reconstructions."""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

_SIGMAS = (0.5, 1.0, 2.0, 3.0)
"""Widths of the kernels in pixels: windows of 5, 9, 17 and 25, from 1 to 5 cm at 2 mm."""


def ssim_map(
    image: torch.Tensor,
    other: torch.Tensor,
    *,
    sigma: float = 1.0,
    window: int = 9,
    data_range: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """Return the structural similarity at each pixel, in [−1, 1] (Wang et al. 2004, equation 13).

    Gaussian window of standard deviation `sigma` pixels, K₁ = 0.01, K₂ = 0.03. Always in full precision: variances
    are differences of squares, of which half precision leaves nothing.
    """
    full = torch.promote_types(image.dtype, torch.float32)
    with torch.autocast(image.device.type, enabled=False):
        return _ssim(image.to(full), other.to(full), sigma, window, data_range)


def _ssim(
    image: torch.Tensor, other: torch.Tensor, sigma: float, window: int, data_range: float | torch.Tensor
) -> torch.Tensor:
    offset = torch.arange(window, device=image.device, dtype=image.dtype) - window // 2
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()

    def smooth(x: torch.Tensor) -> torch.Tensor:
        pad = window // 2
        x = F.pad(x, (pad, pad, pad, pad), mode="reflect")
        return F.conv2d(F.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))

    return _similarity(image, other, smooth, data_range)


def _similarity(
    image: torch.Tensor,
    other: torch.Tensor,
    smooth: Callable[[torch.Tensor], torch.Tensor],
    data_range: float | torch.Tensor,
) -> torch.Tensor:
    mean_a, mean_b = smooth(image), smooth(other)
    var_a, var_b = smooth(image * image) - mean_a**2, smooth(other * other) - mean_b**2
    covariance = smooth(image * other) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))


def ssim_volume(volume: torch.Tensor, other: torch.Tensor, *, sigma: float = 1.0, window: int = 9) -> torch.Tensor:
    """Return the structural similarity at each voxel of two volumes `(d, h, w)`, in [−1, 1].

    As `ssim_map`, with a Gaussian window in three dimensions, and the larger of the two volumes' own ranges as the
    range of the data. Each side must be longer than half a window; `ValueError` otherwise.
    """
    pad = window // 2
    if min(volume.shape) <= pad:
        raise ValueError(f"a volume must have more than {pad} voxels along each axis, got {tuple(volume.shape)}")
    full = torch.promote_types(volume.dtype, torch.float32)
    offset = torch.arange(window, device=volume.device, dtype=full) - pad
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()

    def smooth(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (pad,) * 6, mode="reflect")
        for shape in ((1, 1, -1, 1, 1), (1, 1, 1, -1, 1), (1, 1, 1, 1, -1)):
            x = F.conv3d(x, kernel.view(shape))
        return x

    with torch.autocast(volume.device.type, enabled=False):
        a, b = volume.to(full)[None, None], other.to(full)[None, None]
        # Two constant volumes have no range; any positive one gives 1 where they are equal.
        span = torch.maximum(a.max() - a.min(), b.max() - b.min()).clamp_min(1e-6)
        return _similarity(a, b, smooth, span)[0, 0]


def multi_ssim_map(image: torch.Tensor, other: torch.Tensor, *, sigmas: Sequence[float] = _SIGMAS) -> torch.Tensor:
    """Return the mean of the structural similarity over Gaussian kernels of several widths, in [−1, 1].

    Intensities in [0, 1], `(b, 1, h, w)`; standard deviations in pixels. Each window reaches four of them to either
    side and must fit the image.
    Source: Behrendt et al. 2024, arXiv 2403.14262. Differs from paper: widths given as standard deviations.
    """
    maps = [ssim_map(image, other, sigma=sigma, window=2 * round(4 * sigma) + 1) for sigma in sigmas]
    return torch.stack(maps).mean(dim=0)
