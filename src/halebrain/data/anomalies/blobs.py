"""Intensity blobs: bright or dark patches with an irregular, soft border, a rough model of lesions."""

import torch
from pydantic import Field

from halebrain.core.random import draw_seeds
from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySettings, Params
from halebrain.data.anomalies.shapes import between, blob, centres, column, drawn


class BlobsSettings(AnomalySettings):
    """Settings of the blobs.

    Args:
        max_blobs: Most blobs in a slice.
        size: Range of the diameters in pixels.
        change: Range of the strongest change of intensity.
        bright: Share of slices whose blobs are brighter than what was there.
    """

    max_blobs: int = Field(default=4, ge=1)
    size: tuple[float, float] = (4.0, 30.0)
    change: tuple[float, float] = (0.15, 0.7)
    bright: float = Field(default=0.7, ge=0, le=1)


@ANOMALIES.register("blobs")
class BlobsAnomaly(AnomalyGenerator):
    """Adds soft blobs; all of a slice go the same way, as the lesions of one disease do."""

    Settings = BlobsSettings
    settings: BlobsSettings

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw number, direction, and for each blob place, size, angle, change and the seed of its outline."""
        s, most = self.settings, self.settings.max_blobs
        slices = torch.rand(count, 3, generator=generator).tolist()
        blobs = torch.rand(count, most, 6, generator=generator).tolist()
        seeds = draw_seeds(count * most, generator).view(count, most).tolist()
        return [
            {
                "present": u[0] < s.probability,
                "sign": 1.0 if u[1] < s.bright else -1.0,
                "blobs": [
                    {
                        "place": v[0],
                        "size": [between(s.size, v[1] ** 2), between(s.size, v[2] ** 2)],
                        "angle": 3.1416 * v[3],
                        "softness": 0.1 + 0.5 * v[4],
                        "change": between(s.change, v[5]),
                        "seed": seed,
                    }
                    for v, seed in zip(own[: 1 + int(u[2] * most)], own_seeds, strict=False)
                ],
            }
            for u, own, own_seeds in zip(slices, blobs, seeds, strict=True)
        ]

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        change = torch.zeros_like(image)
        for number in range(max((len(p["blobs"]) for p in params), default=0)):
            have = [n for n, p in enumerate(params) if len(p["blobs"]) > number and p["present"]]
            if not have:
                continue
            own = [params[n]["blobs"][number] for n in have]
            own_mask = brain_mask[have]
            centre = centres(own_mask, drawn(own, "place"))
            size, angle = drawn(own, "size"), drawn(own, "angle")
            level = blob(image.shape, centre, size, angle, [b["seed"] for b in own])
            softness = column(own, "softness", image)
            strength = column(own, "change", image)
            change[have] = torch.maximum(change[have], strength * (level / softness).clamp(0, 1))
        sign = column(params, "sign", image)
        return image + sign * change
