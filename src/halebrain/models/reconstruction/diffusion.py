"""The diffusion family: one class, of which DDPM, AnoDDPM and cDDPM are settings."""

from typing import Any

import torch
from pydantic import Field

from halebrain.core.config import Config
from halebrain.core.random import draw_seeds
from halebrain.models.conditioning import EncoderConfig, SliceEncoder
from halebrain.models.noise import NOISES
from halebrain.models.reconstruction.base import Corruption, Level, Reconstructor
from halebrain.models.schedule import add_noise, cosine_alpha_bar
from halebrain.models.unet import DiffusionUNet, UNetConfig


class DiffusionSettings(Config):
    """Settings of a diffusion reconstructor.

    Args:
        unet: Size of the denoising network.
        encoder: The encoder of the condition vector; `None` = unconditioned.
        noise: "simplex" or "gaussian".
        n_levels: Number T of noise levels.
        train_levels: Range [low, high) from which both stages draw their levels; `None` = [0, T) as in the paper.
            A small network spends its steps better on the levels at which it is used.
        test_levels: Levels over which reconstructions are averaged.
    """

    unet: UNetConfig = UNetConfig()
    encoder: EncoderConfig | None = None
    noise: str = "simplex"
    n_levels: int = Field(default=1000, ge=2)
    train_levels: tuple[int, int] | None = None
    test_levels: tuple[int, ...] = (250, 500, 750)

    def model_post_init(self, _: Any, /) -> None:
        """Check what the fields cannot say alone."""
        NOISES.get(self.noise)
        if not self.test_levels or not all(0 <= level < self.n_levels for level in self.test_levels):
            raise ValueError(f"test_levels must lie in [0, {self.n_levels})")
        low, high = self.level_range
        if not 0 <= low < high <= self.n_levels:
            raise ValueError(f"train_levels must be a range within [0, {self.n_levels}]")

    @property
    def level_range(self) -> tuple[int, int]:
        """The range [low, high) of the levels drawn in training."""
        return self.train_levels or (0, self.n_levels)


class DiffusionReconstructor(Reconstructor):
    r"""Noises the input to level t and predicts $x_0$ in one step, optionally knowing a vector of the input.

    Loss: $|x_0 - \hat x_0(x_t, t, c)|$ (Behrendt et al. 2024, equation 1), t uniform in [0, T) unless
    `train_levels` narrows it.
    """

    Settings = DiffusionSettings

    def __init__(self, settings: DiffusionSettings) -> None:
        super().__init__()
        self.settings = settings
        features = 0
        self.encoder: SliceEncoder | None = None
        if settings.encoder is not None:
            features = settings.encoder.features or 4 * settings.unet.channels[0]
            self.encoder = SliceEncoder(settings.encoder, features=features)
        self.unet = DiffusionUNet(settings.unet, condition_features=features)
        self.alpha_bar = cosine_alpha_bar(settings.n_levels)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The noise levels of the ensemble."""
        return self.settings.test_levels

    def random_level(self, generator: torch.Generator) -> Level:
        """Draw a noise level uniformly from the range of training."""
        return int(torch.randint(*self.settings.level_range, (), generator=generator))

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the L1 distance of the prediction to the healthy slices, both in [−1, 1]."""
        count = len(image)
        level = torch.randint(*self.settings.level_range, (count,), generator=generator)
        predicted = self._predict(image * 2 - 1, level, draw_seeds(count, generator))
        return (predicted.float() - (image * 2 - 1)).abs().mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the one-step reconstruction at one noise level, clipped to [0, 1]."""
        if level is None or not 0 <= level < self.settings.n_levels:
            raise ValueError(f"a noise level must lie in [0, {self.settings.n_levels}), got {level}")
        levels = torch.full((len(image),), level)
        predicted = self._predict(image * 2 - 1, levels, seeds)
        return ((predicted.float() + 1) / 2).clamp(0, 1)

    def _predict(self, scaled: torch.Tensor, level: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        height, width = scaled.shape[-2:]
        noise = NOISES.get(self.settings.noise)(seeds, height, width, scaled.device)
        noisy = add_noise(scaled, noise, level.to(scaled.device), self.alpha_bar)
        condition = None if self.encoder is None else self.encoder(scaled)
        predicted: torch.Tensor = self.unet(noisy, level.to(scaled.device), condition)
        return predicted
