"""Settings of an adaptation."""

from typing import Any

from pydantic import Field

from halebrain.core.config import Config
from halebrain.training.adaptation import TuningConfig


class AdaptConfig(Config):
    """Everything that defines an adaptation, beside the model and the scans.

    Args:
        tuning: How the segmenter is fine-tuned.
        max_folds: Most groups of subjects that are left out in turn: up to so many subjects, each by itself.
        steps_one_subject: Steps with one annotated subject, where none can be left out. Few on purpose: slices of one
            head are too alike to say when to stop.
        tolerance: Of the numbers of steps whose mean AUPRC lies within this of the best, the smallest is taken: each
            step more moves the model further from what it knew.
        max_healthy: Most healthy subjects that are used.
        seed: Seed of everything that is drawn.
    """

    tuning: TuningConfig = TuningConfig()
    max_folds: int = Field(default=10, ge=2)
    steps_one_subject: int = Field(default=100, ge=1)
    tolerance: float = Field(default=0.005, ge=0, lt=1)
    max_healthy: int = Field(default=6, ge=0)
    seed: int = 0

    def model_post_init(self, _: Any, /) -> None:
        """Check that the steps for one subject are among those that a run may have."""
        if self.steps_one_subject % self.tuning.loop.validate_every:
            raise ValueError("tuning.loop.validate_every must divide steps_one_subject")
