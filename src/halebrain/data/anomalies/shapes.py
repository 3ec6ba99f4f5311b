"""Shared parts of synthetic anomalies: positions in the brain, soft shapes, foreign slices, and insertion.

All functions take drawn parameters; none draws random numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

LEAST_CHANGE = 0.01
"""An alteration smaller than this fraction of the intensity range is not visible."""


def put_in(
    image: torch.Tensor, altered: torch.Tensor, brain_mask: torch.Tensor, present: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the slices with what really changed inside the brain, and where that is; the rest stays to the bit.

    Slices in [0, 1] and bool masks, `(b, 1, h, w)`; `present`: which slices get theirs, bool `(b,)`.
    """
    altered = altered.clamp(0, 1)
    mask = ((altered - image).abs() > LEAST_CHANGE) & brain_mask & present.to(image.device)[:, None, None, None]
    return torch.where(mask, altered, image), mask


def centres(brain_mask: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return a pixel of each slice's brain, `(b, 2)` as (row, column); the middle of a slice without brain.

    Args:
        brain_mask: Bool `(b, 1, h, w)`.
        place: Which one, in [0, 1), `(b,)`: brain pixels are counted row by row.
    """
    count, (height, width) = len(brain_mask), brain_mask.shape[-2:]
    flat = brain_mask.reshape(count, height * width)
    total = flat.sum(dim=1)
    wanted = (place.to(flat.device) * total).long() + 1
    index = torch.searchsorted(flat.cumsum(dim=1), wanted[:, None])[:, 0].clamp_max(height * width - 1)
    index = torch.where(total > 0, index, (height // 2) * width + width // 2)
    return torch.stack([index // width, index % width], dim=1).float()


def offsets(shape: Sequence[int], centre: torch.Tensor, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every pixel in axes turned by `angle` (radians, `(b,)`) about `centre` `(b, 2)`, each `(b, 1, h, w)`."""
    height, width = shape[-2:]
    rows = torch.arange(height, device=centre.device)[None, :, None] - centre[:, 0, None, None]
    columns = torch.arange(width, device=centre.device)[None, None, :] - centre[:, 1, None, None]
    cos, sin = (f(angle.to(centre.device))[:, None, None] for f in (torch.cos, torch.sin))
    return (cos * rows + sin * columns)[:, None], (cos * columns - sin * rows)[:, None]


def rectangle(shape: Sequence[int], centre: torch.Tensor, size: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Return rectangles of `size` `(b, 2)` pixels, bool `(b, 1, h, w)`."""
    along, across = offsets(shape, centre, angle)
    half = size.to(centre.device)[:, :, None, None, None] / 2
    return (along.abs() <= half[:, 0]) & (across.abs() <= half[:, 1])


def ellipse(shape: Sequence[int], centre: torch.Tensor, size: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """Return the squared distance from the centre in units of the half axes, `(b, 1, h, w)`; ≤ 1 is inside."""
    along, across = offsets(shape, centre, angle)
    half = size.to(centre.device)[:, :, None, None, None] / 2
    return (along / half[:, 0]).square() + (across / half[:, 1]).square()


def blob(
    shape: Sequence[int], centre: torch.Tensor, size: torch.Tensor, angle: torch.Tensor, seeds: Sequence[int]
) -> torch.Tensor:
    """Return ellipses with an irregular outline: 1 in the middle, 0 on the outline, below 0 outside, `(b, 1, h, w)`."""
    bumps = smooth_noise(seeds, shape, cells=6).to(centre.device)
    return 1 - ellipse(shape, centre, size, angle).sqrt() * (1 + 0.35 * bumps).clamp_min(0.3)


def smooth_noise(seeds: Sequence[int], shape: Sequence[int], *, cells: int) -> torch.Tensor:
    """Return noise of about unit variance with `cells` + 3 values along each axis, bicubic between, `(b, 1, h, w)`."""
    generator = torch.Generator()
    side = cells + 3
    coarse = torch.stack([torch.randn(1, side, side, generator=generator.manual_seed(seed)) for seed in seeds])
    return F.interpolate(coarse, shape[-2:], mode="bicubic", align_corners=True)


def foreign(image: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Return another slice of the batch for each: the one `offset` `(b,)` further on; a lone slice's mirror image."""
    count = len(image)
    if count == 1:
        return image.flip(2)
    other = (torch.arange(count) + 1 + offset.cpu() % (count - 1)) % count
    return image[other.to(image.device)]


def shifted(image: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return slices moved by whole pixels, `shift` `(b, 2)`, 0 where nothing comes in."""
    count, _, height, width = image.shape
    moves = shift.round().long().to(image.device)
    rows = torch.arange(height, device=image.device)[None] - moves[:, :1]
    columns = torch.arange(width, device=image.device)[None] - moves[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    batch = torch.arange(count, device=image.device)[:, None, None]
    taken = image[:, 0][batch, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return torch.where(inside, taken, 0)[:, None]


def drawn(params: Sequence[Mapping[str, Any]], key: str) -> torch.Tensor:
    """Return a drawn value of each slice, `(b, …)`, on the CPU."""
    return torch.tensor([one[key] for one in params])


def column(params: Sequence[Mapping[str, Any]], key: str, like: torch.Tensor) -> torch.Tensor:
    """Return a drawn value of each slice, `(b, 1, 1, 1)`, on the device of `like`."""
    return torch.tensor([one[key] for one in params], device=like.device)[:, None, None, None]


def between(limits: tuple[float, float], u: float) -> float:
    """Return the value at `u` in [0, 1) of a range."""
    return limits[0] + (limits[1] - limits[0]) * u
