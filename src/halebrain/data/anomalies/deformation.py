"""Smooth deformation: tissue pushed away from a place or drawn into it, as a mass or a loss of tissue does.

Source: the source and sink deformations of Pinaya et al. and of the MOOD challenge's synthetic cases.
"""

import torch
from torch.nn import functional as F

from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySettings, Params
from halebrain.data.anomalies.shapes import between, centres, column, drawn, offsets


class DeformationSettings(AnomalySettings):
    """Settings of the deformation.

    Args:
        radius: Range of the radius in pixels within which tissue moves.
        strength: Range of the share of the distance from the centre by which tissue moves close to it. The largest
            displacement is 4/27 of strength times radius; below 1 nothing folds.
    """

    radius: tuple[float, float] = (8.0, 24.0)
    strength: tuple[float, float] = (0.15, 0.45)


@ANOMALIES.register("deformation")
class DeformationAnomaly(AnomalyGenerator):
    """Moves pixels along the radius, most at a third of it and not at all at the centre and the rim."""

    Settings = DeformationSettings
    settings: DeformationSettings

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw place, radius, strength, and whether tissue comes or goes."""
        s = self.settings
        return [
            {
                "present": u[0] < s.probability,
                "place": u[1],
                "radius": between(s.radius, u[2]),
                "strength": between(s.strength, u[3]) * (1 if u[4] < 0.5 else -1),
            }
            for u in torch.rand(count, 5, generator=generator).tolist()
        ]

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        centre = centres(brain_mask, drawn(params, "place"))
        rows, columns = offsets(image.shape, centre, torch.zeros(len(params)))
        radius, strength = (column(params, key, image) for key in ("radius", "strength"))
        inside = (rows.square() + columns.square()).sqrt() / radius
        # r ↦ r (1 − s (1 − r)²): smooth at the rim, the identity outside, monotone for |s| < 1.
        scale = 1 - strength * (1 - inside).clamp(0, 1).square()
        height, width = image.shape[-2:]
        y = (rows * scale + centre[:, 0, None, None, None] + 0.5) / height * 2 - 1
        x = (columns * scale + centre[:, 1, None, None, None] + 0.5) / width * 2 - 1
        moved = F.grid_sample(
            image, torch.stack([x, y], dim=-1)[:, 0], mode="bilinear", padding_mode="border", align_corners=False
        )
        altered = torch.where(inside < 1, moved, image)
        return altered
