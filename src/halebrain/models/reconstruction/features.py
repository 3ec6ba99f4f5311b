"""Methods that compare features of a pretrained backbone and give no image: FAE and reverse distillation (RD)."""

from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from halebrain.core.config import Config, GrowingConfig
from halebrain.core.similarity import ssim_map
from halebrain.models.backbone import Backbone, BackboneName, load_backbone
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, OneLevelReconstructor


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


def _at_size(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return maps at the size of `like`, bilinear."""
    return F.interpolate(maps, like.shape[-2:], mode="bilinear", align_corners=False)


class FAESettings(FeatureSettings):
    """Settings of the feature autoencoder.

    Args:
        channels: Width of each level of the autoencoder; every level halves the size.
    """

    channels: tuple[int, ...] = Field(default=(128, 256, 512), min_length=1)


@RECONSTRUCTORS.register("fae")
class FAE(FeatureReconstructor):
    """FAE: an autoencoder of a pretrained network's features, compared by structural similarity (Meissen et al. 2022).

    Loss and map: 1 − SSIM between features and what the autoencoder gives back of them, mean over channels.
    """

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
        return _at_size(self._dissimilarity(image), image).clamp(0, 1)

    def _dissimilarity(self, image: torch.Tensor) -> torch.Tensor:
        levels = self.backbone(image)
        features = torch.cat([levels[0], *(_at_size(x, levels[0]) for x in levels[1:])], dim=1).float()
        restored = _at_size(self.head(self.up(self.down(features))), features).float()
        b, c, h, w = features.shape
        # Features have no fixed range, so each slice has its own.
        span = features.flatten(1).amax(dim=1) - features.flatten(1).amin(dim=1)
        span = span.clamp_min(1e-6).repeat_interleave(c)[:, None, None, None]
        flat = (x.reshape(b * c, 1, h, w) for x in (features, restored))
        similarity = ssim_map(*flat, window=5, data_range=span)
        return (1 - similarity).view(b, c, h, w).mean(dim=1, keepdim=True)


def _layer(convolution: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.GroupNorm(1, width), nn.LeakyReLU(0.2))


class RDSettings(GrowingConfig, FeatureSettings):
    """Settings of reverse distillation; the published teacher is the wide ResNet-50.

    Args:
        whole_maps: Compare each stage's features of a slice as one long vector in the loss, as the published code does;
            otherwise place by place, as the map does.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"whole_maps"})

    backbone: BackboneName = "wide_resnet50_2"
    whole_maps: bool = False


@RECONSTRUCTORS.register("rd")
class RD(FeatureReconstructor):
    """RD: reverse distillation. A student gives back a frozen teacher's features from one narrow embedding.

    Source: Deng & Li, CVPR 2022. The student cannot reproduce features that it never saw in healthy training data.
    Loss and map: one minus the cosine between teacher and student at each place, over three stages; with `whole_maps`
    the loss has one cosine for each slice and stage.

    Differs from paper: group norm instead of batch norm in the student, so that a slice does not depend on its batch.
    """

    reference = (
        "Deng H, Li X. Anomaly detection via reverse distillation from one-class embedding. CVPR 2022:9737–9746."
    )
    Settings = RDSettings
    settings: RDSettings

    def __init__(self, settings: RDSettings) -> None:
        super().__init__(settings)
        first, second, third = self.backbone.widths
        narrow = third * 2
        self.fold1 = nn.Sequential(_down(first, second), _down(second, third))
        self.fold2 = _down(second, third)
        self.embed = nn.Sequential(_plain(3 * third, third), _down(third, narrow))
        self.student3, self.student2, self.student1 = _up(narrow, third), _up(third, second), _up(second, first)

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the distance of student and teacher, mean over places (or over slices), summed over stages."""
        pairs = self._pairs(image)
        if self.settings.whole_maps:
            pairs = [(a.flatten(1), b.flatten(1)) for a, b in pairs]
        return torch.stack([_distance(a, b).mean() for a, b in pairs]).sum()

    def anomaly_map(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the mean distance over stages at each pixel, halved into [0, 1]."""
        maps = [_at_size(_distance(a, b)[:, None], image) for a, b in self._pairs(image)]
        return (torch.stack(maps).mean(dim=0) / 2).clamp(0, 1)

    def _pairs(self, image: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the features of teacher and student, `(b, c, h, w)`, of each stage."""
        one, two, three = self.backbone(image)
        folded = [_at_size(x, three) for x in (self.fold1(one), self.fold2(two))]
        embedding = self.embed(torch.cat([*folded, three], dim=1))
        back3 = _at_size(self.student3(embedding), three)
        back2 = _at_size(self.student2(back3), two)
        back1 = _at_size(self.student1(back2), one)
        return [(one, back1), (two, back2), (three, back3)]


def _distance(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    """Return one minus the cosine over the second dimension, in [0, 2]."""
    return 1 - F.cosine_similarity(teacher.float(), student.float(), dim=1)


def _plain(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, out, 1), nn.GroupNorm(1, out), nn.ReLU())


def _down(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, out, 3, 2, 1), nn.GroupNorm(1, out), nn.ReLU())


def _up(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(width, out, 4, 2, 1),
        nn.GroupNorm(1, out),
        nn.ReLU(),
        nn.Conv2d(out, out, 3, padding=1),
    )
