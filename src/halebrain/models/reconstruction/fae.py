"""FAE: an autoencoder of a pretrained network's features, compared by structural similarity (Meissen et al. 2022)."""

import torch
from pydantic import Field
from torch import nn

from halebrain.core.similarity import ssim_map
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level
from halebrain.models.reconstruction.features import FeatureReconstructor, FeatureSettings, at_size


class FAESettings(FeatureSettings):
    """Settings of the feature autoencoder.

    Args:
        channels: Width of each level of the autoencoder; every level halves the size.
    """

    channels: tuple[int, ...] = Field(default=(128, 256, 512), min_length=1)


@RECONSTRUCTORS.register("fae")
class FAE(FeatureReconstructor):
    """Loss and map: 1 − SSIM between features and what the autoencoder gives back of them, mean over channels."""

    reference = (
        "Meissen F, Paetzold J, Kaissis G, Rueckert D. Unsupervised anomaly localization with structural feature-"
        "autoencoders. BrainLes 2022, LNCS 13769:14–24."
    )
    Settings = FAESettings

    def __init__(self, settings: FAESettings) -> None:
        super().__init__(settings)
        width = sum(self.backbone.widths)
        widths = settings.channels
        pairs = list(zip((width, *widths), widths, strict=False))
        self.down = nn.Sequential(*(_layer(nn.Conv2d(a, b, 4, 2, 1), b) for a, b in pairs))
        self.up = nn.Sequential(*(_layer(nn.ConvTranspose2d(b, a, 4, 2, 1), a) for a, b in reversed(pairs[1:])))
        self.head = nn.ConvTranspose2d(widths[0], width, 4, 2, 1)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the mean dissimilarity of features and their reconstruction."""
        return self._dissimilarity(image).mean()

    def anomaly_map(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the dissimilarity at each pixel, in [0, 1]."""
        return at_size(self._dissimilarity(image), image).clamp(0, 1)

    def _dissimilarity(self, image: torch.Tensor) -> torch.Tensor:
        levels = self.backbone(image)
        features = torch.cat([levels[0], *(at_size(x, levels[0]) for x in levels[1:])], dim=1).float()
        restored = at_size(self.head(self.up(self.down(features))), features).float()
        b, c, h, w = features.shape
        # Features have no fixed range, so each slice has its own.
        span = features.flatten(1).amax(dim=1) - features.flatten(1).amin(dim=1)
        span = span.clamp_min(1e-6).repeat_interleave(c)[:, None, None, None]
        flat = (x.reshape(b * c, 1, h, w) for x in (features, restored))
        similarity = ssim_map(*flat, window=5, data_range=span)
        return (1 - similarity).view(b, c, h, w).mean(dim=1, keepdim=True)


def _layer(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GroupNorm(1, width), nn.LeakyReLU(0.2))
