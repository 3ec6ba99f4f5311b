"""Synthetic anomalies beyond the one slice they were drawn in, for networks that see its neighbours too."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from halebrain.data.anomalies import AnomalyGenerator

DRAWS = "widest aside"
"""How anomalies extend into neighbouring slices; part of the hash of runs and cached pairs with neighbours."""

_TAPER = (0.3, 2.0)
"""Pixels that the border of an anomaly shrinks per slice: from long columns to flat discs; 1 = isotropic."""
_ASIDE = 0.5
"""Fraction of the anomalies that may be widest in a neighbouring slice."""


def apply_with_neighbours(
    anomaly: AnomalyGenerator,
    image: torch.Tensor,
    brain_mask: torch.Tensor,
    neighbours: Sequence[int],
    *,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put anomalies into slices `(b, 1 + k, h, w)` in [0, 1] and, tapering off, into their k neighbours.

    An anomaly is widest in the slice itself or, in half of the draws, in any slice as near as the farthest neighbour,
    the slice itself among them; where too little of it reaches the slice, that has none.

    Returns:
        The altered slices and neighbours, and the anomaly's mask in the slices themselves, bool `(b, 1, h, w)`.
    """
    plain, inside = image[:, :1], brain_mask[:, :1]
    altered, lesion = anomaly.apply(plain, inside, anomaly.sample_params(len(plain), generator=generator))
    if not neighbours:
        return altered, lesion
    count = len(plain)
    low, high = np.log(_TAPER)
    # Above and below taper apart.
    taper = torch.exp(low + (high - low) * torch.rand(count, 2, generator=generator))
    reach = max(abs(place) for place in neighbours)
    centre = torch.randint(-reach, reach + 1, (count,), generator=generator)
    centre = centre * (torch.rand(count, generator=generator) < _ASIDE)
    depth = torch.from_numpy(np.stack([ndimage.distance_transform_edt(m) for m in lesion[:, 0].cpu().numpy()]))
    depth, change = depth[:, None].to(plain), altered - plain
    found = []
    for channel, place in enumerate((0, *neighbours)):
        away = place - centre
        lost = away.abs() * torch.where(away > 0, taper[:, 1], taper[:, 0])
        share = (depth - lost.to(plain)[:, None, None, None]).clamp(0, 1)
        slices = slice(channel, channel + 1)
        found.append((image[:, slices] + share * change).clamp(0, 1) * brain_mask[:, slices])
        if place == 0:
            # Where the slice is the widest one it is as it was drawn, soft border and all.
            middle = (centre == 0)[:, None, None, None].to(plain.device)
            found[0] = torch.where(middle, altered, found[0])
            lesion = torch.where(middle, lesion, lesion & (share > 0.5))
    return torch.cat(found, dim=1), lesion
