"""Augmentation of training slices by intensity, noise and coarse resolution, batched on their device."""

from typing import ClassVar

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.config import GrowingConfig
from halebrain.core.random import branch

_REACH = 6
Probability = float
_LOW, _HIGH = (-0.45, 0.1), (0.85, 1.2)
"""Ranges of the intensities that become 0 and 1 in another window."""


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


class AugmentationConfig(GrowingConfig):
    """Probability of each augmentation; defaults are the published configuration's.

    Args:
        gamma: Raise intensities to a power in [0.74, 1.35].
        bias_field: Multiply by a smooth field.
        blur: Gaussian blur, standard deviation up to 1 pixel.
        ghosting: Repeat the slice faintly along the phase axis, as motion does.
        flip: Mirror left and right (0 in the paper).
        affine: Turn by up to 8°, shift by up to 4 % and scale each axis by up to 8 %, masks with it (0 in the paper).
        noise: Rician noise of up to 5 % of the intensity range (0 in the paper).
        resolution: Pixels up to 3 times as large, along each axis by itself (0 in the paper).
        window: Other intensities become 0 and 1, as a few dark vessels, a bright rim or the bias field may cause
            (0 in the paper).
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"affine", "noise", "resolution", "window"})

    gamma: Probability = Field(default=0.5, ge=0, le=1)
    bias_field: Probability = Field(default=0.25, ge=0, le=1)
    blur: Probability = Field(default=0.25, ge=0, le=1)
    ghosting: Probability = Field(default=0.5, ge=0, le=1)
    flip: Probability = Field(default=0.0, ge=0, le=1)
    affine: Probability = Field(default=0.0, ge=0, le=1)
    noise: Probability = Field(default=0.0, ge=0, le=1)
    resolution: Probability = Field(default=0.0, ge=0, le=1)
    window: Probability = Field(default=0.0, ge=0, le=1)


def augment(
    image: torch.Tensor, brain_mask: torch.Tensor, config: AugmentationConfig, *, generator: torch.Generator
) -> torch.Tensor:
    """Return slices `(b, c, h, w)` in [0, 1], each altered with the configured probabilities, 0 outside the brain.

    The channels of a slice, which are its neighbours, are altered alike; noise alone is each one's own.
    """
    count = len(image)

    def chance(probability: float) -> torch.Tensor:
        return _uniform(generator, 0, 1, image, count, 1, 1, 1) < probability

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return _uniform(generator, low, high, image, count, *(shape or (1, 1, 1)))

    power = torch.exp(uniform(-0.3, 0.3))
    image = torch.where(chance(config.gamma), image.clamp_min(0) ** power, image)
    field = F.interpolate(uniform(-0.3, 0.3, 1, 4, 4), image.shape[-2:], mode="bicubic", align_corners=True)
    image = torch.where(chance(config.bias_field), image * field.exp(), image)
    image = torch.where(chance(config.blur), _blur(image, uniform(0.3, 1.0)), image)
    image = torch.where(chance(config.ghosting), _ghost(image, uniform(0.02, 0.15), uniform(2, 6)), image)
    image = _degrade(image, config, generator)
    return (image * brain_mask).clamp(0, 1)


def flip(*tensors: torch.Tensor, config: AugmentationConfig, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Mirror some slices left to right (along h), the same ones in every tensor `(b, c, h, w)`."""
    chosen = torch.rand(len(tensors[0]), 1, 1, 1, generator=generator) < config.flip
    return tuple(torch.where(chosen.to(tensor.device), tensor.flip(2), tensor) for tensor in tensors)


def _degrade(image: torch.Tensor, config: AugmentationConfig, generator: torch.Generator) -> torch.Tensor:
    # Later additions use their own random streams, so that all other draws stay the same.
    count = len(image)
    if config.window > 0:
        own = branch(generator, "window")
        chosen = _uniform(own, 0, 1, image, count, 1, 1, 1) < config.window
        low, high = (_uniform(own, *limits, image, count, 1, 1, 1) for limits in (_LOW, _HIGH))
        image = torch.where(chosen, ((image - low) / (high - low)).clamp(0, 1), image)
    if config.resolution > 0:
        own = branch(generator, "resolution")
        chosen = _uniform(own, 0, 1, image, count, 1, 1, 1) < config.resolution
        image = torch.where(chosen, lower_resolution(image, _uniform(own, 1.0, 3.0, image, count, 2)), image)
    if config.noise > 0:
        own = branch(generator, "noise")
        chosen = _uniform(own, 0, 1, image, count, 1, 1, 1) < config.noise
        sigma = _uniform(own, 0.005, 0.05, image, count, 1, 1, 1)
        image = torch.where(chosen, add_rician_noise(image, sigma, generator=own), image)
    return image


def _uniform(generator: torch.Generator, low: float, high: float, like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Return uniform draws on the device of `like`; they are made on the CPU, so that the device does not matter."""
    return (low + (high - low) * torch.rand(*shape, generator=generator)).to(like.device)


def _blur(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each slice with its own standard deviation in pixels, `sigma` `(b, 1, 1, 1)`."""
    count = len(image)
    offset = torch.arange(-3, 4, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma.view(count, 1)) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    rows = F.conv2d(image.transpose(0, 1), kernel.view(count, 1, 7, 1), padding=(3, 0), groups=count)
    return F.conv2d(rows, kernel.view(count, 1, 1, 7), padding=(0, 3), groups=count).transpose(0, 1)


def _ghost(image: torch.Tensor, strength: torch.Tensor, repeats: torch.Tensor) -> torch.Tensor:
    """Weaken every n-th line of k-space, which lays faint copies along the last axis."""
    spectrum = torch.fft.fft(image, dim=-1)
    line = torch.arange(image.shape[-1], device=image.device)
    weakened = line % repeats.round().long() == 0
    weakened = weakened & (line > 1) & (line < image.shape[-1] - 1)
    spectrum = torch.where(weakened, spectrum * (1 - strength * 4), spectrum)
    ghosted: torch.Tensor = torch.fft.ifft(spectrum, dim=-1).abs()
    return ghosted
