"""Restoration step by step, in the manner of DISYRE: cold diffusion over synthetic anomalies.

Sources: Naval Marimont et al., ISBI 2024 and MICCAI 2024; cold diffusion: Bansal et al. 2023.
"""

import torch
from pydantic import Field

from halebrain.core.config import Config
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, Reconstructor
from halebrain.models.schedule import ddim_path
from halebrain.models.unet import DiffusionUNet, UNetConfig


class DisyreSettings(Config):
    """Settings of stepwise restoration.

    Args:
        unet: Size of the network.
        n_levels: Number T of degrees of corruption; T itself is the whole anomaly.
        test_levels: Degrees that a slice is taken for at test time; restorations are averaged.
        sampling_steps: Network passes from a degree down to the healthy slice.
    """

    unet: UNetConfig = UNetConfig()
    n_levels: int = Field(default=100, ge=1)
    test_levels: tuple[int, ...] = (50, 100)
    sampling_steps: int = Field(default=3, ge=1)

    def model_post_init(self, _: object, /) -> None:
        """Check the degrees."""
        if not self.test_levels or not all(1 <= level <= self.n_levels for level in self.test_levels):
            raise ValueError(f"test_levels must lie in [1, {self.n_levels}]")


@RECONSTRUCTORS.register("disyre")
class Disyre(Reconstructor):
    r"""Predicts the healthy $x_0$ from $x_t = (1 - t/T)\,x_0 + (t/T)\,x_T$, where $x_T$ carries a synthetic anomaly.

    Loss: $|x_0 - \hat x_0(x_t, t)|$ with t uniform in 1 … T. At test time the slice stands for $x_t$, and the restored
    part grows step by step: $x_s = \hat x_0 + (s/t)(x_t - \hat x_0)$.
    """

    reference = (
        "Naval Marimont S, Baugh M, Siomos V, Tzelepis C, Kainz B, Tarroni G. DISYRE: diffusion-inspired "
        "synthetic restoration for unsupervised anomaly detection. ISBI 2024."
    )
    Settings = DisyreSettings
    needs_corruption = True

    def __init__(self, settings: DisyreSettings) -> None:
        super().__init__()
        self.settings = settings
        self.unet = DiffusionUNet(settings.unet)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The degrees of corruption that a slice is taken for."""
        return self.settings.test_levels

    def random_level(self, generator: torch.Generator) -> Level:
        """Draw a degree uniformly."""
        return int(torch.randint(1, self.settings.n_levels + 1, (), generator=generator))

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the distance of the restored slices to the healthy ones, both in [−1, 1]."""
        if corrupt is None:
            raise ValueError("disyre needs corrupted slices for training: give corrupt")
        level = torch.randint(1, self.settings.n_levels + 1, (len(image),), generator=generator).to(image.device)
        share = (level / self.settings.n_levels)[:, None, None, None]
        partly = torch.lerp(image, corrupt(image, generator), share)
        return (self._healthy(partly * 2 - 1, level) - (image * 2 - 1)).abs().mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the slice restored from one degree of corruption, in [0, 1]; nothing is random."""
        if level is None or not 1 <= level <= self.settings.n_levels:
            raise ValueError(f"a noise level must lie in [1, {self.settings.n_levels}], got {level}")
        x = image * 2 - 1
        path = ddim_path(level, self.settings.sampling_steps)
        for current, following in zip(path, [*path[1:], 0], strict=True):
            healthy = self._healthy(x, torch.full((len(x),), current, device=x.device)).clamp(-1, 1)
            x = healthy + (following / current) * (x - healthy)
        return ((x + 1) / 2).clamp(0, 1)

    def _healthy(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        # The change is predicted, so that a fresh network gives the slice back.
        change: torch.Tensor = self.unet(x, level, None)
        return x + change.float()
