"""Structural similarity, once for the anomaly map and for judging reconstructions."""

import torch
from torch.nn import functional as F


def ssim_map(
    image: torch.Tensor, other: torch.Tensor, *, sigma: float = 1.0, window: int = 9, data_range: float = 1.0
) -> torch.Tensor:
    """Return the structural similarity at each pixel, in [−1, 1] (Wang et al. 2004, equation 13).

    Gaussian window of standard deviation `sigma` pixels, K₁ = 0.01, K₂ = 0.03.
    """
    offset = torch.arange(window, device=image.device, dtype=image.dtype) - window // 2
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = kernel / kernel.sum()

    def smooth(x: torch.Tensor) -> torch.Tensor:
        pad = window // 2
        x = F.pad(x, (pad, pad, pad, pad), mode="reflect")
        return F.conv2d(F.conv2d(x, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))

    mean_a, mean_b = smooth(image), smooth(other)
    var_a, var_b = smooth(image * image) - mean_a**2, smooth(other * other) - mean_b**2
    covariance = smooth(image * other) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
