"""Cross-validation of an adaptation: left-out groups, runs without them, and the best number of steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch

from halebrain.core.files import write_bytes
from halebrain.training.loop import Weights


def assign_folds(annotated: Sequence[str], healthy: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """Return the at most `most` groups of subjects left out in turn, each with an annotated one; none for a single one.

    Each subject is in one group, also one with healthy and annotated scans.

    Example:
        >>> assign_folds(["a", "b", "c"], ["h"], 2)
        [('a', 'c', 'h'), ('b',)]
    """
    count = min(len(annotated), most)
    if count < 2:
        return []
    healthy = [subject for subject in healthy if subject not in annotated]
    return [(*annotated[fold::count], *healthy[fold::count]) for fold in range(count)]


@dataclass(frozen=True)
class Snapshots:
    """The weights of one run on disk after some numbers of steps, ascending."""

    folder: Path
    steps: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether all are there."""
        return all(self._path(step).is_file() for step in self.steps)

    def save(self, step: int, weights: Weights) -> None:
        """Keep the weights after `step` steps."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        write_bytes(self._path(step), safetensors.torch.save(tensors))

    def load(self, step: int) -> Weights:
        """Return the weights after `step` steps."""
        weights: Weights = safetensors.torch.load(self._path(step).read_bytes())
        return weights

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:05d}.safetensors"


@dataclass(frozen=True)
class StepChoice:
    """How many steps to take (0 = none), of the numbers in `tried`, ascending from 0.

    `auprc` is the mean over left-out subjects for each; empty where none could be left out.
    """

    steps: int
    tried: tuple[int, ...] = ()
    auprc: tuple[float, ...] = ()


def choose_steps(tried: Sequence[int], auprc: dict[str, list[list[float]]], tolerance: float) -> StepChoice:
    """Return the smallest number of steps whose mean AUPRC over subjects lies within `tolerance` of the best.

    `tried` ascends; `auprc` has, for each left-out subject, one list a scan with a value for each number of steps.
    """
    means = np.mean([np.mean(scans, axis=0) for scans in auprc.values()], axis=0)
    first = int(np.flatnonzero(means >= means.max() - tolerance)[0])
    return StepChoice(tried[first], tuple(tried), tuple(float(v) for v in means))
