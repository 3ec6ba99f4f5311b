"""Settings of the optimisation of a stage."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from halebrain.core.config import GrowingConfig

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


class LoopConfig(GrowingConfig):
    """Settings of the optimisation.

    Args:
        steps: Optimiser steps.
        batch_size: Slices a step, on all devices together.
        micro_batches: Equal parts of the slices of a step, drawn and learned one by one, which needs less memory, or
            on several devices; whose gradients are averaged. The result depends on this number, and not on the number
            of devices, which must divide it.
        lr: Learning rate of Adam (AdamW where `weight_decay` > 0).
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps of linear warm-up.
        lr_schedule: "constant" as in the paper, or "cosine" down to 1 % of `lr`.
        clip_norm: Largest gradient norm; larger ones are scaled down. `None` = any.
        ema_decay: Decay of the moving average of the weights; the average is what is validated and kept.
        precision: A Fabric precision; "auto" = bf16-mixed where the device computes in it, else 32-true.
        validate_every: Steps between validations.
        validation_batches: Batches of a validation, the same ones each time.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between rows of the log.
        compile: Compile the trained network by `torch.compile`, where a compiler is. A minute before the first step;
            worth it in long runs on a GPU.
        keep: "best" validation loss (as in the paper) or "last" weights.
    """

    ADDED_FIELDS: ClassVar[frozenset[str]] = frozenset({"micro_batches", "compile"})

    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    micro_batches: int = Field(default=1, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float | None = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Precision = "auto"
    validate_every: int = Field(default=500, ge=1)
    validation_batches: int = Field(default=8, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    compile: bool = False
    keep: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _has_equal_parts(self) -> "LoopConfig":
        if self.batch_size % self.micro_batches:
            raise ValueError(f"micro_batches must divide batch_size, which is {self.batch_size}")
        return self

    @property
    def micro_batch_size(self) -> int:
        """Slices that are drawn and learned at once."""
        return self.batch_size // self.micro_batches
