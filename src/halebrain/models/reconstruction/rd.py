"""RD: reverse distillation. A student gives back a frozen teacher's features from one narrow embedding.

Source: Deng & Li, CVPR 2022. The student cannot reproduce features that it never saw in healthy training data.
"""

import torch
from torch import nn
from torch.nn import functional as F

from halebrain.models.backbone import BackboneName
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level
from halebrain.models.reconstruction.features import FeatureReconstructor, FeatureSettings, at_size


class RDSettings(FeatureSettings):
    """Settings of reverse distillation; the published teacher is the wide ResNet-50."""

    backbone: BackboneName = "wide_resnet50_2"


@RECONSTRUCTORS.register("rd")
class RD(FeatureReconstructor):
    """Loss and map: one minus the cosine between teacher and student at each place, over three stages.

    Differs from paper: group norm instead of batch norm in the student, so that a slice does not depend on its batch.
    """

    reference = (
        "Deng H, Li X. Anomaly detection via reverse distillation from one-class embedding. CVPR 2022:9737–9746."
    )
    Settings = RDSettings

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
        """Return the distance of student and teacher, mean over places, summed over stages."""
        return torch.stack([distance.mean() for distance in self._distances(image)]).sum()

    def anomaly_map(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the mean distance over stages at each pixel, halved into [0, 1]."""
        maps = [at_size(distance, image) for distance in self._distances(image)]
        return (torch.stack(maps).mean(dim=0) / 2).clamp(0, 1)

    def _distances(self, image: torch.Tensor) -> list[torch.Tensor]:
        one, two, three = self.backbone(image)
        folded = [at_size(x, three) for x in (self.fold1(one), self.fold2(two))]
        embedding = self.embed(torch.cat([*folded, three], dim=1))
        back3 = at_size(self.student3(embedding), three)
        back2 = at_size(self.student2(back3), two)
        back1 = at_size(self.student1(back2), one)
        pairs = ((one, back1), (two, back2), (three, back3))
        return [1 - F.cosine_similarity(a.float(), b.float(), dim=1)[:, None] for a, b in pairs]


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
