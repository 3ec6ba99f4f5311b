"""DAG: shape, texture and intensity bias drawn independently, in any degree from healthy to full.

Source: the disentangled anomaly generation of DISYRE (Naval Marimont et al., MICCAI 2024).
"""

from typing import Any

import torch
from pydantic import Field

from halebrain.core.random import draw_seeds
from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySettings, Params
from halebrain.data.anomalies.shapes import between, blob, centres, column, drawn, foreign, shifted, smooth_noise


class DagSettings(AnomalySettings):
    """Settings of DAG.

    Args:
        size: Range of the diameters in pixels.
        texture: Share of slices whose anomaly takes another texture: a foreign one, or smooth noise.
        bias: Share of slices whose anomaly is brighter or darker as a whole.
        change: Range of that bias.
        degree: Range of the degree.
    """

    size: tuple[float, float] = (6.0, 44.0)
    texture: float = Field(default=0.5, ge=0, le=1)
    bias: float = Field(default=0.8, ge=0, le=1)
    change: tuple[float, float] = (0.1, 0.6)
    degree: tuple[float, float] = (0.3, 1.0)


@ANOMALIES.register("dag")
class DagAnomaly(AnomalyGenerator):
    r"""$I + d\,S\,(t\,(T - I) + b)$ with degree d, soft shape S, texture T where t = 1, and bias b."""

    Settings = DagSettings
    settings: DagSettings

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw shape, texture, bias and degree, independently."""
        u = torch.rand(count, 13, generator=generator).tolist()
        seeds = draw_seeds(count, generator).tolist()
        return [self._params(own, seed) for own, seed in zip(u, seeds, strict=True)]

    def _params(self, u: list[float], seed: int) -> dict[str, Any]:
        s = self.settings
        has_texture = u[6] < s.texture
        # Without texture there must be a bias, or nothing would change.
        has_bias = u[7] < s.bias or not has_texture
        return {
            "present": u[0] < s.probability,
            "place": u[1],
            "size": [between(s.size, u[2] ** 1.5), between(s.size, u[3] ** 1.5)],
            "angle": 3.1416 * u[4],
            "softness": 0.05 + 0.5 * u[5],
            "texture": ("foreign" if u[8] < 0.5 else "noise") if has_texture else "own",
            "bias": between(s.change, u[9]) * (1 if u[10] < 0.6 else -1) if has_bias else 0.0,
            "source": u[11],
            "degree": between(s.degree, u[12]),
            "seed": seed,
        }

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        seeds = [p["seed"] for p in params]
        centre = centres(brain_mask, drawn(params, "place"))
        size, angle = drawn(params, "size"), drawn(params, "angle")
        level = blob(image.shape, centre, size, angle, seeds)
        shape = (level / column(params, "softness", image)).clamp(0, 1)
        change = _texture(image, brain_mask, centre, params) - image + column(params, "bias", image)
        return image + column(params, "degree", image) * shape * change


def _texture(image: torch.Tensor, brain_mask: torch.Tensor, centre: torch.Tensor, params: list[Params]) -> torch.Tensor:
    """Return what the anomaly is filled with: its own tissue, that of another slice and place, or smooth noise."""
    offset = torch.tensor([p["seed"] % 10_000 for p in params])
    other, other_mask = foreign(image, offset), foreign(brain_mask, offset)
    source = centres(other_mask, drawn(params, "source"))
    borrowed = shifted(other, centre - source)
    grain = smooth_noise([p["seed"] ^ 1 for p in params], image.shape, cells=24).to(image.device)
    noise = column(params, "source", image) + 0.1 * grain
    texture = image
    for name, values in (("foreign", borrowed), ("noise", noise)):
        here = torch.tensor([p["texture"] == name for p in params], device=image.device)[:, None, None, None]
        texture = torch.where(here, values, texture)
    return texture
