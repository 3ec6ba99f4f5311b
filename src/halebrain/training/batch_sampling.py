"""Sampling of batches on the CPU, before any network, in this or another process.

Nothing here imports the training code, so data-loading processes start fast and need little memory.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from halebrain.core.random import branch, make_generator
from halebrain.data.anomalies import AnomalyGenerator
from halebrain.data.augment import PairAugmentationConfig, augment, flip, shift
from halebrain.data.samplers import Sampler, SliceSampler, build_sampler
from halebrain.data.slices import DataConfig, SliceStore, build_store, weigh
from halebrain.data.through_plane import apply_with_neighbours
from halebrain.io.manifest import Manifest
from halebrain.training.prefetch import Drawn

DRAWS = "draws 2"
"""Version of the batch sampling, part of a run's identity: runs of another version are not resumed."""


_SPLITS: dict[Literal["train", "val"], str] = {"train": "training", "val": "validation"}


class HealthySlices:
    """Batches of augmented healthy slices; a batch is a function of (seed, split, step) alone.

    Args:
        stores: Slices of the splits "train" and "val".
        config: Of the training, with `data`, `loop`, `augmentation` and `seed`. Validation slices are drawn at random,
            and the same whatever the seed.
        purpose: What draws from the generator ("stage 1"); others draw other noise.
    """

    def __init__(self, stores: dict[str, SliceStore], config: Any, *, purpose: str) -> None:
        self.augmentation, self.seed, self.purpose = config.augmentation, config.seed, purpose
        size, sampling = config.loop.micro_batch_size, config.data.sampling
        self.samplers: dict[str, Sampler] = {
            "train": build_sampler(sampling, stores["train"], size, config.seed, "train"),
            "val": SliceSampler(stores["val"], size, 0, "val"),
        }

    def draw(self, split: str, step: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        """Return slices in [0, 1] and their brain masks, `(b, 1, h, w)`, and the generator for all that follows."""
        batch = self.samplers[split].batch(step)
        generator = make_generator(self.seed, split, self.purpose, step)
        image, brain_mask = batch.image.to(device), batch.brain_mask.to(device)
        if split == "train":
            image, brain_mask = flip(image, brain_mask, config=self.augmentation, generator=generator)
            image, brain_mask = shift(image, brain_mask, config=self.augmentation, generator=generator)
            image = augment(image, brain_mask, self.augmentation, generator=generator)
        return image, brain_mask, generator


def open_slices(manifest: Manifest, kind: str, data: DataConfig, folder: Path) -> dict[str, SliceStore]:
    """Return the slices of the scans of "train" and "val", preprocessed where they are not yet.

    `kind` is "healthy" or "annotated"; heights of slices are read for healthy ones alone. The cache is in `folder`
    where `data` names none.
    """
    stores: dict[str, SliceStore] = {
        split: build_store(
            manifest.split(split),
            data.preprocessing,
            data.cache or folder / "cache",
            description=f"{kind} {what} scans",
            workers=data.workers,
            with_levels=kind == "healthy" and split == "train" and data.sampling == "level",
        )
        for split, what in _SPLITS.items()
    }
    return stores | {"train": weigh(stores["train"], data)}


@dataclass(frozen=True)
class HealthyDraw:
    """Draws augmented healthy slices and, where there is an anomaly, the same with it."""

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

    `samplers` are by split and source ("synthetic", "annotated"); `neighbours` are the places of those behind each
    slice.
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
