"""Healthy slices for training on healthy scans only."""

from pathlib import Path

import torch

from halebrain.core.random import make_generator
from halebrain.data.augment import AugmentationConfig, augment, flip
from halebrain.data.samplers import Sampler, build_sampler
from halebrain.data.slices import DataConfig, Sampling, SliceSampler, SliceStore, build_store, weigh
from halebrain.data.warp import shift
from halebrain.io.manifest import Manifest


class HealthySlices:
    """Batches of augmented healthy slices; a batch is a function of (seed, split, step) alone.

    Args:
        stores: Slices of the splits "train" and "val".
        batch_size: Slices in a batch.
        augmentation: Of the training slices.
        seed: The user's seed; validation batches are the same for each.
        purpose: What draws from the generator ("stage 1"); others draw other noise.
        sampling: How training slices are drawn; those of validation are drawn at random.
    """

    def __init__(
        self,
        stores: dict[str, SliceStore],
        batch_size: int,
        augmentation: AugmentationConfig,
        *,
        seed: int,
        purpose: str,
        sampling: Sampling = "random",
    ) -> None:
        self.augmentation, self.seed, self.purpose = augmentation, seed, purpose
        self.samplers: dict[str, Sampler] = {
            "train": build_sampler(sampling, stores["train"], batch_size, seed, "train"),
            "val": SliceSampler(stores["val"], batch_size, 0, "val"),
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


def open_healthy(manifest: Manifest, data: DataConfig, folder: Path) -> dict[str, SliceStore]:
    """Return the slices of the healthy scans of "train" and "val", preprocessed where they are not yet.

    Raises:
        MissingInputError: One of the splits has no healthy scan.
    """
    cache = data.cache or folder / "cache"
    parts = (("train", manifest.split("train"), "training"), ("val", manifest.split("val"), "validation"))
    stores = {
        name: build_store(
            rows,
            data.preprocessing,
            cache,
            description=f"healthy {what} scans",
            workers=data.workers,
            with_levels=name == "train" and data.sampling == "level",
        )
        for name, rows, what in parts
    }
    return stores | {"train": weigh(stores["train"], data)}
