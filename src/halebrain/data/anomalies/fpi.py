"""FPI: a patch mixed with the same place of another slice (Tan et al. 2020, arXiv 2011.04197)."""

import torch
from pydantic import Field

from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySettings, Params
from halebrain.data.anomalies.shapes import between, centres, column, drawn, ellipse, foreign, rectangle


class FpiSettings(AnomalySettings):
    """Settings of foreign-patch interpolation.

    Args:
        size: Range of the sides in pixels.
        factor: Range of α, the share of the foreign slice.
        round_share: Share of patches that are ellipses; the rest are rectangles, as published.
    """

    size: tuple[float, float] = (10.0, 40.0)
    factor: tuple[float, float] = (0.05, 0.95)
    round_share: float = Field(default=0.5, ge=0, le=1)


@ANOMALIES.register("fpi")
class FpiAnomaly(AnomalyGenerator):
    r"""$(1 - \alpha) I + \alpha I_{foreign}$ within a patch.

    Differs from paper: the target is the mask where something changed, not α, so that every anomaly has one kind of
    label; ellipses beside rectangles.
    """

    Settings = FpiSettings
    settings: FpiSettings

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw place, sides, shape, factor and the foreign slice."""
        s = self.settings
        return [
            {
                "present": u[0] < s.probability,
                "place": u[1],
                "size": [between(s.size, u[2]), between(s.size, u[3])],
                "round": u[4] < s.round_share,
                "factor": between(s.factor, u[5]),
                "offset": int(u[6] * 10_000),
            }
            for u in torch.rand(count, 7, generator=generator).tolist()
        ]

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        patch = patches(image, brain_mask, params)
        factor = column(params, "factor", image)
        other = foreign(image, drawn(params, "offset"))
        mixed = torch.where(patch, torch.lerp(image, other, factor), image)
        return mixed


def patches(image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
    """Return the patch of each slice from its "place", "size" and "round", bool `(b, 1, h, w)`."""
    centre = centres(brain_mask, drawn(params, "place"))
    size, angle = drawn(params, "size"), torch.zeros(len(params))
    inside = ellipse(image.shape, centre, size, angle) <= 1
    is_round = column(params, "round", image)
    return torch.where(is_round, inside, rectangle(image.shape, centre, size, angle))
