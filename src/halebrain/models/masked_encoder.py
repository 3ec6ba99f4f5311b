"""Pretraining of the condition encoder by masked-image modelling, in the manner of SparK (Tian et al., ICLR 2023).

Cells of a slice are hidden; the convolutional encoder sees the visible ones only, at every layer (what a hidden place
would have computed is set to nothing, and norms count visible places alone); a light decoder predicts the hidden
cells from the features of every level.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from halebrain.core.config import GrowingConfig
from halebrain.models.conditioning import Bottleneck, EncoderConfig, SliceEncoder
from halebrain.models.segmentation import double_conv


class MaskedEncoderConfig(GrowingConfig):
    """Settings of the pretraining.

    Args:
        encoder: Size of the encoder; the same as in the reconstructor that will start from it.
        mask_ratio: Share of the cells that are hidden (0.65 in the paper of cDDPM).
        cell: Side of a cell in pixels.
        decoder_width: Channels of the decoder.
        normalise_cells: Whether each cell to predict is scaled to zero mean and unit variance, as in SparK; false =
            its intensities, as in the published code of cDDPM.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"normalise_cells"})

    encoder: EncoderConfig = EncoderConfig()
    mask_ratio: float = Field(default=0.65, gt=0, lt=1)
    cell: int = Field(default=16, ge=1)
    decoder_width: int = Field(default=64, ge=8)
    normalise_cells: bool = True


class MaskedAutoencoder(nn.Module):
    """The encoder with a decoder for its pretraining; the decoder is thrown away afterwards.

    Differs from paper: SparK hides cells as large as the encoder's coarsest pixel (32), of which a slice of 96 × 96 has
    nine; here cells may be smaller, and a coarse place counts as visible where any pixel below it is.
    """

    def __init__(self, config: MaskedEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SliceEncoder(config.encoder, features=1)
        self.encoder.project.requires_grad_(False)  # belongs to the reconstructor that will use the encoder
        widths = [4 * config.encoder.width * 2**stage for stage in range(len(config.encoder.blocks))]
        self.projections = nn.ModuleList(nn.Conv2d(width, config.decoder_width, 1) for width in widths)
        self.tokens = nn.ParameterList(torch.zeros(1, config.decoder_width, 1, 1) for _ in widths)
        self.blocks = nn.ModuleList(double_conv(config.decoder_width, config.decoder_width, 8) for _ in widths)
        self.shrink = 4 * config.encoder.patch
        self.head = nn.Conv2d(config.decoder_width, self.shrink**2, 1)

    def loss(self, image: torch.Tensor, brain_mask: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """Return the squared error on hidden cells that show brain, each cell scaled unless `normalise_cells` is false.

        Args:
            image: Slices in [0, 1], `(b, 1, h, w)`; h and w must divide by the cell and by 4 × the encoder's patch.
            brain_mask: Bool, same shape; most of a slice is empty, and empty cells teach nothing.
            generator: Draws the hidden cells.
        """
        visible = self.draw_visible(image, generator)
        cells = F.pixel_unshuffle(self.paint(image, visible), self.config.cell)
        wanted, mean, contrast = self._cells(image)
        wanted = (wanted - mean) / contrast if self.config.normalise_cells else wanted
        counts = _at(~visible, cells.shape[-2:]) & _at(brain_mask, cells.shape[-2:])
        error = (cells.float() - wanted).square().mean(dim=1, keepdim=True)
        return (error * counts).sum() / counts.sum().clamp_min(1)

    def in_contrast_of(self, image: torch.Tensor, painted: torch.Tensor) -> torch.Tensor:
        """Return the predicted image for display; scaled cells get mean and contrast of the original."""
        if not self.config.normalise_cells:
            return painted
        _, mean, contrast = self._cells(image)
        return F.pixel_shuffle(F.pixel_unshuffle(painted, self.config.cell) * contrast + mean, self.config.cell)

    def _cells(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the pixels of each cell `(b, cell², rows, columns)`, their mean, and their contrast, never 0."""
        cells = F.pixel_unshuffle(image, self.config.cell)
        return cells, cells.mean(dim=1, keepdim=True), cells.std(dim=1, keepdim=True) + 0.01

    def draw_visible(self, image: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return which pixels stay visible, bool `(b, 1, h, w)`: the same number of cells in each slice."""
        count, (height, width) = len(image), image.shape[-2:]
        rows, columns = height // self.config.cell, width // self.config.cell
        hidden = round(self.config.mask_ratio * rows * columns)
        order = torch.rand(count, rows * columns, generator=generator).argsort(dim=1).argsort(dim=1)
        cells = (order >= hidden).view(count, 1, rows, columns).to(image.device)
        return cells.repeat_interleave(self.config.cell, dim=2).repeat_interleave(self.config.cell, dim=3)

    def paint(self, image: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Return the prediction of the decoder at every pixel, `(b, 1, h, w)`.

        In units of each cell's own contrast, or intensities without `normalise_cells`.
        """
        x: torch.Tensor | None = None
        levels = sparse_features(self.encoder, (image * 2 - 1) * visible, visible)
        for level in reversed(range(len(levels))):
            features = levels[level]
            filled = torch.where(
                _at(visible, features.shape[-2:]), self.projections[level](features), self.tokens[level]
            )
            if x is not None:
                filled = filled + F.interpolate(x, filled.shape[-2:], mode="nearest")
            x = self.blocks[level](filled)
        return F.pixel_shuffle(self.head(x), self.shrink)


def sparse_features(encoder: SliceEncoder, x: torch.Tensor, visible: torch.Tensor) -> list[torch.Tensor]:
    """Return the encoder's features after each stage, fine to coarse, computed from visible pixels alone.

    Slices `(b, 1, h, w)` in [−1, 1], 0 where hidden; `visible` is bool, same shape.
    """
    x = F.pixel_unshuffle(x, encoder.patch)
    for layer in encoder.stem:
        x = _sparse(layer, x, visible)
    found: list[torch.Tensor] = []
    for number, block in enumerate(encoder.stages):
        if number > 0 and block.stride == 2:
            found.append(x)
        x = _sparse_block(block, x, visible)
    return [*found, x]


def _sparse_block(block: Any, x: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    assert isinstance(block, Bottleneck)
    body, skip = x, x
    for layer in block.body:
        body = _sparse(layer, body, visible)
    if isinstance(block.skip, nn.Sequential):
        for layer in block.skip:
            skip = _sparse(layer, skip, visible)
    return F.relu(body + skip)


def _sparse(layer: Any, x: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
        return _sparse_norm(layer, x, _at(visible, x.shape[-2:]))
    out: torch.Tensor = layer(x)
    return out * _at(visible, out.shape[-2:])


def _sparse_norm(layer: nn.BatchNorm2d | nn.GroupNorm, x: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Return the norm over visible places alone, 0 elsewhere; running statistics of a batch norm count them alone."""
    if isinstance(layer, nn.BatchNorm2d):
        places = active[:, 0]
        normed = torch.zeros_like(x)
        flat = x.permute(0, 2, 3, 1)[places]  # (n, c)
        if len(flat) > 1 or not layer.training:
            normed.permute(0, 2, 3, 1)[places] = layer(flat.T[None, :, :, None])[0, :, :, 0].T.to(x.dtype)
        return normed
    b, c, h, w = x.shape
    grouped = x.float().view(b, layer.num_groups, -1, h, w)
    weight = active[:, :, None].expand_as(grouped)
    count = weight.sum(dim=(2, 3, 4), keepdim=True).clamp_min(1)
    mean = (grouped * weight).sum(dim=(2, 3, 4), keepdim=True) / count
    variance = ((grouped - mean).square() * weight).sum(dim=(2, 3, 4), keepdim=True) / count
    scaled = ((grouped - mean) / (variance + layer.eps).sqrt()).view(b, c, h, w)
    normed = scaled * layer.weight[:, None, None] + layer.bias[:, None, None]
    return (normed * active).to(x.dtype)


def _at(mask: torch.Tensor, size: torch.Size | tuple[int, int]) -> torch.Tensor:
    """Return the mask at another resolution: true where any pixel below is; bool `(b, 1, *size)`."""
    return F.adaptive_max_pool2d(mask.float(), size) > 0
