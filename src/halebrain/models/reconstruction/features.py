"""Shared parts of methods that compare features of a pretrained backbone and give no image."""

from pathlib import Path

import torch
from torch.nn import functional as F

from halebrain.core.config import Config
from halebrain.models.backbone import Backbone, BackboneName, load_backbone
from halebrain.models.reconstruction.base import Level, OneLevelReconstructor


class FeatureSettings(Config):
    """Settings of a method on features.

    Args:
        backbone: Which pretrained network.
        weights: Its file; needed to train, and kept in the model from then on.
        backbone_width: Channels of its first stage; 64 as published.
    """

    backbone: BackboneName = "resnet18"
    weights: Path | None = None
    backbone_width: int = 64


class FeatureReconstructor(OneLevelReconstructor):
    """Reconstructs features, not the slice: `reconstruct` gives the slice itself, and `anomaly_map` is the result."""

    Settings = FeatureSettings
    gives_image = False
    settings: FeatureSettings

    def __init__(self, settings: FeatureSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone, width=settings.backbone_width)

    def prepare(self) -> str:
        """Load the backbone's weights; from here on they are the model's own, wherever the file is."""
        sha256 = load_backbone(self.backbone, self.settings.weights)
        self.settings = self.settings.model_copy(update={"weights": None})
        return sha256

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the slice unchanged, as these methods give no pseudo-healthy image."""
        return image.clone()


def at_size(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return maps at the size of `like`, bilinear."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)
