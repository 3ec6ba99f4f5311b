"""Synthetic anomalies beyond the one slice they were drawn in, for networks that see its neighbours too."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from halebrain.data.anomalies import AnomalyGenerator

_TAPER = (0.3, 2.0)
"""Pixels of its border that an anomaly loses with each slice: from long columns to flat discs; 1 = as deep as wide."""


def apply_with_neighbours(
    anomaly: AnomalyGenerator,
    image: torch.Tensor,
    brain_mask: torch.Tensor,
    neighbours: Sequence[int],
    *,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put anomalies into slices and, tapering off, into their neighbours.

    Args:
        anomaly: The generator; it sees the slices themselves.
        image: Slices in [0, 1], each followed by its neighbours, `(b, 1 + k, h, w)`.
        brain_mask: Bool, same shape.
        neighbours: The k places of the neighbours from the slice.
        generator: Randomness; without neighbours it is used as `sample_params` uses it.

    Returns:
        The altered slices and neighbours, and the anomaly's mask in the slices themselves, bool `(b, 1, h, w)`.
    """
    plain, inside = image[:, :1], brain_mask[:, :1]
    altered, lesion = anomaly.apply(plain, inside, anomaly.sample_params(len(plain), generator=generator))
    if not neighbours:
        return altered, lesion
    low, high = np.log(_TAPER)
    # Above and below taper apart.
    taper = torch.exp(low + (high - low) * torch.rand(len(plain), 2, generator=generator))
    depth = torch.from_numpy(np.stack([ndimage.distance_transform_edt(m) for m in lesion[:, 0].cpu().numpy()]))
    depth = depth[:, None].to(plain)
    found = [altered]
    for channel, place in enumerate(neighbours, start=1):
        lost = abs(place) * taper[:, int(place > 0)].to(plain)
        share = (depth - lost[:, None, None, None]).clamp(0, 1)
        slices = slice(channel, channel + 1)
        found.append((image[:, slices] + share * (altered - plain)).clamp(0, 1) * brain_mask[:, slices])
    return torch.cat(found, dim=1), lesion
