"""The training loop, flat, on Lightning Fabric: devices, precision, EMA, clipping, log, checkpoint, exact resume.

A stage gives `loss(step)` for training and `validation_loss()`; nothing here knows what is learned. What a step draws
depends on the seed and the step alone, so a run that was killed continues to the very weights of one that was not.
"""

import csv
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from pydantic import Field
from torch import nn
from torch.optim.swa_utils import AveragedModel

from halebrain.core.atomic import atomic_path
from halebrain.core.config import Config
from halebrain.core.errors import ConfigError
from halebrain.core.progress import ProgressBar
from halebrain.training.ahead import Draw, Drawn, draw_ahead, told_of_lost_processes

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
_COLUMNS = ("step", "loss", "val_loss", "lr", "gradient_norm", "seconds")
Weights = dict[str, torch.Tensor]
"""State of a network by name."""


class LoopConfig(Config):
    """How long and how fast to learn.

    Args:
        steps: Optimiser steps.
        batch_size: Slices a step, on each device.
        lr: Learning rate of Adam (AdamW where `weight_decay` > 0).
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps of linear warm-up.
        lr_schedule: "constant" as in the paper, or "cosine" down to 1 % of `lr`.
        clip_norm: Largest gradient norm; larger ones are scaled down.
        ema_decay: Decay of the moving average of the weights; the average is what is validated and kept.
        precision: A Fabric precision; "auto" = bf16-mixed where the device computes in it, else 32-true.
        validate_every: Steps between validations.
        validation_batches: Batches of a validation, the same ones each time.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between rows of the log.
        keep: "best" validation loss (as in the paper) or "last" weights.
    """

    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    precision: Precision = "auto"
    validate_every: int = Field(default=500, ge=1)
    validation_batches: int = Field(default=8, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    keep: Literal["best", "last"] = "best"


class Stage(nn.Module):
    """What the loop trains.

    A subclass's `forward` returns the loss of one step's own batch; the network in `trained` learns, everything else
    in the stage is frozen.
    """

    trained: nn.Module
    draw: Draw | None = None
    """Draws what a batch needs before any network sees it; `None` where that cannot be told apart."""

    def forward(self, split: str, step: int, drawn: Drawn | None = None) -> torch.Tensor:
        """Return the loss, a scalar, of batch `step` of `split` ("train" or "val").

        Args:
            split: Which batches.
            step: Which of them.
            drawn: What `draw(split, step)` gives, where another process drew it already.
        """
        raise TypeError(f"{type(self).__name__} must say how its loss is computed")


@dataclass(frozen=True)
class TrainingResult:
    """What a run ends with.

    Args:
        weights: State of the trained network: the moving average, at the step that `keep` chose.
        step: That step.
        validation_loss: Its validation loss; NaN where none was computed.
        seconds: Wall-clock time of all runs together.
    """

    weights: dict[str, torch.Tensor]
    step: int
    validation_loss: float
    seconds: float


def train(
    stage: Stage,
    config: LoopConfig,
    folder: Path,
    *,
    fabric: Fabric,
    name: str,
    identity: str = "",
    workers: int = 0,
    on_validated: Callable[[int, Weights], None] | None = None,
) -> TrainingResult:
    """Train `stage.trained`, continuing from the checkpoint in `folder` where there is one.

    Args:
        stage: What to train; it is set up on the fabric's device here.
        config: How long and how fast.
        folder: Where the checkpoint and the log go.
        fabric: Launched.
        name: What the progress bar calls the run.
        identity: Hash of everything else that the run depends on (data, networks, seed); kept in the checkpoint.
        workers: Processes that draw training batches ahead; 0 = this one draws each when its turn comes.
        on_validated: Called after each validation with the step and the averaged weights, which go on to change. A
            validation after the last checkpoint comes again when the run is resumed.

    Raises:
        ConfigError: The checkpoint belongs to a run with another configuration, or on other data; or the gradients
            became infinite or no numbers, and nothing is saved of them.
        WorkerError: A process that draws batches died.
    """
    average = AveragedModel(stage.trained, use_buffers=True)
    average.to(fabric.device).requires_grad_(False)
    average.n_averaged = average.n_averaged.cpu()  # to count on a GPU would mean to wait for it
    parameters = [p for p in stage.trained.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    trained = stage.trained
    model, optimizer = fabric.setup(stage, optimizer)
    run = _Run(trained, average, optimizer, config, folder, fabric, identity)
    run.restore()

    log, told = _Log(folder / LOG, first_step=run.step), ""
    batches = draw_ahead(
        stage.draw, range(run.step, config.steps), workers=workers, pinned=fabric.device.type == "cuda"
    )
    with (
        ProgressBar(name, config.steps, completed=run.step) as bar,
        _SignalWatch() as watch,
        told_of_lost_processes(),
        closing(batches),
    ):
        try:
            for drawn in batches:
                _set_lr(optimizer, config, run.step)
                loss = model("train", run.step, drawn)
                fabric.backward(loss)
                norm = fabric.clip_gradients(trained, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                _update(average, trained, config.ema_decay)
                run.step += 1

                validated, at_end = math.nan, run.step == config.steps
                logs, saves = run.step % config.log_every == 0, run.step % config.checkpoint_every == 0
                validates = run.step % config.validate_every == 0 or at_end
                # To read a number is to wait for the device, which at each step would leave it idle half of the time.
                if logs or saves or validates or watch.asked_to_stop:
                    _check_finite(norm, config)
                    told = f"loss {float(loss.detach()):.4f}"
                if validates:
                    validated = _validate(stage, run, config)
                    if on_validated is not None:
                        on_validated(run.step, run.average.module.state_dict())
                if logs or not math.isnan(validated):
                    log.row(run.step, float(loss.detach()), validated, _lr(optimizer), _float(norm), run.seconds())
                if saves or at_end:
                    run.save()
                bar.advance(told)
                if watch.asked_to_stop:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            if run.is_finite():
                run.save()
            raise
    return run.result()


class _Run:
    """The state that a checkpoint holds, and how it is saved and restored."""

    def __init__(
        self,
        trained: nn.Module,
        average: AveragedModel,
        optimizer: torch.optim.Optimizer,
        config: LoopConfig,
        folder: Path,
        fabric: Fabric,
        identity: str,
    ) -> None:
        self.identity = identity
        self.trained, self.average, self.optimizer = trained, average, optimizer
        self.config, self.path, self.fabric = config, folder / CHECKPOINT, fabric
        self.step, self.best_step, self.best_loss = 0, 0, math.nan
        self.best_weights: dict[str, torch.Tensor] = {}
        self.seconds: Callable[[], float] = _stopwatch(0.0)

    def restore(self) -> None:
        """Load the checkpoint, where there is one."""
        if not self.path.exists():
            return
        state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["config"] != self.config.model_dump(mode="json"):
            changed = [k for k, v in self.config.model_dump(mode="json").items() if state["config"].get(k) != v]
            raise ConfigError(
                "a run is resumed with the settings that it began with",
                received=f"another {', '.join(changed)}",
                where=self.path,
                remedy="restore them, or start anew with --overwrite",
            )
        if state["identity"] != self.identity:
            raise ConfigError(
                "a run is resumed on the data and with the settings that it began with",
                received="another manifest, seed, network, augmentation or reconstructor",
                where=self.path,
                remedy="restore them, choose another folder, or start anew with --overwrite",
            )
        self.trained.load_state_dict(state["trained"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.best_step = state["step"], state["best_step"]
        self.best_loss, self.best_weights = state["best_loss"], state["best_weights"]
        self.seconds = _stopwatch(state["seconds"])

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, from the first process."""
        state = {
            "trained": self.trained.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "precision": self.fabric.strategy.precision.state_dict(),
            "seconds": self.seconds(),
            "config": self.config.model_dump(mode="json"),
            "identity": self.identity,
        }
        if self.fabric.is_global_zero:
            with atomic_path(self.path) as temporary:
                torch.save(state, temporary)
        self.fabric.barrier()

    def is_finite(self) -> bool:
        """Return whether the weights are numbers still: a checkpoint of others would be no use."""
        return all(bool(torch.isfinite(weight).all()) for weight in self.trained.parameters())

    def keep_if_better(self, loss: float) -> None:
        """Remember the averaged weights where `loss` is the lowest so far (or the last, if so configured)."""
        if self.config.keep == "last" or math.isnan(self.best_loss) or loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.step
            weights = self.average.module.state_dict()
            self.best_weights = {k: v.detach().cpu().clone() for k, v in weights.items()}

    def result(self) -> TrainingResult:
        """Return what the run ends with."""
        return TrainingResult(self.best_weights, self.best_step, self.best_loss, self.seconds())


class _SignalWatch:
    """Notes an interrupt or a request to end, so that the loop stops between two steps and never within one."""

    def __init__(self) -> None:
        self.asked_to_stop = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_SignalWatch":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.asked_to_stop = True


class _Log:
    """The CSV log; on a resume, rows after the checkpoint are dropped, as their steps are taken again."""

    def __init__(self, path: Path, *, first_step: int) -> None:
        self.path = path
        kept: list[list[str]] = []
        if path.exists() and first_step > 0:
            with path.open(newline="") as handle:
                kept = [row for row in list(csv.reader(handle))[1:] if row and int(row[0]) <= first_step]
        with atomic_path(path) as temporary, temporary.open("w", newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows([_COLUMNS, *kept])

    def row(self, step: int, *values: float) -> None:
        with self.path.open("a", newline="") as handle:
            texts = ["" if math.isnan(v) else f"{v:.6g}" for v in values]
            csv.writer(handle, lineterminator="\n").writerow([step, *texts])


@torch.no_grad()
def _update(average: AveragedModel, trained: nn.Module, decay: float) -> None:
    """Take a step of the moving average, whose decay grows from 0.1 to `decay`, so that short runs forget their start.

    In one operation for all tensors, where `AveragedModel.update_parameters` has several for each and waits for the
    device.
    """
    count = int(average.n_averaged)
    weight = 1 - min(decay, (1 + count) / (10 + count)) if count else 1.0
    pairs = list(zip(_tensors(average.module), _tensors(trained), strict=True))
    floating = [(old, new.detach()) for old, new in pairs if old.is_floating_point()]
    torch._foreach_lerp_([old for old, _ in floating], [new for _, new in floating], weight)
    for old, new in pairs:
        if not old.is_floating_point():  # counters of batch norm
            old.copy_(new)
    average.n_averaged.fill_(count + 1)


def _validate(stage: Stage, run: _Run, config: LoopConfig) -> float:
    """Return the mean loss of the averaged weights over the validation batches."""
    current, stage.trained = stage.trained, run.average.module
    stage.eval()
    losses = []
    for batch in range(config.validation_batches):
        # What is drawn is drawn in full precision, here as in training.
        drawn = None if stage.draw is None else stage.draw("val", batch)
        with torch.no_grad(), run.fabric.autocast():
            losses.append(float(stage("val", batch, drawn)))
    stage.trained = current
    stage.train()
    loss = sum(losses) / len(losses)
    run.keep_if_better(loss)
    return loss


def _tensors(network: nn.Module) -> Iterator[torch.Tensor]:
    yield from network.parameters()
    yield from network.buffers()


def _check_finite(norm: torch.Tensor | None, config: LoopConfig) -> None:
    # With 16-bit gradients an overflow now and then is normal: the scaler skips that step.
    if config.precision != "16-mixed" and norm is not None and not bool(torch.isfinite(norm)):
        raise ConfigError(
            "gradients must stay finite",
            received=f"a norm of {float(norm)}",
            remedy="a lower loop.lr or a longer loop.warmup_steps, with --overwrite; or look for odd training scans",
        )


def _set_lr(optimizer: torch.optim.Optimizer, config: LoopConfig, step: int) -> None:
    factor = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.lr_schedule == "cosine":
        factor *= 0.01 + 0.99 * (1 + math.cos(math.pi * step / config.steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = config.lr * factor


def _lr(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _float(norm: torch.Tensor | None) -> float:
    return math.nan if norm is None else float(norm)


def _stopwatch(before: float) -> Callable[[], float]:
    start = time.monotonic() - before
    return lambda: time.monotonic() - start
