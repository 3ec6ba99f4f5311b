"""Geometric augmentation of training pairs, batched on their device."""

import math
from collections.abc import Callable

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.random import branch
from halebrain.data.augment import AugmentationConfig, Probability

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
    """Move some slices, in every tensor alike; what comes from outside the field is 0.

    Args:
        tensors: Each `(b, c, h, w)`, of intensities in [0, 1] or bool; a bool tensor stays one.
        config: How many.
        generator: Randomness.
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
    angle, scale = _uniform(generator, _MAX_ANGLE, count), torch.exp(_uniform(generator, _MAX_LOG_SCALE, count, 2))
    theta = _theta(angle, scale, height / width).to(like.device)
    affine = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    control = _uniform(generator, _MAX_BEND, count, 2, 5, 5).to(like.device)
    bend = F.interpolate(control, (height, width), mode="bicubic", align_corners=True)
    return affine + bend.permute(0, 2, 3, 1)


def _draw_affine(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count, _, height, width = like.shape
    angle, scale = _uniform(generator, _SMALL_ANGLE, count), torch.exp(_uniform(generator, _SMALL_LOG_SCALE, count, 2))
    theta = _theta(angle, scale, height / width)
    theta[:, :, 2] = _uniform(generator, _SMALL_SHIFT, count, 2)
    return F.affine_grid(theta.to(like.device), [count, 1, height, width], align_corners=False)


def _uniform(generator: torch.Generator, bound: float, *shape: int) -> torch.Tensor:
    return bound * (2 * torch.rand(*shape, generator=generator) - 1)


def _theta(angle: torch.Tensor, scale: torch.Tensor, aspect: float) -> torch.Tensor:
    # Turned in pixels, so that a field that is not square is not sheared.
    theta = torch.zeros(len(angle), 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = torch.cos(angle) * scale[:, 0], -torch.sin(angle) * scale[:, 1] * aspect
    theta[:, 1, 0], theta[:, 1, 1] = torch.sin(angle) * scale[:, 0] / aspect, torch.cos(angle) * scale[:, 1]
    return theta
