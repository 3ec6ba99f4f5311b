"""State of a training run: checkpoint, log, and a request to stop."""

import csv
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim.swa_utils import AveragedModel

from halebrain.core.errors import ConfigError
from halebrain.core.files import atomic_path
from halebrain.io.tables import read_table
from halebrain.models.ensemble import present_weight_names
from halebrain.training.loop_config import LoopConfig

CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
_COLUMNS = ("step", "loss", "val_loss", "lr", "gradient_norm", "seconds")


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


class Run:
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
        content: str = "",
    ) -> None:
        self.identity, self.content = identity, content
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
                "a run must be resumed with its original settings",
                received=f"another {', '.join(changed)}",
                where=self.path,
                remedy="restore them, or start again with --overwrite",
            )
        if state["identity"] != self.identity:
            raise ConfigError(
                "a run must be resumed with its original data and settings",
                received="another manifest, seed, network, augmentation, anomalies or reconstructor",
                where=self.path,
                remedy="restore them, choose another folder, or start again with --overwrite",
            )
        # A checkpoint of an earlier version does not state it.
        if state.get("content", self.content) != self.content:
            raise ConfigError(
                "a run must be resumed with its original scans",
                received="other files under the same names, or another space",
                where=self.path,
                remedy="restore them, choose another folder, or start again with --overwrite",
            )
        self.trained.load_state_dict(present_weight_names(state["trained"]))
        self.average.load_state_dict(present_weight_names(state["average"]))
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.step, self.best_step = state["step"], state["best_step"]
        self.best_loss, self.best_weights = state["best_loss"], present_weight_names(state["best_weights"])
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
            "content": self.content,
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


class SignalWatch:
    """Notes an interrupt or a request to end, so that the loop stops between two steps and never within one."""

    def __init__(self) -> None:
        self.asked_to_stop = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        self.asked_to_stop = True


class Log:
    """The CSV log; on a resume, rows after the checkpoint are dropped, as their steps are taken again.

    Of several processes, one `writes`.
    """

    def __init__(self, path: Path, *, first_step: int, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        if not writes:
            return
        kept: list[list[str]] = []
        if path.exists() and first_step > 0:
            rows = read_table(path, what="a log").rows
            kept = [list(row.values()) for row in rows if int(row["step"]) <= first_step]
        with atomic_path(path) as temporary, temporary.open("w", newline="") as handle:
            csv.writer(handle, lineterminator="\n").writerows([_COLUMNS, *kept])

    def row(self, step: int, *values: float) -> None:
        """Append a row: the step and the values of the other columns; NaN leaves a cell empty."""
        if not self.writes:
            return
        with self.path.open("a", newline="") as handle:
            texts = ["" if math.isnan(v) else f"{v:.6g}" for v in values]
            csv.writer(handle, lineterminator="\n").writerow([step, *texts])


def _stopwatch(before: float) -> Callable[[], float]:
    start = time.monotonic() - before
    return lambda: time.monotonic() - start
