"""Many segmenters on one scan: the reconstructor is frozen, so reconstructions are computed once and cached."""

from dataclasses import dataclass

import torch

from halebrain.core.types import FloatArray
from halebrain.inference.predictor import Predictor
from halebrain.inference.slice_networks import brain_slices, volume_of_slices
from halebrain.models.ensemble import AnySegmenter
from halebrain.models.reconstruction.base import Level
from halebrain.preprocessing.pipeline import WorkingScan


@dataclass(frozen=True)
class KnownScan:
    """A scan on the working grid with cached results of the whole model; arrays `(i, j, k)`.

    The reconstructions are those of the slices that show brain, one tensor a level and draw, `(n, 1, h, w)`.
    """

    scan: WorkingScan
    reconstructions: tuple[torch.Tensor, ...]
    residual: FloatArray
    score: FloatArray
    contrast: str | None


class Resegmenter(Predictor):
    """A predictor that caches reconstructions, and scores scans again with other segmenters."""

    _made: list[torch.Tensor] | None = None

    def know(self, scan: WorkingScan, contrast: str | None) -> KnownScan:
        """Run the whole model over a preprocessed scan; `contrast` is a BIDS suffix, `None` = not known."""
        self._made = []
        maps = self.predict_working(scan, contrast)
        made, self._made = self._made, None
        return KnownScan(scan, tuple(made), maps.residual, maps.score, contrast)

    def score(self, known: KnownScan, segmenter: AnySegmenter) -> FloatArray:
        """Return the score `(i, j, k)` in [0, 1] that the model would give with another segmenter."""
        image, mask, used = brain_slices(known.scan)
        total = torch.zeros_like(image[used])
        for reconstruction in known.reconstructions:
            total += self.segment_with(segmenter, image[used], mask[used], reconstruction, known.contrast)
        probability = volume_of_slices(total / len(known.reconstructions), used, known.scan.image.shape)
        probability = self.across_slices(probability, self.brain_above_cord(known.scan), known.contrast)
        inside = self.scored_region(known.scan)
        return self.fused(known.residual, probability, inside)

    def reconstruct_slices(
        self, image: torch.Tensor, mask: torch.Tensor, level: Level, seeds: torch.Tensor
    ) -> torch.Tensor:
        """Return the reconstruction of slices as the model's own predictor, and keep it while a scan is processed."""
        made = super().reconstruct_slices(image, mask, level, seeds)
        if self._made is not None:
            self._made.append(made)
        return made
