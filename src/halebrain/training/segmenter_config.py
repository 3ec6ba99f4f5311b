"""Configuration of a run of stage 2."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from halebrain.core.config import Config, GrowingConfig
from halebrain.data.anomalies import AnomalySpec
from halebrain.data.augment import PairAugmentationConfig
from halebrain.data.slices import DataConfig
from halebrain.models.segmentation import SegmenterConfig
from halebrain.training.loop_config import LoopConfig
from halebrain.training.losses import LossConfig

Regime = Literal["synthetic", "weak", "both"]


class PairCacheConfig(Config):
    """How many pairs of a slice and its reconstruction are made before the segmenter learns from them.

    Args:
        annotated: Of each annotated training scan.
        synthetic: With synthetic anomalies, of each healthy training scan; of one that counts several times
            (`data.oversample_factor`) as many each time.
        validation: Of each validation scan of either kind; these are not augmented.
    """

    annotated: int = Field(default=24, ge=1)
    synthetic: int = Field(default=48, ge=1)
    validation: int = Field(default=8, ge=1)


class SegmenterTraining(GrowingConfig):
    """Configuration of a stage-2 run.

    Args:
        data: Which scans; healthy ones carry synthetic anomalies, annotated ones their own lesions. Where no
            preprocessing is given, the reconstructor's is used; another one is an error.
        n_annotated: Annotated subjects to learn from, in the regimes "weak" and "both"; `None` = all. Subsets are
            nested: those of 5 are among those of 10. Validation uses every annotated subject of the split "val".
        subset_seed: Which subjects those are.
        regime: "synthetic" = healthy scans and generated anomalies, "weak" = annotated scans, "both" = a mixture.
        annotated_fraction: Share of annotated scans in a batch of the regime "both", to the nearest number of slices in
            each micro-batch.
        lesion_fraction: Share of annotated draws restricted to slices with lesion.
        anomaly: The generator of synthetic anomalies.
        segmenter: Size and inputs of the network.
        start: A model, by path or name, whose segmenter is trained further, on one contrast or disease, say; of a
            joined one the network that is used for `data.modalities`; `None` = from scratch.
        loss: Weights of cross-entropy, soft Dice and focal loss.
        augmentation: Of intensities before the reconstruction, of shapes after it.
        pairs: Make this many pairs of slices, drawn at random, and their reconstructions once, and learn from them:
            several times as many steps in the same time; `None` = new anomalies, noise and intensities at each step.
        postprocessing: Settings of the anomaly map, stored in the model.
        loop: Settings of the optimisation.
        seed: Seed of weights, batches, anomalies and noise.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"pairs", "start"})

    data: DataConfig = DataConfig()
    n_annotated: int | None = Field(default=None, ge=1)
    subset_seed: int = 0
    regime: Regime = "synthetic"
    annotated_fraction: float = Field(default=0.5, gt=0, lt=1)
    lesion_fraction: float = Field(default=0.5, ge=0, le=1)
    anomaly: AnomalySpec = AnomalySpec()
    segmenter: SegmenterConfig = SegmenterConfig()
    start: Path | None = None
    loss: LossConfig = LossConfig()
    augmentation: PairAugmentationConfig = PairAugmentationConfig()
    pairs: PairCacheConfig | None = None
    postprocessing: dict[str, Any] = Field(default_factory=dict)
    loop: LoopConfig = LoopConfig(lr=5e-5)
    seed: int = 0

    def model_post_init(self, _: Any, /) -> None:
        """Refuse what would have no effect, or leave out a kind of slices of the regime."""
        selected = [] if self.n_annotated is None else ["n_annotated"]
        selected += [] if self.data.pathologies is None else ["data.pathologies"]
        if self.regime == "synthetic" and selected:
            raise ValueError(f"{selected[0]} selects annotated scans, which need the regime weak or both")
        if self.pairs is not None and self.data.sampling != "random":
            raise ValueError(f"data.sampling {self.data.sampling} needs pairs null: the slices of pairs are random")
        if self.regime == "both" and len(self.counts()) < 2:
            raise ValueError(
                "annotated_fraction must give at least one synthetic and one annotated slice in a (micro-)batch of "
                f"{self.loop.micro_batch_size}"
            )

    def counts(self) -> dict[str, int]:
        """Return how many slices of a micro-batch are "synthetic" (with generated anomalies) and "annotated"."""
        size = self.loop.micro_batch_size
        annotated = {"synthetic": 0, "weak": size, "both": round(size * self.annotated_fraction)}[self.regime]
        return {k: n for k, n in (("synthetic", size - annotated), ("annotated", annotated)) if n > 0}
