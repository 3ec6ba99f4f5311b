"""Iterative mask refinement: what a network paints well is uncovered, what it paints badly stays masked (IterMask²)."""

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.config import Config
from halebrain.core.random import draw_seeds
from halebrain.models.noise import NOISES
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, OneLevelReconstructor
from halebrain.models.unet import DiffusionUNet, UNetConfig

_MOMENTUM = 0.99
"""Of the running mean of the error bound over training batches."""
_MOST_SQUARES = 2048


class IterMaskSettings(Config):
    """Settings of iterative mask refinement; the defaults are the paper's, at 2 mm.

    Args:
        unet: Size of both networks.
        radius: Radius in the spectrum, in cycles over the slice, below which the second input has no amplitude: 15 for
            240 mm in the paper, which is 12 for 192 mm.
        first_mask: Share of the brain that is masked after the first network: where its errors are largest.
        least_error: Share of the errors under the masks of training that lie above the bound: where the error is
            larger, a pixel stays masked.
        least_shrinkage: Share by which a mask must shrink for another round.
        max_rounds: Rounds after which the refinement ends in any case.
        squares: Sides in pixels of the squares that the masks of training are made of: many small, few large ones.
        spread: Range of the standard deviation in pixels of the places of the squares, along either axis.
    """

    unet: UNetConfig = UNetConfig(
        channels=(32, 32, 64, 96, 128), blocks_per_level=2, norm_groups=32, attention_head_channels=128
    )
    radius: float = Field(default=12.0, gt=0)
    first_mask: float = Field(default=0.6, gt=0, le=1)
    least_error: float = Field(default=0.2, gt=0, lt=1)
    least_shrinkage: float = Field(default=0.01, gt=0, lt=1)
    max_rounds: int = Field(default=50, ge=1)
    squares: tuple[int, int, int] = (2, 4, 8)
    spread: tuple[float, float] = (1.0, 16.0)


@RECONSTRUCTORS.register("itermask")
class IterMask(OneLevelReconstructor):
    """IterMask²: paints masked brain from the rest and from fine structure, and masks less and less of it.

    The first network sees the slice's fine structure alone: its spectrum with the amplitude of low frequencies set to
    1. Where its error is largest a mask begins. The second network sees the slice with noise under the mask beside the
    fine structure. Pixels with a small error are uncovered, and so on, until the mask no longer shrinks.

    Loss: squared error of both networks, the second under masks of random squares. Differs from paper: both networks in
    one training, each with its own weights; and the bound of the error is a running mean over training batches, where
    the paper takes it from validation slices once.
    """

    reference = (
        "Liang Z, Guo X, Noble JA, Kamnitsas K. IterMask²: iterative unsupervised anomaly segmentation via spatial and "
        "frequency masking for brain lesions in MRI. MICCAI 2024; arXiv:2406.02422."
    )
    Settings = IterMaskSettings

    def __init__(self, settings: IterMaskSettings) -> None:
        super().__init__()
        self.settings = settings
        self.first = DiffusionUNet(settings.unet)
        self.painter = DiffusionUNet(settings.unet, inputs=2)
        self.register_buffer("bound", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.bound: torch.Tensor
        self.batches: torch.Tensor

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the sum of both networks' mean squared errors; in training the bound follows the errors."""
        x, fine = _scaled(image), fine_structure(_scaled(image), self.settings.radius)
        mask = random_squares(image > 0, self.settings.squares, self.settings.spread, generator=generator)
        noise = self._noise(draw_seeds(len(image), generator), x)
        error = (self._paint(x, fine, mask, noise) - x).square()
        if self.training and bool(mask.any()):
            self._follow(error.detach()[mask])
        return error.mean() + (self._output(self.first, fine) - x).square().mean()

    def running_statistics(self) -> tuple[torch.Tensor, ...]:
        """Return what follows the training batches: the bound and their number."""
        return self.bound, self.batches

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return what the second network paints in the last round, in [0, 1]."""
        return self.refined(image, seeds)[0]

    def refined(self, image: torch.Tensor, seeds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the painted slices in [0, 1] and the last masks, bool, both `(b, 1, h, w)`."""
        s, x, brain = self.settings, _scaled(image), image > 0
        fine = fine_structure(x, s.radius)
        painted = self._output(self.first, fine)
        mask = highest((painted - x).square(), brain, s.first_mask)
        going_on = mask.flatten(1).any(dim=1)
        for number in range(s.max_rounds):
            rows = going_on.nonzero().flatten()
            if len(rows) == 0:
                break
            noise = self._noise(seeds[rows.cpu()] + number, x[rows])
            found = self._paint(x[rows], fine[rows], mask[rows], noise)
            painted[rows] = found
            smaller = mask[rows] & ((found - x[rows]).square() > self.bound)
            sizes = [m.flatten(1).sum(dim=1) for m in (mask[rows], smaller)]
            shrinks = (sizes[0] - sizes[1]) >= s.least_shrinkage * sizes[0]
            mask[rows] = torch.where(shrinks[:, None, None, None], smaller, mask[rows])
            going_on[rows] = shrinks & (sizes[1] > 0)
        return ((painted / 3 + 1) / 2).clamp(0, 1), mask

    def _paint(self, x: torch.Tensor, fine: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return self._output(self.painter, torch.cat([torch.where(mask, noise, x), fine], dim=1))

    def _output(self, network: DiffusionUNet, given: torch.Tensor) -> torch.Tensor:
        level = torch.zeros(len(given), dtype=torch.long, device=given.device)
        output: torch.Tensor = network(given, level, None)
        return output.float()

    def _noise(self, seeds: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        height, width = like.shape[-2:]
        return NOISES.get("gaussian")(seeds, height, width, like.device)

    def _follow(self, errors: torch.Tensor) -> None:
        """Let the bound follow the quantile of the errors under the masks of a batch."""
        found = torch.quantile(errors.float(), 1 - self.settings.least_error)
        count = int(self.batches)
        weight = max(1 / (count + 1), 1 - _MOMENTUM)  # a plain mean at first
        self.bound.lerp_(found.to(self.bound), weight)
        self.batches += 1


def _scaled(image: torch.Tensor) -> torch.Tensor:
    """Return intensities of [0, 1] in [−3, 3], as published: unit noise is then less than the image."""
    return 6 * image - 3


def fine_structure(x: torch.Tensor, radius: float) -> torch.Tensor:
    """Return slices `(b, 1, h, w)` whose spectrum has amplitude 1 below `radius` cycles; all phases stay.

    Where a slice has nothing of a frequency, its phase is rounding and counts as 0.
    """
    height, width = x.shape[-2:]
    spectrum = torch.fft.fft2(x.float())
    rows = torch.fft.fftfreq(height, 1 / height, device=x.device)[:, None]
    columns = torch.fft.fftfreq(width, 1 / width, device=x.device)[None, :]
    is_low = rows.square() + columns.square() < radius**2
    amplitude = spectrum.abs()
    least = 1e-5 * amplitude.amax(dim=(2, 3), keepdim=True)
    unit = torch.where(amplitude > least, spectrum / amplitude.clamp_min(1e-12), torch.ones_like(spectrum))
    found: torch.Tensor = torch.fft.ifft2(torch.where(is_low, unit, spectrum)).real
    return found


def highest(values: torch.Tensor, inside: torch.Tensor, share: float) -> torch.Tensor:
    """Return the `share` of the pixels inside with the highest values, bool; each slice alone, `(b, 1, h, w)`."""
    order = values.masked_fill(~inside, -torch.inf).flatten(1).argsort(dim=1, descending=True).argsort(dim=1)
    count = (share * inside.flatten(1).sum(dim=1)).round()
    return (order < count[:, None]).view_as(inside) & inside


def random_squares(
    inside: torch.Tensor, sides: tuple[int, int, int], spread: tuple[float, float], *, generator: torch.Generator
) -> torch.Tensor:
    """Return masks of squares that cluster around a place inside, bool, `(b, 1, h, w)`.

    The standard deviations of their places, s along either axis, are drawn from `spread`; there are one or two of the
    smallest squares for each s₁ · s₂ mm² at 2 mm, five to nine of the next size, three to nine of the largest.
    """
    count, (height, width) = len(inside), inside.shape[-2:]
    low, high = spread
    numbers = torch.rand(count, 6, generator=generator)
    places = torch.randn(count, _MOST_SQUARES, 2, generator=generator)
    deviations = low * (high / low) ** numbers[:, :2]
    masks = torch.zeros(count, 1, height, width)
    for n, brain in enumerate(inside[:, 0].cpu()):
        where = brain.nonzero()
        if len(where) == 0:
            continue
        centre = where[int(numbers[n, 2] * len(where))]
        own = (centre + places[n] * deviations[n]).round().long()
        smallest = int((1 + float(numbers[n, 3])) * 4 * float(deviations[n].prod())) + 1
        ends = [min(smallest, _MOST_SQUARES - 18), 5 + int(5 * numbers[n, 4]), 3 + int(7 * numbers[n, 5])]
        start = 0
        for side, number in zip(sides, ends, strict=True):
            chosen = own[start : start + number]
            start += number
            chosen = chosen[((chosen >= 0) & (chosen < torch.tensor([height, width]))).all(dim=1)]
            points = torch.zeros(1, 1, height, width)
            points[0, 0, chosen[:, 0], chosen[:, 1]] = 1
            # A square goes down and to the right from its place.
            grown = F.max_pool2d(F.pad(points, (side - 1, 0, side - 1, 0)), side, stride=1)
            masks[n] = torch.maximum(masks[n], grown[0])
    return (masks > 0).to(inside.device) & inside
