"""VAE: an autoencoder whose vector is drawn from a distribution close to the normal one (Baur et al. 2021)."""

import torch
from pydantic import Field

from halebrain.core.random import draw_seeds
from halebrain.models.reconstruction.ae import AE, AESettings
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level


class VAESettings(AESettings):
    """Settings of a variational autoencoder.

    Args:
        kl_weight: β, the weight of the divergence from the normal distribution (0.001 in Behrendt et al. 2024).
    """

    kl_weight: float = Field(default=0.001, ge=0)


@RECONSTRUCTORS.register("vae")
class VAE(AE):
    """Loss: L1 + β · KL, both means: over pixels, and over slices and entries of the vector."""

    Settings = VAESettings
    outputs_per_latent = 2

    def __init__(self, settings: VAESettings) -> None:
        super().__init__(settings)
        self.kl_weight = settings.kl_weight

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the loss with one draw of the vector for each slice."""
        mean, log_variance = self.encode(image).float().chunk(2, dim=1)
        draws = torch.Generator()
        noise = [
            torch.randn(mean.shape[1], generator=draws.manual_seed(int(s))) for s in draw_seeds(len(mean), generator)
        ]
        vector = mean + (log_variance / 2).exp() * torch.stack(noise).to(mean.device)
        error = (self.decode(vector, image.shape).float() - image).abs().mean()
        return error + self.kl_weight * kl_divergence(mean, log_variance)

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return what the mean of the distribution holds of the slice, in [0, 1]; nothing is random."""
        mean, _ = self.encode(image).chunk(2, dim=1)
        return self.decode(mean, image.shape).float().clamp(0, 1)


def kl_divergence(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    r"""Return the mean of $\tfrac12(\mu^2 + \sigma^2 - 1 - \log\sigma^2)$, 0 for the standard normal distribution."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
