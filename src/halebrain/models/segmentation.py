"""The segmenter: a U-Net whose one encoder sees the residual and the image, and whose decoder sees both."""

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional as F

from halebrain.core.config import Config


class SegmenterConfig(Config):
    """Size and inputs of the segmenter; the defaults are the published code's (16.7 M parameters).

    Args:
        channels: Width of each level; the paper's text has three levels (64, 128, 256), its code four.
        norm_groups: Groups of each group norm.
        patch: Side of the pixels folded into channels at the stem; 1 = none.
        inputs: "pair" = residual and image (Unet_res in the paper), "image" = the image alone (Unet).
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    norm_groups: int = 8
    patch: int = 1
    inputs: Literal["pair", "image"] = "pair"

    def model_post_init(self, _: Any, /) -> None:
        """Check that groups divide the widths."""
        if wrong := [width for width in self.channels if width % self.norm_groups]:
            raise ValueError(f"norm_groups {self.norm_groups} must divide every width, not {wrong[0]}")


class Segmenter(nn.Module):
    """Delineates what deviates: `(image, reconstruction) -> logits`.

    Source: Behrendt et al. 2024, section 3.1 and appendix B.1; U-Net after Kascenas et al. 2022.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        widths, groups = config.channels, config.norm_groups
        self.inputs, self.patch = config.inputs, config.patch
        streams = 2 if config.inputs == "pair" else 1
        folded = config.patch**2
        self.encoder = nn.ModuleList(
            [_double_conv(width_in, out, groups) for width_in, out in zip((folded, *widths), widths, strict=False)]
        )
        self.ascents, self.decoder = nn.ModuleList(), nn.ModuleList()
        width = streams * widths[-1]
        for out in reversed(widths[:-1]):
            # Features of both streams are concatenated, so the decoder is as many times as wide.
            self.ascents.append(nn.ConvTranspose2d(width, streams * out, 2, 2))
            self.decoder.append(_double_conv(2 * streams * out, streams * out, groups))
            width = streams * out
        self.head = nn.Conv2d(width, folded, 1)

    def forward(self, image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
        """Return logits `(b, 1, h, w)`, higher = more anomalous.

        Args:
            image: Slices in [0, 1], `(b, 1, h, w)`; h and w must divide by `patch × 2^(levels − 1)`.
            reconstruction: Pseudo-healthy slices in [0, 1], same shape.
        """
        streams = [image - reconstruction, image] if self.inputs == "pair" else [image]
        # One pass over the stacked streams: the encoder is shared, so they are just a longer batch.
        x = F.pixel_unshuffle(torch.cat(streams), self.patch)
        features = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(torch.cat(x.chunk(len(streams)), dim=1))
        x = features.pop()
        for ascent, block in zip(self.ascents, self.decoder, strict=True):
            x = block(torch.cat([ascent(x), features.pop()], dim=1))
        return F.pixel_shuffle(self.head(x), self.patch)


def _double_conv(width: int, out: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, out, 3, padding=1),
        nn.GroupNorm(groups, out),
        nn.SiLU(),
        nn.Conv2d(out, out, 3, padding=1),
        nn.GroupNorm(groups, out),
        nn.SiLU(),
    )
