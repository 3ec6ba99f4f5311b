"""Fine-tuning of a trained segmenter on a few annotated scans, from cached pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from pydantic import Field

from halebrain.core.config import Config
from halebrain.data.anomalies import AnomalySpec
from halebrain.data.augment import PairAugmentationConfig
from halebrain.models.ensemble import AnySegmenter
from halebrain.training.loop import Weights, train
from halebrain.training.loop_config import LoopConfig
from halebrain.training.losses import LossConfig
from halebrain.training.pairs import PairDraw, PairStage, PairStore


class TuningConfig(Config):
    """How the segmenter is fine-tuned.

    Args:
        draws: Pairs of every annotated slice; the levels of the model take turns, the noise is always new.
        synthetic_slices: Slices with synthetic anomalies, from all scans together.
        synthetic_fraction: Share of them in a batch, or in what rehearsal leaves of it.
        lesion_fraction: Share of annotated and rehearsed draws restricted to slices with lesion.
        rehearsed_fraction: Share of a batch from virtual patients of the diseases that the model learned from, where
            there are any; the rest is shared out as `synthetic_fraction` says. Rehearsal reduces forgetting
            (Robins 1995).
        anomaly: The synthetic anomalies, so that unannotated diseases are not forgotten. If unset, those that the
            model was trained with; all kinds if it does not state them.
        augmentation: Of intensities when a pair is made, of shapes at each step.
        loss: Weights of the loss; if unset, those of the model's training.
        loop: Settings of the optimisation. The rate is constant, so a shorter run is the start of a longer one.
        original_weight: Weight of the original model in the mean with the new weights: this
            keeps most of the improvement and forgets little (Wortsman et al. 2022, WiSE-FT).
    """

    draws: int = Field(default=3, ge=1)
    synthetic_slices: int = Field(default=384, ge=1)
    synthetic_fraction: float = Field(default=0.5, ge=0, lt=1)
    lesion_fraction: float = Field(default=0.7, ge=0, le=1)
    rehearsed_fraction: float = Field(default=0.375, ge=0, lt=1)
    anomaly: AnomalySpec = AnomalySpec(name="mixture")
    augmentation: PairAugmentationConfig = PairAugmentationConfig(
        gamma=0.5, bias_field=0.25, blur=0.25, ghosting=0.1, flip=0.5, warp=0.5
    )
    loss: LossConfig = LossConfig(cross_entropy=1.0, dice=0.5)
    loop: LoopConfig = LoopConfig(
        steps=300,
        batch_size=8,
        lr=1e-3,
        warmup_steps=10,
        ema_decay=0.95,
        validate_every=100,
        validation_batches=4,
        checkpoint_every=100,
        keep="last",
    )
    original_weight: float = Field(default=0.5, ge=0, lt=1)

    def model_post_init(self, _: Any, /) -> None:
        """Check that a shorter run is the beginning of a longer one."""
        if self.loop.lr_schedule != "constant" or self.loop.keep != "last":
            raise ValueError(
                "loop.lr_schedule must be constant and loop.keep last: the number of steps is chosen after"
            )
        if self.loop.steps % self.loop.validate_every:
            raise ValueError("loop.validate_every must divide loop.steps")
        wanted = {"annotated": 1.0, "synthetic": self.synthetic_fraction, "rehearsed": self.rehearsed_fraction}
        for rehearses in (True, False):
            for kind, count in self.counts(rehearses=rehearses).items():
                if count < 1 and wanted[kind] > 0 and (rehearses or kind != "rehearsed"):
                    raise ValueError(
                        f"synthetic_fraction and rehearsed_fraction must leave at least one {kind} slice "
                        f"in a batch of {self.loop.micro_batch_size}, or be 0"
                    )

    def counts(self, *, rehearses: bool) -> dict[str, int]:
        """Return how many slices of a batch are "annotated", "synthetic" and "rehearsed"."""
        size = self.loop.micro_batch_size
        rehearsed = round(size * self.rehearsed_fraction) if rehearses else 0
        synthetic = round((size - rehearsed) * self.synthetic_fraction)
        return {"annotated": size - rehearsed - synthetic, "synthetic": synthetic, "rehearsed": rehearsed}


def adaptation_stage(
    segmenter: AnySegmenter, stores: dict[str, PairStore], config: TuningConfig, seed: int
) -> PairStage:
    """Return the stage that fine-tunes the segmenter on the pairs of `stores`.

    "annotated" and "synthetic" are learned from, and "rehearsed" ones of virtual patients, if any; "val" validates.
    """
    share = config.lesion_fraction
    counts = config.counts(rehearses="rehearsed" in stores)
    # Synthetic pairs are drawn uniformly, the others from slices with lesion with this frequency.
    shares = {"annotated": share, "synthetic": 0.0, "rehearsed": share}
    train = [PairDraw(stores[kind], count, shares[kind]) for kind, count in counts.items() if kind in stores]
    draws = {"train": train, "val": [PairDraw(stores["val"], config.loop.micro_batch_size, share)]}
    return PairStage(segmenter, draws, config.augmentation, config.loss, seed=seed, purpose="adaptation")


def fine_tune(
    segmenter: AnySegmenter,
    stores: dict[str, PairStore],
    config: TuningConfig,
    folder: Path,
    *,
    fabric: Fabric,
    seed: int,
    name: str,
    identity: str,
    on_validated: Callable[[int, Weights], None] | None = None,
) -> float:
    """Fine-tune `segmenter`, which ends between its own weights and those of the last step; return the seconds taken.

    A run goes on from the checkpoint in `folder`; `identity` is the hash of all that it depends on. After each
    validation, `on_validated` gets the step and the weights that the segmenter would end with.
    """
    before = {name: weight.detach().clone() for name, weight in segmenter.state_dict().items()}

    def tell(step: int, weights: Weights) -> None:
        if on_validated is not None:
            on_validated(step, mixed(before, weights, config.original_weight))

    segmenter.requires_grad_(True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    stage = adaptation_stage(segmenter, stores, config, seed)
    stage.train()
    result = train(stage, config.loop, folder, fabric=fabric, name=name, identity=identity, on_validated=tell)
    segmenter.load_state_dict(mixed(before, result.weights, config.original_weight))
    segmenter.eval().requires_grad_(False)
    return result.seconds


def mixed(before: Weights, after: Weights, kept: float) -> Weights:
    """Return kept × before + (1 − kept) × after, weight by weight."""
    return {name: torch.lerp(weight, before[name].to(weight.device), kept) for name, weight in after.items()}
