"""Slice samplers: every slice once per epoch, or all slices of a batch from one height of the brain.

As with `SliceSampler`, a batch is a function of (seed, stream, step) alone, and the steps before it need not be taken.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from halebrain.core.errors import DataError
from halebrain.core.random import make_generator
from halebrain.data.slices import Sampling, SliceBatch, SliceSampler, SliceStore


class Sampler(Protocol):
    """Whatever gives the batch of a step."""

    def batch(self, step: int) -> SliceBatch:
        """Return the batch of one step; the same step gives the same batch."""
        ...


def build_sampler(sampling: Sampling, store: SliceStore, batch_size: int, seed: int, stream: str) -> Sampler:
    """Return the sampler of a kind.

    Args:
        sampling: "random", "all" or "level", as `DataConfig.sampling` has it.
        store: Where from; "level" needs one that was opened with levels.
        batch_size: Slices in a batch.
        seed: The user's seed.
        stream: What the batches are for; other streams draw other slices.
    """
    if sampling == "all":
        return EpochSampler(store, batch_size, seed, stream)
    if sampling == "level":
        return LevelSampler(store, batch_size, seed, stream)
    return SliceSampler(store, batch_size, seed, stream)


@dataclass(frozen=True)
class EpochSampler:
    """Visits every slice once an epoch, in an order of the epoch's own; epochs follow each other without a gap.

    Args:
        store: Where from.
        batch_size: Slices in a batch; one that an epoch's end falls into goes on with the next epoch.
        seed: The user's seed.
        stream: What the batches are for.
    """

    store: SliceStore
    batch_size: int
    seed: int
    stream: str

    @cached_property
    def _first(self) -> npt.NDArray[np.int64]:
        """Where each scan's slices begin in the count of all, `(scans + 1,)`; its last is how many there are."""
        return np.cumsum([0, *(len(images) for images in self.store.images)], dtype=np.int64)

    def batch(self, step: int) -> SliceBatch:
        """Return the batch of one step; the same step gives the same batch."""
        total = int(self._first[-1])
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        chosen = np.array([_order(total, self.seed, self.stream, n // total)[n % total] for n in places])
        scans = np.searchsorted(self._first, chosen, side="right") - 1
        return self.store.read(scans.tolist(), (chosen - self._first[scans]).tolist())


@lru_cache(maxsize=4)
def _order(total: int, seed: int, stream: str, epoch: int) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = torch.randperm(total, generator=make_generator(seed, stream, "epoch", epoch)).numpy()
    return order


@dataclass(frozen=True)
class LevelSampler:
    """Draws batches of one height: a scan uniformly, one of its slices, then scans that have a slice at that height.

    For methods that compare slices of different heads at the same place.

    Args:
        store: Where from, opened with levels.
        batch_size: Slices in a batch; a scan comes twice only where too few scans reach the height.
        seed: The user's seed.
        stream: What the batches are for.

    Raises:
        DataError: The store has no levels.
    """

    store: SliceStore
    batch_size: int
    seed: int
    stream: str

    def __post_init__(self) -> None:
        if len(self.store.levels) != len(self.store):
            raise DataError(
                "slices drawn by level need a store with levels", remedy="open the store with with_levels=True"
            )

    def level(self, step: int) -> int:
        """Return the height of one step's slices on the working grid, in voxels."""
        return self._draw(step)[0]

    def batch(self, step: int) -> SliceBatch:
        """Return the batch of one step; the same step gives the same batch."""
        level, generator = self._draw(step)
        have = np.array([n for n, levels in enumerate(self.store.levels) if level in levels])
        rounds = -(-self.batch_size // len(have))
        turns = [torch.randperm(len(have), generator=generator) for _ in range(rounds)]
        scans = have[torch.cat(turns)[: self.batch_size].numpy()].tolist()
        return self.store.read(scans, [int(np.searchsorted(self.store.levels[s], level)) for s in scans])

    def _draw(self, step: int) -> tuple[int, torch.Generator]:
        generator = make_generator(self.seed, self.stream, "level", step)
        scan = int(torch.randint(len(self.store), (1,), generator=generator))
        levels = self.store.levels[scan]
        return int(levels[int(torch.randint(len(levels), (1,), generator=generator))]), generator
