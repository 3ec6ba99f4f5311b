"""Perlin-noise anomalies after DRAEM: a noise blob filled with one intensity, or with an altered texture.

Source: Zavrtanik et al., ICCV 2021; Behrendt et al. 2024, appendix C.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.config import GrowingConfig
from halebrain.core.random import derive_seed, draw_seeds
from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, Params
from halebrain.data.anomalies.shapes import LEAST_CHANGE, between, column
from halebrain.data.draem_textures import AUGMENTERS, turned


class PerlinSettings(GrowingConfig):
    """Settings of the Perlin anomaly.

    Args:
        probability: Share of slices that get an anomaly; the rest stay healthy, as in DRAEM.
        max_scale_power: Noise scales are 2^0 … 2^max along each axis.
        threshold: Range of the uniformly drawn threshold on the noise, scaled to [−1, 1] (the paper's
            text draws it, its code has 0.5); masks like those of its figure 4 need more than 0.4.
        opacity: Range of the opacity γ.
        grain: Largest contrast of the noise texture of the filling; 0 = flat fillings, as in the paper's figure 4,
            0.4 = coarse textures, nearer to DRAEM's own.
        source: "text" = by the paper's text and figure 4. "code" = as the published code fills the mask: with the noise
            that made it, after three of ten augmenters; the noise is then Perlin's times √2 instead of scaled to
            [−1, 1]. The code also has `probability` 1, `max_scale_power` 6 and `threshold` [0.5, 0.5].
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"source"})

    probability: float = Field(default=0.5, ge=0, le=1)
    max_scale_power: int = Field(default=5, ge=0, le=6)
    threshold: tuple[float, float] = (0.45, 0.8)
    opacity: tuple[float, float] = (0.2, 1.0)
    grain: float = Field(default=0.0, ge=0, le=1)
    source: Literal["text", "code"] = "text"

    def model_post_init(self, _: Any, /) -> None:
        """Check that no setting is without effect."""
        if self.source == "code" and self.grain > 0:
            raise ValueError("grain belongs to source 'text': with 'code' the noise itself is the texture")


@ANOMALIES.register("perlin")
class PerlinAnomaly(AnomalyGenerator):
    r"""$I_{syn} = (1-M) I + (1-\gamma) M I + \gamma M I_{aug}$ with M from thresholded Perlin noise.

    Differs from paper: the mask is restricted to the brain (57 % of the published one lies outside) and to
    pixels that really change; intensities stay floating-point (the published code passes through 8 bits).
    """

    Settings = PerlinSettings
    settings: PerlinSettings

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw scales, rotation, threshold, opacity, texture and its three alterations for each anomaly."""
        s = self.settings
        uniform = torch.rand(count, 8, generator=generator).tolist()
        seeds = draw_seeds(count, generator).tolist()
        orders = [torch.randperm(len(_ALTERATIONS), generator=generator)[:3].tolist() for _ in range(count)]
        names = list(_ALTERATIONS)
        if s.source == "code":
            names = list(AUGMENTERS)
            orders = [torch.randperm(len(names), generator=generator)[:3].tolist() for _ in range(count)]
        strengths = torch.rand(count, 3, generator=generator).tolist() if s.source == "code" else [[]] * count
        return [
            {
                "present": u[0] < s.probability,
                "scale_powers": [int(u[1] * (s.max_scale_power + 1)), int(u[2] * (s.max_scale_power + 1))],
                "rotation_degrees": (u[3] * 2 - 1) * 90,
                "threshold": between(s.threshold, u[4]),
                "opacity": between(s.opacity, u[5]),
                "texture_mean": u[6],
                "texture_contrast": s.grain * u[7],
                "alterations": [names[i] for i in order],
                "seed": seed,
                **({"strengths": own} if own else {}),
            }
            for u, order, seed, own in zip(uniform, orders, seeds, strengths, strict=True)
        ]

    def apply(
        self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return altered slices and masks; see the class for the formula."""
        height, width = image.shape[-2:]
        shapes, textures = [], []
        for p in params:
            if self.settings.source == "code":
                noise = published_noise(height, width, p)
                shapes.append(noise > p["threshold"])
                textures.append(_augmented(noise, p))
                continue
            noise = perlin_noise(height, width, p["scale_powers"], seed=p["seed"])
            shapes.append(turned(noise, p["rotation_degrees"], padding="reflection") > p["threshold"])
            textures.append(_fill(height, width, p))
        present = column(params, "present", image)
        opacity = column(params, "opacity", image)
        mask = torch.stack(shapes)[:, None].to(image.device) & brain_mask & present
        altered = (1 - opacity) * image + opacity * torch.stack(textures)[:, None].to(image.device)
        mask = mask & ((altered - image).abs() > LEAST_CHANGE)
        return torch.where(mask, altered, image), mask


def perlin_noise(height: int, width: int, scale_powers: tuple[int, int] | list[int], *, seed: int) -> torch.Tensor:
    """Return Perlin gradient noise `(height, width)` scaled to [−1, 1], with 2^power cells along each axis."""
    noise = _gradient_noise(height, width, scale_powers, seed)
    return noise / noise.abs().max().clamp_min(1e-6)


def published_noise(height: int, width: int, p: Params) -> torch.Tensor:
    """Return the noise of the published code: Perlin's times √2, cut from the next power of two, turned in zeros."""
    large = [2 ** math.ceil(math.log2(side)) for side in (height, width)]
    noise = math.sqrt(2) * _gradient_noise(large[0], large[1], p["scale_powers"], p["seed"])
    return turned(noise[:height, :width].contiguous(), p["rotation_degrees"])


def _augmented(noise: torch.Tensor, p: Params) -> torch.Tensor:
    """Return what the published code fills a mask with: its noise through three augmenters, in [0, 1].

    Below 0 the noise wraps round, as it does there on its way to 8 bits.
    """
    texture = torch.where(noise < 0, noise + 256 / 255, noise).clamp(0, 1)
    for name, strength in zip(p["alterations"], p["strengths"], strict=True):
        texture = AUGMENTERS[name](texture, strength)
    return texture


def _gradient_noise(height: int, width: int, scale_powers: tuple[int, int] | list[int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = 2 ** scale_powers[0], 2 ** scale_powers[1]
    angle = 2 * torch.pi * torch.rand(rows + 1, columns + 1, generator=generator)
    y = torch.arange(height) * (rows / height)
    x = torch.arange(width) * (columns / width)
    top, left = y.long(), x.long()
    dy, dx = (y - top)[:, None], (x - left)[None, :]

    def corner(down: int, right: int) -> torch.Tensor:
        turn = angle[top + down][:, left + right]
        slope: torch.Tensor = torch.sin(turn) * (dy - down) + torch.cos(turn) * (dx - right)
        return slope

    fade_y, fade_x = _fade(dy), _fade(dx)
    upper = torch.lerp(corner(0, 0), corner(0, 1), fade_x.expand(height, width))
    lower = torch.lerp(corner(1, 0), corner(1, 1), fade_x.expand(height, width))
    return torch.lerp(upper, lower, fade_y.expand(height, width))


def _fill(height: int, width: int, p: Params) -> torch.Tensor:
    """Return what the mask is filled with, `(height, width)` in [0, 1]."""
    texture = torch.full((height, width), float(p["texture_mean"]))
    if p["texture_contrast"] == 0:
        # What the three alterations make of one intensity is one intensity, which is drawn at once.
        return texture
    grain = perlin_noise(height, width, (5, 5), seed=derive_seed(p["seed"], "texture"))
    texture = (texture + p["texture_contrast"] * grain).clamp(0, 1)
    for name in p["alterations"]:
        texture = _ALTERATIONS[name](texture)
    return texture


def _fade(t: torch.Tensor) -> torch.Tensor:
    return t**3 * (t * (t * 6 - 15) + 10)


def _equalise(x: torch.Tensor) -> torch.Tensor:
    ranks = x.flatten().argsort().argsort().view_as(x)
    return ranks / max(x.numel() - 1, 1)


def _autocontrast(x: torch.Tensor) -> torch.Tensor:
    return (x - x.min()) / (x.max() - x.min()).clamp_min(1e-6)


def _sharpen(x: torch.Tensor) -> torch.Tensor:
    smooth = F.avg_pool2d(F.pad(x[None, None], (1, 1, 1, 1), mode="reflect"), 3, 1)[0, 0]
    return (x + (x - smooth)).clamp(0, 1)


# "Colour" of the published list changes nothing on a grey image and is left out.
_ALTERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "posterise": lambda x: (x * 7).round() / 7,
    "sharpen": _sharpen,
    "solarise": lambda x: torch.where(x > 0.5, 1 - x, x),
    "equalise": _equalise,
    "brighten": lambda x: (x * 1.4).clamp(0, 1),
    "darken": lambda x: x * 0.6,
    "autocontrast": _autocontrast,
}
