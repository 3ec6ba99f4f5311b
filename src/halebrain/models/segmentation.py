"""The segmenter: a U-Net whose encoder sees views of a slice and its reconstruction, and whose decoder joins them.

Source: Behrendt et al. 2024, section 3.1 and appendix B.1; U-Net after Kascenas et al. 2022.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F

from halebrain.core.config import GrowingConfig
from halebrain.core.similarity import ssim_map

Stream = Literal["image", "reconstruction", "residual", "absolute_residual", "ssim", "turned_residual"]
"""One view: the slice x, its reconstruction x̂, x − x̂, |x − x̂|, 1 − SSIM(x, x̂), or x − x̂ turned by 180°."""

Block = Literal["plain", "kascenas"]
"""How a level of the U-Net is built."""

Modality = str | Sequence[str | None]
"""The contrast of all slices of a batch, as a BIDS suffix, or of each; `None` = not known."""

VARIANTS: dict[str, tuple[tuple[Stream, ...], bool]] = {
    "unet": (("image",), False),
    "unet_res": (("residual", "image"), False),
    "sadm": (("image",), True),
    "sadm_res": (("residual", "image"), True),
}
"""The paper's four: what the segmenter sees, and whether its probability is fused with the residual map."""


_INPUTS: dict[str, tuple[Stream, ...]] = {"pair": ("residual", "image"), "image": ("image",)}
_STEM = "encoders.0.0.0.weight"
"""What sees the views, `(out, views × folded, 3, 3)`, views in the order in which they are stacked."""


class SegmenterConfig(GrowingConfig):
    """Size and inputs of the segmenter; the defaults are the published code's (16.7 M parameters).

    Args:
        channels: Width of each level; the paper's text has three levels (64, 128, 256), its code four.
        norm_groups: Groups of each group norm.
        patch: Side of the pixels folded into channels at the stem; 1 = none.
        streams: What the network sees, in this order. ("residual", "image") is Unet_res in the paper, ("image",) is
            Unet. "turned_residual" is a control: the residual to the reconstruction turned by 180°, which has the same
            intensities at other places.
        encoder: "shared" = one encoder runs over every stream (the paper), "separate" = each has its own, "early" =
            one encoder sees all streams at once, as its channels; two streams then cost half of the others' time.
        deep_supervision: Predict at the coarser levels of the decoder too, for the loss alone.
        neighbours: Slices of the scan that the network sees beside the one it delineates, as further channels: places
            from it among the slices with brain, −1 = the next one below (not in the paper). Only with "early".
        block: "plain" = convolution, norm, SiLU, twice; max pooling. "kascenas" = as published (the U-Net of Kascenas
            et al. 2022): weight-standardised convolutions with reflection padding, SiLU, then the norm; average
            pooling. The groups of each norm are then the middle divisor of its width (64: 8, 128 and 256: 16), whatever
            `norm_groups` says.
        prior: Probability that an untrained network gives every pixel. Lesions are rare: one that begins by marking
            half of the brain needs hundreds of steps to unlearn it (Lin et al. 2017, section 4.1).
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"neighbours", "prior", "block"})

    channels: tuple[int, ...] = (64, 128, 256, 512)
    norm_groups: int = 8
    patch: int = 1
    streams: tuple[Stream, ...] = ("residual", "image")
    encoder: Literal["shared", "separate", "early"] = "shared"
    neighbours: tuple[int, ...] = ()
    deep_supervision: bool = False
    block: Block = "plain"
    prior: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _read_former_forms(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        settings = dict(raw)
        if settings.get("inputs") in _INPUTS:  # version 0.1
            settings["streams"] = _INPUTS[settings.pop("inputs")]
        if settings.pop("others", None):
            raise ValueError("others: a run trains one network; halebrain models join makes one model of several")
        if "contrasts" not in cls.model_fields:  # of one network alone they have no effect
            settings.pop("contrasts", None)
        return settings

    def model_post_init(self, _: Any, /) -> None:
        """Check that groups divide the widths, that there is something to see, and which slices beside it."""
        if wrong := [width for width in self.channels if width < 1 or width % self.norm_groups]:
            raise ValueError(f"norm_groups {self.norm_groups} must divide every width, not {wrong[0]}")
        if not self.streams or len(set(self.streams)) < len(self.streams):
            raise ValueError("streams must name at least one view, each once")
        if 0 in self.neighbours or len(set(self.neighbours)) < len(self.neighbours):
            raise ValueError("neighbours must be other slices, and each once")
        if self.neighbours and self.encoder != "early":
            raise ValueError(f"neighbours need encoder: early, not {self.encoder}")

    @property
    def needs_reconstruction(self) -> bool:
        """Whether any stream depends on the reconstruction."""
        return self.streams != ("image",)

    def inputs_fit(self, further: "SegmenterConfig") -> bool:
        """Return whether a network that goes on from this one's weights would see the same inputs in the same places.

        Other inputs of the same number would fit in size, but mean something else. Without neighbours here, those
        of the further one come after what it sees.
        """
        return self.streams == further.streams and self.neighbours in ((), further.neighbours)


class Segmenter(nn.Module):
    """Delineates what deviates: `(image, reconstruction) -> logits`."""

    configs: tuple[SegmenterConfig, ...]
    """Of each network; an ensemble has several."""
    contrasts_each: tuple[tuple[str, ...], ...] = ()
    """The contrasts of each network; () = one for all."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        self.configs = (config,)
        widths, folded = config.channels, config.patch**2
        block = partial(_BLOCKS[config.block], groups=config.norm_groups)
        streams, early = len(config.streams), config.encoder == "early"
        # How many sets of features there are, side by side; the decoder is as many times as wide.
        count = 1 if early else streams
        encoders = streams if config.encoder == "separate" else 1
        # Differs from paper: there each slice stands alone.
        seen = folded * (streams + len(config.neighbours)) if early else folded
        self.encoders = nn.ModuleList(
            nn.ModuleList(block(a, b) for a, b in zip((seen, *widths), widths, strict=False)) for _ in range(encoders)
        )
        self.ascents, self.decoder, self.auxiliary_heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width = count * widths[-1]
        for level, out in reversed(list(enumerate(widths[:-1]))):
            self.ascents.append(nn.ConvTranspose2d(width, count * out, 2, 2))
            self.decoder.append(block(2 * count * out, count * out))
            width = count * out
            if config.deep_supervision and level > 0:
                self.auxiliary_heads.append(nn.Conv2d(width, folded, 1))
        self.head = nn.Conv2d(width, folded, 1)
        if config.prior != 0.5:  # at one half the bias stays as torch draws it, so earlier runs are unchanged
            nn.init.constant_(self.head.bias, math.log(config.prior / (1 - config.prior)))  # type: ignore[arg-type]

    @property
    def visible_neighbours(self) -> tuple[int, ...]:
        """The neighbouring slices that the network sees: the channels after each slice."""
        return self.config.neighbours

    @property
    def needs_reconstruction(self) -> bool:
        """Whether anything that it sees depends on the reconstruction."""
        return self.config.needs_reconstruction

    def forward(
        self, image: torch.Tensor, reconstruction: torch.Tensor, modality: Modality | None = None
    ) -> torch.Tensor:
        """Return logits `(b, 1, h, w)`, higher = more anomalous.

        Args:
            image: Slices in [0, 1] and after each its neighbours, `(b, 1 + visible_neighbours, h, w)`; h and w must
                divide by `patch × 2^(levels − 1)`.
            reconstruction: Pseudo-healthy slices in [0, 1], `(b, 1, h, w)`.
            modality: The contrast of all slices, or of each; without effect on one network.
        """
        return self.all_logits(image, reconstruction, modality)[0]

    def all_logits(
        self, image: torch.Tensor, reconstruction: torch.Tensor, modality: Modality | None = None
    ) -> list[torch.Tensor]:
        """Return the logits, and with deep supervision those of each coarser level, from fine to coarse."""
        views = [_view(name, image[:, :1], reconstruction) for name in self.config.streams]
        if self.config.neighbours:
            views.append(image[:, 1:])
        skips = self._encode(views)
        x, found = skips.pop(), []
        for number, (ascent, block) in enumerate(zip(self.ascents, self.decoder, strict=True)):
            x = block(torch.cat([ascent(x), skips.pop()], dim=1))
            if number < len(self.auxiliary_heads):
                found.append(F.pixel_shuffle(self.auxiliary_heads[number](x), self.config.patch))
        return [F.pixel_shuffle(self.head(x), self.config.patch), *reversed(found)]

    def _encode(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return the features of all streams side by side, a tensor for each level."""
        if self.config.encoder == "shared":
            # One pass over the stacked streams: the encoder is shared, so they are just a longer batch.
            levels = self._descend(self.encoders[0], torch.cat(views))
            return [torch.cat(x.chunk(len(views)), dim=1) for x in levels]
        if self.config.encoder == "early":
            return self._descend(self.encoders[0], torch.cat(views, dim=1))
        each = [self._descend(encoder, view) for encoder, view in zip(self.encoders, views, strict=True)]
        return [torch.cat(level, dim=1) for level in zip(*each, strict=True)]

    def _descend(self, encoder: Any, x: torch.Tensor) -> list[torch.Tensor]:
        x, found = F.pixel_unshuffle(x, self.config.patch), []
        pool = F.avg_pool2d if self.config.block == "kascenas" else F.max_pool2d
        for level, block in enumerate(encoder):
            x = block(pool(x, 2) if level else x)
            found.append(x)
        return found


def weights_for(segmenter: Segmenter, before: Segmenter) -> dict[str, torch.Tensor]:
    """Return the weights with which `segmenter` begins as `before` ended.

    It may see neighbours where `before` sees none: their weights start at 0, so that it starts with the same output,
    and learns to use them. All other weights are those of `before`, whether they fit or not.
    """
    weights, config, known = dict(before.state_dict()), segmenter.config, before.config
    if not known.neighbours and known.model_copy(update={"neighbours": config.neighbours}) == config:
        missing = segmenter.state_dict()[_STEM].shape[1] - weights[_STEM].shape[1]
        weights[_STEM] = F.pad(weights[_STEM], (0, 0, 0, 0, 0, missing))
    return weights


def with_neighbours(slices: torch.Tensor, neighbours: Sequence[int]) -> torch.Tensor:
    """Return each slice of a stack `(n, 1, h, w)`, then those at `neighbours` places from it, `(n, 1 + k, h, w)`.

    Beyond the first and the last slice is nothing: 0.
    """
    found = [slices]
    for place in neighbours:
        moved = torch.zeros_like(slices)
        low = min(len(slices), max(0, -place))
        high = max(low, min(len(slices), len(slices) - place))
        moved[low:high] = slices[low + place : high + place]
        found.append(moved)
    return torch.cat(found, dim=1)


def _view(name: Stream, image: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    if name == "image":
        return image
    if name == "reconstruction":
        return reconstruction
    if name == "ssim":
        return 1 - ssim_map(image, reconstruction)
    if name == "turned_residual":
        reconstruction = reconstruction.flip(2, 3)
    residual = image - reconstruction
    return residual.abs() if name == "absolute_residual" else residual


def double_conv(width: int, out: int, groups: int) -> nn.Sequential:
    """Return two 3×3 convolutions, each with group norm and SiLU."""
    return nn.Sequential(
        nn.Conv2d(width, out, 3, padding=1),
        nn.GroupNorm(groups, out),
        nn.SiLU(),
        nn.Conv2d(out, out, 3, padding=1),
        nn.GroupNorm(groups, out),
        nn.SiLU(),
    )


class StandardisedConv2d(nn.Conv2d):
    """A 3×3 convolution with reflection padding whose filters have zero mean and unit standard deviation.

    Source: weight standardisation (Qiao et al. 2019), in the form of Kascenas et al. 2022.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out, 3, padding=1, padding_mode="reflect")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of `(b, width, h, w)`, at least two pixels high and wide."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        scaled = centred / (centred.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        out: torch.Tensor = self._conv_forward(x, scaled, self.bias)
        return out


def middle_divisor(width: int) -> int:
    """Return the middle one of the divisors of a width, the upper of two: the groups of Kascenas et al. 2022."""
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    return divisors[len(divisors) // 2]


def kascenas_block(width: int, out: int, groups: int) -> nn.Sequential:
    """Return two standardised convolutions, each with SiLU and then group norm; `groups` has no effect."""
    own = middle_divisor(out)
    return nn.Sequential(
        StandardisedConv2d(width, out),
        nn.SiLU(),
        nn.GroupNorm(own, out),
        StandardisedConv2d(out, out),
        nn.SiLU(),
        nn.GroupNorm(own, out),
    )


_BLOCKS: dict[Block, Callable[..., nn.Sequential]] = {"plain": double_conv, "kascenas": kascenas_block}
