"""Training on cached pairs, in stage 2 and in adaptation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from halebrain.core.random import make_generator
from halebrain.data.augment import flip
from halebrain.data.warp import PairAugmentationConfig, warp
from halebrain.models.segmentation import Segmenter
from halebrain.training.loop import Stage
from halebrain.training.losses import LossConfig, segmentation_loss
from halebrain.training.pairs import PairStore, split_pairs
from halebrain.training.prefetch import Drawn


@dataclass(frozen=True)
class PairDraw:
    """What a batch takes from one store.

    Args:
        store: Cached pairs.
        count: How many of them.
        lesion_fraction: Share of them restricted to pairs with lesion.
    """

    store: PairStore
    count: int
    lesion_fraction: float = 0.0


class PairStage(Stage):
    """Cached pairs in, segmentation loss out; shapes are augmented again at each step, intensities once before.

    Args:
        segmenter: It learns.
        draws: What a batch of "train" and of "val" is made of.
        augmentation: Of shapes.
        loss: Weights of the loss.
        seed: The user's seed; validation always uses the same pairs.
        purpose: What draws from the generator; other purposes use other random numbers.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        draws: Mapping[str, Sequence[PairDraw]],
        augmentation: PairAugmentationConfig,
        loss: LossConfig,
        *,
        seed: int,
        purpose: str,
    ) -> None:
        super().__init__()
        self.trained, self.draws, self.augmentation, self.loss = segmenter, draws, augmentation, loss
        self.seed, self.purpose = seed, purpose

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the segmentation loss of batch `step`."""
        segmenter: Any = self.trained
        generator = make_generator(self.seed if split == "train" else 0, split, self.purpose, step)
        found = [
            part.store.draw(part.count, generator, lesion_fraction=part.lesion_fraction)
            for part in self.draws[split]
            if part.count > 0
        ]
        modalities = [modality for _, names in found for modality in names]
        pairs = torch.cat([drawn for drawn, _ in found]).to(next(segmenter.parameters()).device)
        image, reconstruction, lesion = split_pairs(pairs)
        if split == "train":
            moved = flip(image, reconstruction, lesion, config=self.augmentation, generator=generator)
            image, reconstruction, lesion = warp(*moved, config=self.augmentation, generator=generator)
        return segmentation_loss(segmenter.all_logits(image, reconstruction, modalities), lesion.float(), self.loss)
