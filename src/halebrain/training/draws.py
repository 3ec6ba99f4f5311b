"""Sampling of batches on the CPU, before any network, in this or another process.

Nothing here imports the training code, so data-loading processes start fast and need little memory.
"""

from dataclasses import dataclass

import torch

from halebrain.core.random import branch, make_generator
from halebrain.data.anomalies import AnomalyGenerator
from halebrain.data.augment import augment, flip
from halebrain.data.samplers import Sampler
from halebrain.data.through_plane import apply_with_neighbours
from halebrain.data.warp import PairAugmentationConfig, shift
from halebrain.training.healthy import HealthySlices
from halebrain.training.prefetch import Drawn

DRAWS = "draws 2"
"""Version of the batch sampling, part of a run's identity: runs of another version are not resumed."""


@dataclass(frozen=True)
class HealthyDraw:
    """Draws augmented healthy slices and, where there is an anomaly, the same with it.

    Args:
        slices: Where from.
        anomaly: What a restoring reconstructor learns to undo.
    """

    slices: HealthySlices
    anomaly: AnomalyGenerator | None

    def __call__(self, split: str, step: int) -> Drawn:
        """Return slices, and corrupted slices, `(b, 1, h, w)` in [0, 1]."""
        image, brain_mask, generator = self.slices.draw(split, step, torch.device("cpu"))
        if self.anomaly is None:
            return (image,)
        params = self.anomaly.sample_params(len(image), generator=branch(generator, "anomaly"))
        return image, self.anomaly.apply(image, brain_mask, params)[0]


@dataclass(frozen=True)
class LesionDraw:
    """Draws slices with known lesions, their own or synthetic ones; training slices are augmented.

    Args:
        samplers: By split and source ("synthetic", "annotated").
        anomaly: What is put into the slices of "synthetic".
        augmentation: Of training slices.
        neighbours: The places of the neighbours that each slice has behind it.
        seed: The user's seed.
    """

    samplers: dict[str, dict[str, Sampler]]
    anomaly: AnomalyGenerator
    augmentation: PairAugmentationConfig
    neighbours: tuple[int, ...]
    seed: int

    def __call__(self, split: str, step: int) -> Drawn:
        """Return slices in [0, 1] with their neighbours, brain masks (both `(b, 1 + k, h, w)`) and lesions."""
        generator, parts = make_generator(self.seed, split, "stage 2", step), []
        for source, sampler in self.samplers[split].items():
            batch = sampler.batch(step)
            part = (batch.image, batch.brain_mask, batch.lesion)
            if split == "train":
                part = flip(*part, config=self.augmentation, generator=generator)  # type: ignore[assignment]
            if source == "synthetic":
                altered, drawn = apply_with_neighbours(
                    self.anomaly, part[0], part[1], self.neighbours, generator=generator
                )
                part = (altered, part[1], part[2] | drawn)
            parts.append(part)
        image, brain_mask, lesion = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        if split == "train":
            image, brain_mask, lesion = shift(image, brain_mask, lesion, config=self.augmentation, generator=generator)
            image = augment(image, brain_mask, self.augmentation, generator=generator)
        return image, brain_mask, lesion
