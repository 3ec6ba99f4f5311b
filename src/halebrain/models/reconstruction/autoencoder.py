"""Autoencoders: a slice squeezed through one vector, plain (AE) or drawn from a distribution (VAE)."""

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from halebrain.core.config import Config
from halebrain.core.random import draw_seeds
from halebrain.models.noise import seeded_normal
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, OneLevelReconstructor

_GRID = 6
"""Side of the coarsest map, whatever the slice's size: that of 96 × 96 pixels after four halvings."""


class AESettings(Config):
    """Settings of an autoencoder.

    Args:
        channels: Width of each level; every level halves the size.
        latent: Length of the vector (128 in Behrendt et al. 2024).
        norm_groups: Groups of each group norm; must divide every width.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256)
    latent: int = Field(default=128, ge=1)
    norm_groups: int = 8

    def model_post_init(self, _: object, /) -> None:
        """Check that groups divide the widths."""
        if wrong := [width for width in self.channels if width % self.norm_groups]:
            raise ValueError(f"norm_groups {self.norm_groups} must divide every width, not {wrong[0]}")


@RECONSTRUCTORS.register("ae")
class AE(OneLevelReconstructor):
    """AE: a slice squeezed through one vector, too short to hold a lesion (as a baseline in Baur et al. 2021).

    Convolutions down to one vector and up again; loss: L1.
    """

    reference = (
        "Baur C, Denner S, Wiestler B, Navab N, Albarqouni S. Autoencoders for unsupervised anomaly segmentation "
        "in brain MR images: a comparative study. Med Image Anal 2021;69:101952."
    )
    Settings = AESettings
    settings: AESettings
    outputs_per_latent = 1

    def __init__(self, settings: AESettings) -> None:
        super().__init__()
        self.settings = settings
        widths, groups = settings.channels, settings.norm_groups
        flat = widths[-1] * _GRID**2
        self.down = nn.Sequential(*(_halve(a, b, groups) for a, b in zip((1, *widths), widths, strict=False)))
        self.squeeze = nn.Linear(flat, settings.latent * self.outputs_per_latent)
        self.expand = nn.Linear(settings.latent, flat)
        back = tuple(reversed(widths))
        self.up = nn.Sequential(*(_double(a, b, groups) for a, b in zip(back, (*back[1:], back[-1]), strict=True)))
        self.head = nn.Conv2d(widths[0], 1, 3, padding=1)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the mean absolute difference to the healthy slices."""
        return (self._decoded(self.encode(image), image) - image).abs().mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return what the vector, or the mean of its distribution, holds of the slice, in [0, 1]; nothing is random."""
        return self._decoded(self.encode(image)[:, : self.settings.latent], image).clamp(0, 1)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Return the vector of each slice, `(b, latent × outputs_per_latent)`."""
        maps = F.adaptive_avg_pool2d(self.down(image * 2 - 1), _GRID)
        vector: torch.Tensor = self.squeeze(maps.flatten(1))
        return vector

    def _decoded(self, vector: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return slices of the size of others from vectors `(b, latent)`."""
        shape = like.shape
        maps = self.expand(vector).view(len(vector), -1, _GRID, _GRID)
        shrink = 2 ** len(self.settings.channels)
        size = (max(1, shape[-2] // shrink), max(1, shape[-1] // shrink))
        x = self.up(F.interpolate(maps, size, mode="bilinear", align_corners=False))
        if x.shape[-2:] != shape[-2:]:
            x = F.interpolate(x, shape[-2:], mode="bilinear", align_corners=False)
        # Around the middle of the range, so that a fresh network starts at grey.
        image: torch.Tensor = self.head(x) + 0.5
        return image.float()


def _halve(width: int, out: int, groups: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, out, 4, 2, 1), nn.GroupNorm(groups, out), nn.SiLU())


def _double(width: int, out: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(width, out, 3, padding=1),
        nn.GroupNorm(groups, out),
        nn.SiLU(),
    )


class VAESettings(AESettings):
    """Settings of a variational autoencoder.

    Args:
        kl_weight: β, the weight of the divergence from the normal distribution (0.001 in Behrendt et al. 2024).
    """

    kl_weight: float = Field(default=0.001, ge=0)


@RECONSTRUCTORS.register("vae")
class VAE(AE):
    """VAE: an autoencoder whose vector is drawn from a distribution close to the normal one (Baur et al. 2021).

    Loss: L1 + β · KL, both means: over pixels, and over slices and entries of the vector.
    """

    Settings = VAESettings
    settings: VAESettings
    outputs_per_latent = 2

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the loss with one draw of the vector for each slice."""
        mean, log_variance = self.encode(image).float().chunk(2, dim=1)
        noise = seeded_normal(draw_seeds(len(mean), generator), mean.shape[1])
        vector = mean + (log_variance / 2).exp() * noise.to(mean.device)
        error = (self._decoded(vector, image) - image).abs().mean()
        return error + self.settings.kl_weight * kl_divergence(mean, log_variance)


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    r"""Return the mean of $\tfrac12(\mu^2 + \sigma^2 - 1 - \log\sigma^2)$, 0 for the standard normal distribution."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
