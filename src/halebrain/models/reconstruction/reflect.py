"""Rectified flow from slices with synthetic anomalies to healthy ones, in one step: REFLECT (Beizaee et al. 2025)."""

import torch
from pydantic import Field

from halebrain.core.config import Config
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, OneLevelReconstructor
from halebrain.models.unet import DiffusionUNet, UNetConfig

_TIMES = 1000
"""Time 1 in the units of the U-Net's embedding, which expects levels of that order."""


class ReflectSettings(Config):
    """Settings of the rectified flow.

    Args:
        unet: Size of the velocity network.
        sampling_steps: Steps of Euler's method from the slice to its healthy version; 1 in the paper.
    """

    unet: UNetConfig = UNetConfig()
    sampling_steps: int = Field(default=1, ge=1)


@RECONSTRUCTORS.register("reflect")
class Reflect(OneLevelReconstructor):
    r"""REFLECT: a velocity that carries a slice with an anomaly, $x_0$, straight to the same slice without, $x_1$.

    With $x_t = (1 - t)\,x_0 + t\,x_1$, the loss is $(\hat v(x_t, t) - (x_1 - x_0))^2$, t uniform in [0, 1]; at test
    time $\hat x = x + \hat v(x, 0)$.

    Differs from paper: on the slices themselves, where the paper works in the latent space of an autoencoder trained
    before; and the anomaly is that of the training's configuration, where the paper fills random walks with textures
    or noise, mixed in with a weight of 0.2 to 1.
    """

    reference = (
        "Beizaee F, Hajimiri S, Ben Ayed I, Lodygensky G, Desrosiers C, Dolz J. REFLECT: rectified flows for efficient "
        "brain anomaly correction transport. MICCAI 2025; arXiv:2508.02889."
    )
    Settings = ReflectSettings
    needs_corruption = True

    def __init__(self, settings: ReflectSettings) -> None:
        super().__init__()
        self.settings = settings
        self.unet = DiffusionUNet(settings.unet)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the mean squared error of the velocity, intensities in [−1, 1]."""
        start, end = self._given(image, generator, corrupt) * 2 - 1, image * 2 - 1
        time = torch.rand(len(image), generator=generator).to(image.device)
        between = torch.lerp(start, end, time[:, None, None, None])
        return (self._velocity(between, time) - (end - start)).square().mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the slice carried to where it would be healthy, in [0, 1]; nothing is random."""
        x, steps = image * 2 - 1, self.settings.sampling_steps
        for step in range(steps):
            time = torch.full((len(x),), step / steps, device=x.device)
            x = x + self._velocity(x, time) / steps
        return ((x + 1) / 2).clamp(0, 1)

    def _velocity(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Return the velocity at the times `(b,)` in [0, 1]; a fresh network stands still."""
        velocity: torch.Tensor = self.unet(x, _TIMES * time, None)
        return velocity.float()
