"""Augmentation of training slices by intensity, noise, coarse resolution and geometry, batched on their device."""

import math
from collections.abc import Callable
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

    Slices are `(b, c, h, w)`; `sigma` is the standard deviation of either part, `(b, 1, 1, 1)`.
    """
    real, imaginary = (torch.randn(image.shape, generator=generator).to(image.device) * sigma for _ in range(2))
    return ((image + real).square() + imaginary.square()).sqrt()


def lower_resolution(image: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Return slices as if their pixels had been larger along h and w by `factors` ≥ 1, `(b, 2)`, on the same grid."""
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


_MAX_ANGLE, _MAX_LOG_SCALE, _MAX_BEND = math.radians(15), 0.15, 0.06
"""Rotation; scale of each axis, e^±0.15; displacement at a control point as a share of half the field."""
_SMALL_ANGLE, _SMALL_LOG_SCALE, _SMALL_SHIFT = math.radians(8), 0.08, 0.08
"""The same of what a registration leaves; shift as a share of half the field."""


class PairAugmentationConfig(AugmentationConfig):
    """Augmentation of the pairs that a segmenter learns from.

    Args:
        warp: Turn by up to 15°, stretch each axis by up to 16 % and bend smoothly, after the reconstruction: the
            reconstructor sees heads in the template's pose, as at test time, and the segmenter sees every lesion in
            another shape (0 in the paper).
    """

    warp: Probability = Field(default=0.0, ge=0, le=1)


def warp(
    *tensors: torch.Tensor, config: PairAugmentationConfig, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Move some slices `(b, c, h, w)`, in every tensor alike; what comes from outside the field is 0.

    Intensities lie in [0, 1]; a bool tensor stays one.
    """
    if config.warp == 0:
        return tensors
    return _moved(tensors, config.warp, generator, _draw_grid)


def shift(*tensors: torch.Tensor, config: AugmentationConfig, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Turn, shift and scale some slices a little (`config.affine`), in every tensor alike; see `warp`.

    The draws use their own random stream, which `generator` only seeds.
    """
    if config.affine == 0:
        return tensors
    return _moved(tensors, config.affine, branch(generator, "affine"), _draw_affine)


def _moved(
    tensors: tuple[torch.Tensor, ...],
    probability: float,
    generator: torch.Generator,
    draw: Callable[[torch.Tensor, torch.Generator], torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    first = tensors[0]
    chosen = (torch.rand(len(first), 1, 1, 1, generator=generator) < probability).to(first.device)
    with torch.autocast(first.device.type, enabled=False):  # in bf16, places would be a fifth of a pixel apart
        grid = draw(first, generator)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        moved = F.grid_sample(tensor.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return torch.where(chosen, moved >= 0.5 if tensor.dtype == torch.bool else moved.to(tensor.dtype), tensor)

    return tuple(move(tensor) for tensor in tensors)


def _draw_grid(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return where each pixel comes from, `(b, h, w, 2)` as (x, y) in [−1, 1] of the field."""
    count, _, height, width = like.shape
    angle, scale = _around(generator, _MAX_ANGLE, count), torch.exp(_around(generator, _MAX_LOG_SCALE, count, 2))
    theta = _theta(angle, scale, height / width).to(like.device)
    affine = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    control = _around(generator, _MAX_BEND, count, 2, 5, 5).to(like.device)
    bend = F.interpolate(control, (height, width), mode="bicubic", align_corners=True)
    return affine + bend.permute(0, 2, 3, 1)


def _draw_affine(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count, _, height, width = like.shape
    angle, scale = _around(generator, _SMALL_ANGLE, count), torch.exp(_around(generator, _SMALL_LOG_SCALE, count, 2))
    theta = _theta(angle, scale, height / width)
    theta[:, :, 2] = _around(generator, _SMALL_SHIFT, count, 2)
    return F.affine_grid(theta.to(like.device), [count, 1, height, width], align_corners=False)


def _around(generator: torch.Generator, bound: float, *shape: int) -> torch.Tensor:
    return bound * (2 * torch.rand(*shape, generator=generator) - 1)


def _theta(angle: torch.Tensor, scale: torch.Tensor, aspect: float) -> torch.Tensor:
    # Turned in pixels, so that a field that is not square is not sheared.
    theta = torch.zeros(len(angle), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = torch.cos(angle) * scale[:, 0], -torch.sin(angle) * scale[:, 1] * aspect
    theta[:, 1, 0], theta[:, 1, 1] = torch.sin(angle) * scale[:, 0] / aspect, torch.cos(angle) * scale[:, 1]
    return theta
