"""pDDPM: noise in one patch at a time, the rest of the slice provides the anatomy (Behrendt et al., MIDL 2023)."""

import math

import torch
from pydantic import Field

from halebrain.core.random import draw_seeds
from halebrain.models.reconstruction.base import RECONSTRUCTORS, Corruption, Level
from halebrain.models.reconstruction.diffusion import DiffusionReconstructor, DiffusionSettings


class PDDPMSettings(DiffusionSettings):
    """Diffusion settings with a patch.

    Args:
        patch_size: Side of the noised patch in pixels.
        stride: Distance of neighbouring patches at test time; where patches overlap they are averaged.
    """

    patch_size: int = Field(default=48, ge=1)
    stride: int = Field(default=24, ge=1)


@RECONSTRUCTORS.register("pddpm")
class PDDPM(DiffusionReconstructor):
    """Learns to restore one noised patch; a reconstruction is stitched from patches that cover the slice.

    Loss: on the pixels of the patch alone.
    """

    reference = (
        "Behrendt F, Bhattacharya D, Krüger J, Opfer R, Schlaefer A. Patched diffusion models for unsupervised "
        "anomaly detection in brain MRI. MIDL 2023, PMLR 227:1019–1032."
    )
    Settings = PDDPMSettings

    def __init__(self, settings: PDDPMSettings) -> None:
        super().__init__(settings)
        self.patch_size, self.stride = settings.patch_size, settings.stride

    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the error within a patch drawn for each slice."""
        count, (height, width) = len(image), image.shape[-2:]
        level = torch.randint(*self.settings.level_range, (count,), generator=generator)
        place = torch.rand(count, 2, generator=generator)
        inside = torch.zeros_like(image, dtype=torch.bool)
        for n, (down, right) in enumerate(place.tolist()):
            rows, columns = self._extent(height, down), self._extent(width, right)
            inside[n, :, rows, columns] = True
        error = self._error(image * 2 - 1, level, draw_seeds(count, generator), inside)
        return (error * inside).sum() / inside.sum()

    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the mean of overlapping patches, each restored with the rest of the slice unchanged; in [0, 1]."""
        start = self._checked(level)
        scaled, (height, width) = image * 2 - 1, image.shape[-2:]
        total, weight = torch.zeros_like(image, dtype=torch.float32), torch.zeros(1, 1, height, width).to(image.device)
        for rows in self._cover(height):
            for columns in self._cover(width):
                inside = torch.zeros(1, 1, height, width, dtype=torch.bool, device=image.device)
                inside[..., rows, columns] = True
                total += self._restore(scaled, start, seeds, inside).float() * inside
                weight += inside
        return ((total / weight + 1) / 2).clamp(0, 1)

    def _extent(self, size: int, place: float) -> slice:
        """Return the patch at `place` in [0, 1) along an axis of `size` pixels."""
        start = int(place * max(size - self.patch_size + 1, 1))
        return slice(start, start + self.patch_size)

    def _cover(self, size: int) -> list[slice]:
        """Return patches that cover an axis of `size` pixels, at most `stride` apart and evenly spread."""
        room = max(size - self.patch_size, 0)
        count = math.ceil(room / self.stride) + 1
        starts = [round(n * room / max(count - 1, 1)) for n in range(count)]
        return [slice(start, start + self.patch_size) for start in starts]
