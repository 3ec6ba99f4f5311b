"""Restoration in one step: a U-Net that undoes synthetic anomalies (DRAEM's first network, Zavrtanik et al. 2021)."""

import torch
from pydantic import Field

from halebrain.core.config import Config
from halebrain.core.similarity import ssim_map
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, OneLevelReconstructor
from halebrain.models.unet import DiffusionUNet, UNetConfig


class RestorationSettings(Config):
    """Settings of one-step restoration.

    Args:
        unet: Size of the network. Differs from paper: DRAEM's has no skip connections, here it has.
        ssim_weight: Weight of 1 − SSIM beside the squared error.
    """

    unet: UNetConfig = UNetConfig()
    ssim_weight: float = Field(default=1.0, ge=0)


@RECONSTRUCTORS.register("restoration")
class Restoration(OneLevelReconstructor):
    """Loss: L2 + 1 − SSIM to the healthy slice, from the slice with a synthetic anomaly."""

    reference = (
        "Zavrtanik V, Kristan M, Skočaj D. DRAEM – a discriminatively trained reconstruction embedding for "
        "surface anomaly detection. ICCV 2021:8330–8339."
    )
    Settings = RestorationSettings
    needs_corruption = True

    def __init__(self, settings: RestorationSettings) -> None:
        super().__init__()
        self.settings = settings
        self.unet = DiffusionUNet(settings.unet)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return how far the restored slices are from the healthy ones."""
        if corrupt is None:
            raise ValueError("restoration needs corrupted slices for training: give corrupt")
        restored = self._restore(corrupt(image, generator))
        loss = (restored - image).square().mean()
        return loss + self.settings.ssim_weight * (1 - ssim_map(restored, image)).mean()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the restored slice in [0, 1]; nothing is random."""
        return self._restore(image).clamp(0, 1)

    def _restore(self, image: torch.Tensor) -> torch.Tensor:
        level = torch.zeros(len(image), dtype=torch.long, device=image.device)
        # The change is predicted, so that a fresh network gives the slice back.
        change: torch.Tensor = self.unet(image * 2 - 1, level, None)
        return image + change.float() / 2
