"""Settings of an adaptation; what they leave open is inherited from the training of the model."""

from typing import Any

from pydantic import Field

from halebrain.core.config import Config, parse_config
from halebrain.data.anomalies import AnomalySpec
from halebrain.models.bundle import Bundle
from halebrain.training.adaptation import TuningConfig
from halebrain.training.losses import LossConfig

STAGES = ("stage2", "joint")
"""Keys under which a model stores the settings of its segmenter's training."""
_FOLDER = "masks"


class RehearsalConfig(Config):
    """Virtual patients for rehearsal during adaptation.

    Args:
        patients: Patients of each virtual disease in the model's training data; 0 = no rehearsal.
        healthy: Healthy virtual brains.
        slices: Slices from all of them together.
    """

    patients: int = Field(default=2, ge=0)
    healthy: int = Field(default=4, ge=0)
    slices: int = Field(default=768, ge=1)


class AdaptConfig(Config):
    """Configuration of an adaptation, without model and scans.

    Args:
        tuning: How the segmenter is fine-tuned.
        rehearsal: Virtual patients for rehearsal, so that unannotated diseases are not forgotten.
        max_folds: Maximum number of cross-validation groups; up to this many subjects, leave one out.
        steps_one_subject: Steps with one annotated subject, where none can be left out. Deliberately few: slices of one
            head are too similar for choosing the number of steps.
        original_weight_one_subject: Weight of the original model with one annotated subject, if
            `tuning.original_weight` is less, as the improvement cannot be measured.
        tolerance: The smallest number of steps whose mean AUPRC lies within this of the best is used, as each
            step moves the model further from the original.
        max_healthy: Maximum number of healthy subjects.
        seed: Random seed.
    """

    tuning: TuningConfig = TuningConfig()
    rehearsal: RehearsalConfig = RehearsalConfig()
    max_folds: int = Field(default=10, ge=2)
    steps_one_subject: int = Field(default=100, ge=1)
    original_weight_one_subject: float = Field(default=0.75, ge=0, lt=1)
    tolerance: float = Field(default=0.005, ge=0, lt=1)
    max_healthy: int = Field(default=6, ge=0)
    seed: int = 0

    @property
    def rehearses(self) -> bool:
        """Whether virtual patients are asked for."""
        return self.rehearsal.patients > 0 and self.tuning.rehearsed_fraction > 0

    def model_post_init(self, _: Any, /) -> None:
        """Check that the steps for one subject are among those that a run may have."""
        if self.steps_one_subject % self.tuning.loop.validate_every:
            raise ValueError("tuning.loop.validate_every must divide steps_one_subject")


def inherit_settings(config: AdaptConfig, bundle: Bundle) -> AdaptConfig:
    """Return the settings, with anomalies and loss inherited from the training of the model where they are unset.

    Other anomalies would teach the model that what it marks is healthy. Without stated settings the defaults stay.
    """
    stages = [bundle.training[stage] for stage in STAGES if stage in bundle.training]
    learned: dict[str, Any] = _without_folders(stages[0].get("config", {})) if stages else {}
    kinds: dict[str, type[Config]] = {"anomaly": AnomalySpec, "loss": LossConfig}
    inherited = {
        key: parse_config(kind, learned[key], where=bundle.where)
        for key, kind in kinds.items()
        if key in learned and key not in config.tuning.model_fields_set
    }
    return config.model_copy(update={"tuning": config.tuning.model_copy(update=inherited)})


def _without_folders(settings: Any) -> Any:
    """Return settings without the user's own lesion masks, which are not where the model is."""
    if isinstance(settings, dict):
        return {key: _without_folders(value) for key, value in settings.items() if key != _FOLDER}
    return [_without_folders(one) for one in settings] if isinstance(settings, list) else settings
