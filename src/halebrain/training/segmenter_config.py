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
        n_annotated: Annotated subjects to learn from; `None` = all. Subsets are nested: those of 5 are among those of
            10. Validation uses every annotated subject of the split "val".
        subset_seed: Which subjects those are.
        regime: "synthetic" = healthy scans and generated anomalies, "weak" = annotated scans, "both" = a mixture.
        annotated_fraction: Share of annotated scans in a batch of the regime "both".
        lesion_fraction: Share of annotated draws restricted to slices with lesion.
        anomaly: The generator of synthetic anomalies.
        segmenter: Size and inputs of the network.
        start: A model, by path or name, whose segmenter is trained further, on one contrast or disease, say; of a
            joined one the network that is used for `data.modalities`; `None` = from scratch.
        loss: Weights of cross-entropy, soft Dice and focal loss.
        augmentation: Of intensities before the reconstruction, of shapes after it.
        pairs: Make this many pairs of a slice and its reconstruction once, and learn from them: several times as many
            steps in the same time; `None` = new anomalies, noise and intensities at each step.
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

    def counts(self) -> dict[str, int]:
        """Return how many slices of a micro-batch are "synthetic" (with generated anomalies) and "annotated"."""
        size = self.loop.micro_batch_size
        annotated = {"synthetic": 0, "weak": size, "both": round(size * self.annotated_fraction)}[self.regime]
        return {k: n for k, n in (("synthetic", size - annotated), ("annotated", annotated)) if n > 0}
