"""Settings of an adaptation."""

from typing import Any

from pydantic import Field

from halebrain.core.config import Config
from halebrain.training.adaptation import TuningConfig


class RehearsalConfig(Config):
    """The virtual patients that are shown again while a model is adapted.

    Args:
        patients: Of each virtual disease that the model learned from; 0 = no rehearsal.
        healthy: Healthy virtual brains beside them.
        slices: Slices that are shown of all of them together.
    """

    patients: int = Field(default=2, ge=0)
    healthy: int = Field(default=4, ge=0)
    slices: int = Field(default=768, ge=1)


class AdaptConfig(Config):
    """Everything that defines an adaptation, beside the model and the scans.

    Args:
        tuning: How the segmenter is fine-tuned.
        rehearsal: Virtual patients that are shown again, so that what nobody annotated stays.
        max_folds: Most groups of subjects that are left out in turn: up to so many subjects, each by itself.
        steps_one_subject: Steps with one annotated subject, where none can be left out. Few on purpose: slices of one
            head are too alike to say when to stop.
        kept_one_subject: Share of the model's own weights with one annotated subject, where `tuning.kept` is less:
            where nobody can say whether it gained, it moves less.
        tolerance: Of the numbers of steps whose mean AUPRC lies within this of the best, the smallest is taken: each
            step more moves the model further from what it knew.
        max_healthy: Most healthy subjects that are used.
        seed: Seed of everything that is drawn.
    """

    tuning: TuningConfig = TuningConfig()
    rehearsal: RehearsalConfig = RehearsalConfig()
    max_folds: int = Field(default=10, ge=2)
    steps_one_subject: int = Field(default=100, ge=1)
    kept_one_subject: float = Field(default=0.75, ge=0, lt=1)
    tolerance: float = Field(default=0.005, ge=0, lt=1)
    max_healthy: int = Field(default=6, ge=0)
    seed: int = 0

    @property
    def kept_unseen(self) -> float:
        """Share of the model's own weights where no subject could be left out."""
        return max(self.kept_one_subject, self.tuning.kept)

    @property
    def rehearses(self) -> bool:
        """Whether virtual patients are asked for."""
        return self.rehearsal.patients > 0 and self.tuning.rehearsed_fraction > 0

    def model_post_init(self, _: Any, /) -> None:
        """Check that the steps for one subject are among those that a run may have."""
        if self.steps_one_subject % self.tuning.loop.validate_every:
            raise ValueError("tuning.loop.validate_every must divide steps_one_subject")
