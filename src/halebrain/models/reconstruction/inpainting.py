"""Inpainting: regions are cut out and filled from their surroundings, so that the rest of the slice stays to the bit.

In a second look (`second_look`), what a first pass doubts is cut out. Alone, the network cuts out every second square
of a chessboard, then the other squares.
Related: IterMask (Liang et al. 2024, arXiv 2406.02422), pDDPM (Behrendt et al. 2023).
"""

import torch
from pydantic import Field
from torch.nn import functional as F

from halebrain.core.config import Config
from halebrain.core.random import draw_seeds
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level, Reconstructor
from halebrain.models.reconstruction.restoration import VISIBLE_CHANGE
from halebrain.models.unet import DiffusionUNet, UNetConfig


class InpainterSettings(Config):
    """Settings of the inpainter.

    Args:
        unet: Size of the network; its noise level is not used.
        test_levels: Sides of the chessboard's squares in pixels; their reconstructions are averaged.
        hole_fraction: Range of the area of the holes in training, as a fraction of the slice.
        chessboards: Fraction of training slices whose holes are a chessboard.
        on_anomalies: Fraction of training slices whose holes cover their synthetic anomaly too, grown by 0 to 3 pixels.
            In the others, parts of it may remain at the border of a hole, as parts of a lesion do that the first pass
            missed.
    """

    unet: UNetConfig = UNetConfig()
    test_levels: tuple[int, ...] = (12, 20)
    hole_fraction: tuple[float, float] = (0.003, 0.15)
    chessboards: float = Field(default=0.15, ge=0, le=1)
    on_anomalies: float = Field(default=0.7, ge=0, le=1)

    def model_post_init(self, _: object, /) -> None:
        """Check sides and areas."""
        if not self.test_levels or not all(_is_side(level) for level in self.test_levels):
            raise ValueError("test_levels must lie in [1, 64]")
        low, high = self.hole_fraction
        if not 0 < low <= high < 1:
            raise ValueError("hole_fraction must be a range within (0, 1)")


@RECONSTRUCTORS.register("inpainting")
class Inpainter(Reconstructor):
    r"""Predicts what a hole hides: $\hat x = (1 - m) \odot x + m \odot f((1 - m) \odot x, m)$.

    Loss: mean $|x_0 - \hat x|$ over the brain in the holes, where $x_0$ is the healthy slice and x the slice with a
    synthetic anomaly.
    """

    reference = (
        "Liang Z, Guo X, Noble JA, Kamnitsas K. IterMask²: iterative unsupervised anomaly segmentation via spatial and "
        "frequency masking for brain lesions in MRI. MICCAI 2024."
    )
    Settings = InpainterSettings
    needs_corruption = True

    def __init__(self, settings: InpainterSettings) -> None:
        super().__init__()
        self.settings = settings
        self.unet = DiffusionUNet(settings.unet, inputs=2)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The sides of the chessboard's squares, in pixels."""
        return self.settings.test_levels

    def random_level(self, generator: torch.Generator) -> Level:
        """Draw one of the sides."""
        sides = self.settings.test_levels
        return sides[int(torch.randint(len(sides), (), generator=generator))]

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the mean error of what fills the holes, intensities in [−1, 1]."""
        given = self._given(image, generator, corrupt)
        hole = self._holes(given, (given - image).abs() > VISIBLE_CHANGE, generator)
        judged = hole & (image > 0)
        error = 2 * (self._filling(given, hole) - image).abs()
        return (error * judged).sum() / judged.sum().clamp_min(1)

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the slice with every square filled from its neighbours, in [0, 1]; nothing is random."""
        if level is None or not _is_side(level):
            raise ValueError(f"a noise level must lie in [1, 64] (the side of a square), got {level}")
        board = _chessboard(image, level, 0, 0)
        return torch.where(board, self.fill(image, board), self.fill(image, ~board))

    def fill(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Return the slices with what a healthy brain would show in the holes, in [0, 1]; the rest to the bit.

        Args:
            image: Slices in [0, 1], `(b, 1, h, w)`.
            hole: What is cut out, bool, same shape.
        """
        return torch.where(hole, self._filling(image, hole).clamp(0, 1), image)

    def _filling(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([torch.where(hole, 0, image * 2 - 1), hole.to(image.dtype)], dim=1)
        level = torch.zeros(len(image), dtype=torch.long, device=image.device)
        filled: torch.Tensor = self.unet(seen.contiguous(memory_format=torch.channels_last), level, None)
        return (filled.float() + 1) / 2

    def _holes(self, image: torch.Tensor, anomaly: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw the holes of training slices, bool `(b, 1, h, w)`."""
        s, shape = self.settings, image.shape[-2:]
        seeds = draw_seeds(len(image), generator)
        found = []
        for own, seed, slice_ in zip(anomaly, seeds.tolist(), image, strict=True):
            stream = torch.Generator().manual_seed(seed)
            u = torch.rand(6, generator=stream).tolist()
            if u[0] < s.chessboards:
                side = s.test_levels[int(u[1] * len(s.test_levels))]
                hole = _chessboard(slice_[None], side, int(2 * side * u[2]), int(2 * side * u[3]))[0]
            else:
                low, high = s.hole_fraction
                hole = _islands(shape, low * (high / low) ** u[1], 4 + int(12 * u[2]), stream).to(image.device)
            if u[4] < s.on_anomalies:
                hole = hole | grown(own[None], int(4 * u[5]))[0]
            found.append(hole)
        return torch.stack(found)


def _is_side(level: int) -> bool:
    return 1 <= level <= 64


def _chessboard(image: torch.Tensor, side: int, down: int, right: int) -> torch.Tensor:
    """Return every second square of a chessboard, bool, the shape of `image`."""
    rows, columns = (torch.arange(size, device=image.device) for size in image.shape[-2:])
    odd = ((rows + down) // side)[:, None] + ((columns + right) // side)[None] & 1
    return (odd == 1).expand(image.shape)


def _islands(shape: torch.Size, fraction: float, cells: int, generator: torch.Generator) -> torch.Tensor:
    """Return smooth islands that cover a fraction of a slice, bool `(1, h, w)`."""
    coarse = torch.randn(1, 1, cells, cells, generator=generator)
    field = F.interpolate(coarse, tuple(shape), mode="bicubic", align_corners=True)[0]
    return field > field.flatten().quantile(1 - fraction)


def grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """Return masks `(b, 1, h, w)` grown by some pixels in every direction."""
    return F.max_pool2d(mask.float(), 2 * pixels + 1, stride=1, padding=pixels) > 0
