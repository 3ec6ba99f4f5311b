"""Geometric augmentation of training pairs, batched on their device."""

import math

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.data.augment import AugmentationConfig, Probability

_MAX_ANGLE, _MAX_LOG_SCALE, _MAX_BEND = math.radians(15), 0.15, 0.06
"""Rotation; scale of each axis, e^±0.15; displacement at a control point as a share of half the field."""


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
        tensors: Each `(b, 1, h, w)`, of intensities in [0, 1] or bool; a bool tensor stays one.
        config: How many.
        generator: Randomness.
    """
    if config.warp == 0:
        return tensors
    first = tensors[0]
    chosen = (torch.rand(len(first), 1, 1, 1, generator=generator) < config.warp).to(first.device)
    grid = _draw_grid(len(first), first.shape[-2], first.shape[-1], generator).to(first.device)

    def move(tensor: torch.Tensor) -> torch.Tensor:
        moved = F.grid_sample(tensor.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return torch.where(chosen, moved >= 0.5 if tensor.dtype == torch.bool else moved.to(tensor.dtype), tensor)

    return tuple(move(tensor) for tensor in tensors)


def _draw_grid(count: int, height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Return where each pixel comes from, `(b, h, w, 2)` as (x, y) in [−1, 1] of the field."""

    def uniform(bound: float, *shape: int) -> torch.Tensor:
        return bound * (2 * torch.rand(count, *shape, generator=generator) - 1)

    angle, scale = uniform(_MAX_ANGLE), torch.exp(uniform(_MAX_LOG_SCALE, 2))
    # Turned in pixels, so that a field that is not square is not sheared.
    aspect = height / width
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = torch.cos(angle) * scale[:, 0], -torch.sin(angle) * scale[:, 1] * aspect
    theta[:, 1, 0], theta[:, 1, 1] = torch.sin(angle) * scale[:, 0] / aspect, torch.cos(angle) * scale[:, 1]
    affine = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    bend = F.interpolate(uniform(_MAX_BEND, 2, 5, 5), (height, width), mode="bicubic", align_corners=True)
    return affine + bend.permute(0, 2, 3, 1)
