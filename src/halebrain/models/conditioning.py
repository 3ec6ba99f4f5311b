"""The encoder that describes an input slice, on which the diffusion U-Net is conditioned (cDDPM)."""

from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional as F

from halebrain.core.config import GrowingConfig

Conditioning = Literal["none", "vector", "film", "cross_attention"]
"""How a network is conditioned on the noise-free slice: not at all; by a vector with the time embedding (the paper); by
its own scale and shift in every block; by attending to the encoder's map of features."""

_GROUPS = 8


class EncoderConfig(GrowingConfig):
    """Size of a residual bottleneck encoder; the defaults are ResNet-50 (He et al. 2016), 24.6 M parameters.

    Args:
        blocks: Bottleneck blocks of each stage.
        width: Channels inside the first stage's bottleneck; stages double it.
        features: Length of the vector; `None` = 4 × the U-Net's first width, as published.
        norm: "batch" as in the published ResNet-50, "group" where batches are small.
        patch: Side of the pixels folded into channels at the stem (1 = none).
        head: "linear" = the vector is a projection of the pooled features; "mlp" = two further layers with SiLU between
            them follow, as the published U-Net has them.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"head"})

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    features: int | None = None
    norm: Literal["batch", "group"] = "batch"
    patch: int = 1
    head: Literal["linear", "mlp"] = "linear"

    def model_post_init(self, _: Any, /) -> None:
        """Check that the groups of the norm divide the width."""
        if self.norm == "group" and self.width % _GROUPS:
            raise ValueError(f"width must divide by {_GROUPS} with group norm, got {self.width}")


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with a skip; four times as wide outside as inside."""

    def __init__(self, width_in: int, width: int, stride: int, norm: str) -> None:
        super().__init__()
        self.stride = stride
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 1, bias=False),
            _norm(norm, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            _norm(norm, width),
            nn.ReLU(),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            _norm(norm, 4 * width),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or width_in != 4 * width:
            shortcut = nn.Conv2d(width_in, 4 * width, 1, stride, bias=False)
            self.skip = nn.Sequential(shortcut, _norm(norm, 4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features, four times as wide as the bottleneck."""
        return F.relu(self.body(x) + self.skip(x))


class SliceEncoder(nn.Module):
    """Maps a slice `(b, 1, h, w)` in [−1, 1] to a vector `(b, features)`.

    If `spatial`, to one a place `(b, n, features)`.
    """

    def __init__(self, config: EncoderConfig, *, features: int, spatial: bool = False) -> None:
        super().__init__()
        self.patch, self.spatial = config.patch, spatial
        self.stem = nn.Sequential(
            nn.Conv2d(config.patch**2, config.width, 7, 2, 3, bias=False),
            _norm(config.norm, config.width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )
        stages, width_in = [], config.width
        for stage, count in enumerate(config.blocks):
            width = config.width * 2**stage
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(Bottleneck(width_in, width, stride, config.norm))
                width_in = 4 * width
        self.stages = nn.Sequential(*stages)
        self.project: nn.Module = nn.Linear(width_in, features)
        if config.head == "mlp":
            further = nn.Linear(features, features), nn.SiLU(), nn.Linear(features, features)
            self.project = nn.Sequential(self.project, *further)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one vector a slice `(b, features)`; where `spatial`, one a place `(b, n, features)`."""
        maps = self.stages(self.stem(F.pixel_unshuffle(x, self.patch)))
        pooled = maps.flatten(2).transpose(1, 2) if self.spatial else maps.mean(dim=(2, 3))
        vector: torch.Tensor = self.project(pooled)
        return vector


def _norm(kind: str, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if kind == "batch" else nn.GroupNorm(_GROUPS, width)
