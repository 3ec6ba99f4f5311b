"""The diffusion U-Net, after ADM (Dhariwal & Nichol 2021), with an optional pixel-unshuffle stem for small machines.

One class serves every size: the published network (128, 256, 256 channels, three blocks a level, 44 M parameters)
and networks of one or two million that a laptop can train.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from halebrain.core.config import Config
from halebrain.models.conditioning import Conditioning


class UNetConfig(Config):
    """Size of a diffusion U-Net.

    Args:
        channels: Width of each level, from fine to coarse. The published code has (128, 256, 256); the paper's text
            says (128, 128, 256).
        blocks_per_level: Residual blocks of a level on the way down (one more on the way up).
        patch: Side of the pixels folded into channels at the stem: 1 = none, 2 = a quarter of the cost.
        norm_groups: Groups of each group norm; must divide every width.
        attention_head_channels: Channels a head of the attention in the middle; 0 = no attention.
            The published configuration names down-factors 3/6/12 for attention, which never occur in a network
            of factors 1/2/4, so the published network attends in the middle only: so does this one.
    """

    channels: tuple[int, ...] = (128, 256, 256)
    blocks_per_level: int = 3
    patch: int = 1
    norm_groups: int = 32
    attention_head_channels: int = 64

    def model_post_init(self, _: Any, /) -> None:
        """Check that groups and heads divide the widths."""
        if wrong := [width for width in self.channels if width < 1 or width % self.norm_groups]:
            raise ValueError(f"norm_groups {self.norm_groups} must divide every width, not {wrong[0]}")
        if self.attention_head_channels and self.channels[-1] % self.attention_head_channels:
            raise ValueError(f"attention_head_channels must divide the last width {self.channels[-1]}")


class TimeEmbedding(nn.Module):
    """Sinusoidal embedding of the noise level, then two linear layers: `(b,) -> (b, 4 × width)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))

    def forward(self, level: torch.Tensor) -> torch.Tensor:
        """Return the embedding of the levels `(b,)`."""
        half = self.width // 2
        frequency = torch.exp(torch.arange(half, device=level.device) * (-math.log(10000) / half))
        angle = level[:, None].float() * frequency
        embedded: torch.Tensor = self.layers(torch.cat([angle.cos(), angle.sin()], dim=1))
        return embedded


class ResidualBlock(nn.Module):
    """Norm–SiLU–conv twice with a skip; the embedding scales and shifts the second norm (FiLM).

    `resample`: "down" and "up" halve and double the size inside the block; "none" keeps it. `condition` is the length
    of a condition vector with its own scale and shift; 0 = none.
    """

    def __init__(
        self, width: int, out: int, embedding: int, groups: int, *, resample: str = "none", condition: int = 0
    ) -> None:
        super().__init__()
        self.resample = resample
        self.condition_film = nn.Linear(condition, 2 * out) if condition else None
        self.norm1, self.conv1 = nn.GroupNorm(groups, width), nn.Conv2d(width, out, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * out)
        self.norm2, self.conv2 = nn.GroupNorm(groups, out), nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1) if width != out else nn.Identity()
        # The block starts as the identity, which steadies the first steps (ADM).
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Return the features `(b, out, h, w)`, resampled where the block says so."""
        hidden = self.conv1(_resample(F.silu(self.norm1(x)), self.resample))
        scale, shift = self.film(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        hidden = self.norm2(hidden) * (1 + scale) + shift
        if self.condition_film is not None and condition is not None:
            scale, shift = self.condition_film(condition)[:, :, None, None].chunk(2, dim=1)
            hidden = hidden * (1 + scale) + shift
        hidden = self.conv2(F.silu(hidden))
        total: torch.Tensor = self.skip(_resample(x, self.resample)) + hidden
        return total


class Attention(nn.Module):
    """Self-attention over all positions, with a skip."""

    def __init__(self, width: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.heads = width // head_channels
        self.norm, self.qkv = nn.GroupNorm(groups, width), nn.Conv1d(width, 3 * width, 1)
        self.out = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape `(b, c, h, w)`."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x).flatten(2)).view(b, 3, self.heads, c // self.heads, h * w)
        query, key, value = qkv.transpose(3, 4).unbind(1)
        attended = F.scaled_dot_product_attention(query, key, value)  # (b, heads, h·w, c/heads)
        update: torch.Tensor = self.out(attended.transpose(2, 3).reshape(b, c, h * w))
        return x + update.view(b, c, h, w)


class CrossAttention(nn.Module):
    """Cross-attention from every position to the encoder's map of the noise-free slice, with a skip."""

    def __init__(self, width: int, context: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.heads = max(1, width // head_channels)
        self.norm = nn.GroupNorm(groups, width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(context, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return features of the same shape `(b, c, h, w)`; `context` is `(b, n, features)`."""
        b, c, h, w = x.shape

        def split(tokens: torch.Tensor) -> torch.Tensor:
            return tokens.view(b, -1, self.heads, c // self.heads).transpose(1, 2)

        query = split(self.query(self.norm(x).flatten(2).transpose(1, 2)))
        key, value = (split(part) for part in self.key_value(context).chunk(2, dim=2))
        attended = F.scaled_dot_product_attention(query, key, value)  # (b, heads, h·w, c/heads)
        update: torch.Tensor = self.out(attended.transpose(1, 2).reshape(b, h * w, c))
        return x + update.transpose(1, 2).reshape(b, c, h, w)


class DiffusionUNet(nn.Module):
    """Predicts an image (or its noise) from a noisy one, its noise level, and a condition.

    Args:
        config: Size of the network.
        condition_features: Length of the condition's vectors; 0 = none.
        conditioning: "vector" = concatenated to the time embedding (the paper), "film" = its own scale and shift
            in every block, "cross_attention" = asked for in the middle, after self-attention.
        inputs: Channels of the input; 1 = the noisy image alone.
        outputs: Channels of the prediction.
        skips: Whether the way up sees the way down beside what comes from below.
    """

    def __init__(
        self,
        config: UNetConfig,
        *,
        condition_features: int = 0,
        conditioning: Conditioning = "vector",
        inputs: int = 1,
        outputs: int = 1,
        skips: bool = True,
    ) -> None:
        super().__init__()
        widths, groups, folded = config.channels, config.norm_groups, config.patch**2
        self.conditioning = conditioning if condition_features else "none"
        embedding = 4 * widths[0] + (condition_features if self.conditioning == "vector" else 0)
        film = condition_features if self.conditioning == "film" else 0
        block = partial(ResidualBlock, embedding=embedding, groups=groups, condition=film)
        self.patch = config.patch
        self.time = TimeEmbedding(widths[0])
        self.stem = nn.Conv2d(inputs * folded, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.skips = skips
        seen, width = [widths[0]], widths[0]
        for level, out in enumerate(widths):
            for _ in range(config.blocks_per_level):
                self.down.append(block(width, out))
                width = out
                seen.append(width)
            if level < len(widths) - 1:
                self.down.append(block(width, width, resample="down"))
                seen.append(width)
        self.middle1 = block(width, width)
        heads = config.attention_head_channels
        self.attention = Attention(width, heads, groups) if heads else nn.Identity()
        self.cross_attention: CrossAttention | None = None
        if self.conditioning == "cross_attention":
            self.cross_attention = CrossAttention(width, condition_features, heads or 32, groups)
        self.middle2 = block(width, width)
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(config.blocks_per_level + 1):
                self.up.append(block(width + (seen.pop() if skips else 0), out))
                width = out
            if level > 0:
                self.up.append(block(width, width, resample="up"))
        self.norm, self.head = nn.GroupNorm(groups, width), nn.Conv2d(width, outputs * folded, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor, level: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Return the prediction `(b, 1, h, w)`; h and w must divide by `patch × 2^(levels − 1)`.

        `level` is that of each sample `(b,)`; the condition a vector `(b, f)`, for cross-attention `(b, n, f)`, or
        `None`.
        """
        embedding = self.time(level)
        if self.conditioning == "vector" and condition is not None:
            embedding = torch.cat([embedding, condition], dim=1)
        x = self.stem(F.pixel_unshuffle(x, self.patch))
        seen = [x]
        for block in self.down:
            x = block(x, embedding, condition)
            seen.append(x)
        x = self.attention(self.middle1(x, embedding, condition))
        if self.cross_attention is not None and condition is not None:
            x = self.cross_attention(x, condition)
        x = self.middle2(x, embedding, condition)
        for block in self.up:
            alone = block.resample == "up" or not self.skips
            x = block(x if alone else torch.cat([x, seen.pop()], dim=1), embedding, condition)
        return F.pixel_shuffle(self.head(F.silu(self.norm(x))), self.patch)


def _resample(x: torch.Tensor, how: str) -> torch.Tensor:
    if how == "down":
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode="nearest") if how == "up" else x
