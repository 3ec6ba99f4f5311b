"""Fluid-driven anomalies: a focus spreads through the tissue, which carries it along and lets it seep.

Source: the pathology simulation of UNA (Liu et al. 2025, arXiv 2501.13370): an advection–diffusion equation with a
divergence-free flow. Differs from paper: two dimensions, semi-Lagrangian steps, and intensity edges slow the seeping.
"""

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.random import draw_seeds
from halebrain.data.anomalies.base import ANOMALIES, AnomalyGenerator, AnomalySettings, Params
from halebrain.data.anomalies.shapes import (
    LEAST_CHANGE,
    between,
    blob,
    centres,
    column,
    drawn,
    put_in,
    smooth_noise,
)

_EDGE = 0.08
"""Intensity step between neighbouring pixels at which seeping falls to 1/e."""


class FluidSettings(AnomalySettings):
    """Settings of the fluid-driven anomalies.

    Args:
        size: Range of the diameter of the focus in pixels; small ones are as frequent as large ones.
        change: Range of the strongest change of intensity.
        bright: Fraction of slices whose anomaly is brighter than the tissue.
        steps: Range of the number of steps, from the focus itself (0) to far spread.
        flow: Range of the fastest flow in pixels a step.
        seep: Range of the diffusivity in pixels² a step, below 0.25.
        at_border: Fraction of foci that lie at the outline of the brain: cortex, brain stem, cerebellum.
        mass_effect: Range of the largest displacement of the tissue around it, in pixels.
        texture: Standard deviation of the texture, as a fraction of the change.
    """

    size: tuple[float, float] = (2.5, 32.0)
    change: tuple[float, float] = (0.06, 0.6)
    bright: float = Field(default=0.6, ge=0, le=1)
    steps: tuple[int, int] = (0, 10)
    flow: tuple[float, float] = (0.0, 1.5)
    seep: tuple[float, float] = (0.02, 0.2)
    at_border: float = Field(default=0.3, ge=0, le=1)
    mass_effect: tuple[float, float] = (0.0, 3.0)
    texture: float = Field(default=0.15, ge=0)


@ANOMALIES.register("fluid")
class FluidAnomaly(AnomalyGenerator):
    r"""$\partial_t P = -V \cdot \nabla P + \nabla \cdot (D \nabla P)$ from a blob $P_0$; the slice becomes $I' + b\,P$.

    $V$ is the curl of smooth noise, $D$ is smooth and small across edges of $I$, and $I'$ is the slice pushed aside by
    the mass of large, dense foci. Displaced tissue is no lesion: the mask is where the intensity itself changed.
    """

    Settings = FluidSettings
    settings: FluidSettings
    displaces_tissue = True

    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw focus, flow, spread, sign, strength and mass effect."""
        s = self.settings
        numbers = torch.rand(count, 14, generator=generator).tolist()
        low, high = s.size
        return [
            {
                "present": u[0] < s.probability,
                "place": u[1],
                "at_border": u[2] < s.at_border,
                "size": [low * (high / low) ** u[3], low * (high / low) ** (0.7 * u[3] + 0.3 * u[4])],
                "angle": 3.1416 * u[5],
                "softness": 0.1 + 0.5 * u[6],
                "steps": int(between((s.steps[0], s.steps[1] + 1), u[7])),
                "flow": between(s.flow, u[8]),
                "seep": between(s.seep, u[9]),
                "sign": 1.0 if u[10] < s.bright else -1.0,
                # Small foci are as strong as large ones, or they would leave no trace in the loss.
                "change": between(s.change, u[11]),
                "mass": between(s.mass_effect, u[12]) if u[13] < 0.5 else 0.0,
                "seed": seed,
            }
            for u, seed in zip(numbers, draw_seeds(count, generator).tolist(), strict=True)
        ]

    def apply(
        self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return slices with the spread focus and their masks."""
        seeds = [p["seed"] for p in params]
        shell = brain_mask & (F.max_pool2d((~brain_mask).float(), 5, stride=1, padding=2) > 0)
        at_border = column(params, "at_border", image)
        centre = centres(torch.where(at_border, shell, brain_mask), drawn(params, "place"))
        size, angle = drawn(params, "size"), drawn(params, "angle")
        focus = (blob(image.shape, centre, size, angle, seeds) / column(params, "softness", image)).clamp(0, 1)
        spread = self._spread(focus * brain_mask, image, brain_mask, params)
        grain = 1 + self.settings.texture * smooth_noise([seed ^ 1 for seed in seeds], image.shape, cells=24).to(
            image.device
        )
        aside = _pushed_aside(image, spread, column(params, "mass", image))
        change = column(params, "sign", image) * column(params, "change", image) * spread * grain
        altered, changed = put_in(image, aside + change, brain_mask, drawn(params, "present"))
        return altered, changed & (change.abs() > LEAST_CHANGE)

    def _spread(
        self, density: torch.Tensor, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]
    ) -> torch.Tensor:
        """Return the density after each slice's own number of steps, at most 1 as at the start."""
        shape, device = image.shape, image.device
        height, width = shape[-2:]
        stream = smooth_noise([p["seed"] ^ 2 for p in params], shape, cells=8).to(device)
        velocity = torch.stack(
            [stream.diff(dim=2, append=stream[:, :, -1:]), -stream.diff(dim=3, append=stream[..., -1:])]
        )
        fastest = velocity.square().sum(dim=0).sqrt().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        down_rows, down_columns = velocity / fastest * column(params, "flow", image)
        # Read where the flow comes from (semi-Lagrangian, stable whatever the speed).
        rows = torch.arange(height, device=device)[None, None, :, None] - down_columns
        columns = torch.arange(width, device=device)[None, None, None, :] - down_rows
        grid = torch.stack([(columns + 0.5) / width * 2 - 1, (rows + 0.5) / height * 2 - 1], dim=-1)[:, 0]
        uneven = torch.sigmoid(2 * smooth_noise([p["seed"] ^ 3 for p in params], shape, cells=6).to(device))
        seep = column(params, "seep", image) * uneven
        through = [seep * torch.exp(-image.diff(dim=d, append=_last(image, d)).abs() / _EDGE) for d in (2, 3)]
        steps = column(params, "steps", image)
        for step in range(max((p["steps"] for p in params), default=0)):
            carried = F.grid_sample(density, grid, mode="bilinear", align_corners=False)
            for dim, wall in zip((2, 3), through, strict=True):
                current = wall * carried.diff(dim=dim, append=_last(carried, dim))
                carried = carried + current - current.roll(1, dims=dim)
            density = torch.where(step < steps, carried * brain_mask, density)
        return density


def _last(values: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the last row or column, as what lies beyond it: nothing flows over the edge."""
    return values.narrow(dim, values.shape[dim] - 1, 1)


def _pushed_aside(image: torch.Tensor, density: torch.Tensor, mass: torch.Tensor) -> torch.Tensor:
    """Return the slice with its tissue moved away from where the density is, by at most `mass` pixels."""
    if not (mass > 0).any():
        return image
    kernel = torch.exp(-(torch.arange(-9, 10, device=image.device).float() ** 2) / 32)
    kernel = kernel / kernel.sum()
    smooth = F.conv2d(
        F.conv2d(density, kernel[None, None, :, None], padding=(9, 0)), kernel[None, None, None], padding=(0, 9)
    )
    slopes = [smooth.diff(dim=d, append=_last(smooth, d)) for d in (2, 3)]
    steepest = (slopes[0].square() + slopes[1].square()).sqrt().amax(dim=(1, 2, 3), keepdim=True)
    # Large foci push, small ones do not: the displacement follows how much the blurred density rises.
    push = mass * (steepest / 0.08).clamp_max(1) / steepest.clamp_min(1e-6)
    height, width = image.shape[-2:]
    # What is read lies up the slope: tissue has moved down it.
    rows = torch.arange(height, device=image.device)[None, None, :, None] + push * slopes[0]
    columns = torch.arange(width, device=image.device)[None, None, None, :] + push * slopes[1]
    grid = torch.stack([(columns + 0.5) / width * 2 - 1, (rows + 0.5) / height * 2 - 1], dim=-1)[:, 0]
    moved = F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.where(mass > 0, moved, image)
