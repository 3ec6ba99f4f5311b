"""Degradation of slices by noise and coarse resolution, batched on their device."""

import torch
from torch.nn import functional as F

_REACH = 6


def add_rician_noise(image: torch.Tensor, sigma: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Return the magnitude of slices with complex Gaussian noise, as MR images have it (Gudbjartsson & Patz 1995).

    Args:
        image: `(b, c, h, w)`.
        sigma: Standard deviation of either part, `(b, 1, 1, 1)`.
        generator: Randomness, on the CPU.
    """
    real, imaginary = (torch.randn(image.shape, generator=generator).to(image.device) * sigma for _ in range(2))
    return ((image + real).square() + imaginary.square()).sqrt()


def lower_resolution(image: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return slices as if their pixels had been larger, interpolated back to the same grid.

    Args:
        image: `(b, c, h, w)`.
        factors: How many times larger along h and w, at least 1, `(b, 2)`.
    """
    along_h = _coarsen(image.transpose(2, 3), factors[:, 0]).transpose(2, 3)
    return _coarsen(along_h, factors[:, 1])


def _coarsen(image: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Average and resample along the last axis, each slice by its own factor `(b,)`."""
    count, width = image.shape[0], image.shape[-1]
    offset = torch.arange(-_REACH, _REACH + 1, device=image.device, dtype=image.dtype)
    # A pixel sees the share of each finer one that lies within it.
    kernel = (factor[:, None] / 2 + 0.5 - offset.abs()).clamp(0, 1)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    padded = F.pad(image.transpose(0, 1), (_REACH, _REACH, 0, 0), mode="replicate")
    averaged = F.conv2d(padded, kernel.view(count, 1, 1, -1), groups=count).transpose(0, 1)
    place = (torch.arange(width, device=image.device, dtype=image.dtype) + 0.5) / factor[:, None] - 0.5
    lower = place.floor()
    weight = (place - lower)[:, None, None, :]
    low, high = (_at(averaged, (n + 0.5) * factor[:, None] - 0.5) for n in (lower, lower + 1))
    return (1 - weight) * low + weight * high


def _at(image: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return values at fractional places `(b, n)` of the last axis, linearly between pixels."""
    width = image.shape[-1]
    place = place.clamp(0, width - 1)
    left = place.floor().long().clamp_max(width - 2) if width > 1 else place.long()
    share = (place - left)[:, None, None, :]

    def take(index: torch.Tensor) -> torch.Tensor:
        return image.gather(3, index[:, None, None, :].expand(-1, image.shape[1], image.shape[2], -1))

    return (1 - share) * take(left) + share * take((left + 1).clamp_max(width - 1))
