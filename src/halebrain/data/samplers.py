"""Slice samplers: any slice, every slice once per epoch, or all slices of a batch from one height of the brain.

A batch is a function of (seed, stream, step) alone, and the steps before it need not be taken.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch

from halebrain.core.errors import DataError
from halebrain.core.random import make_generator
from halebrain.data.slices import Sampling, SliceBatch, SliceStore


@dataclass(frozen=True)
class Sampler(ABC):
    """Gives the batch of a step; `stream` is what it is for ("train", "val"), and other streams draw other slices."""

    store: SliceStore
    batch_size: int
    seed: int
    stream: str

    @abstractmethod
    def batch(self, step: int) -> SliceBatch:
        """Return the batch of one step; the same step gives the same batch."""


def build_sampler(sampling: Sampling, store: SliceStore, batch_size: int, seed: int, stream: str) -> Sampler:
    """Return the sampler of a kind, as `DataConfig.sampling` has it; see `Sampler`."""
    kinds: dict[Sampling, type[Sampler]] = {"random": SliceSampler, "all": EpochSampler, "level": LevelSampler}
    return kinds[sampling](store, batch_size, seed, stream)


def choose_slice(draw: Sequence[float], with_lesion: npt.NDArray[np.int64], count: int, lesion_fraction: float) -> int:
    """Return one of a scan's `count` slices by two draws from [0, 1): whether it must show lesion, and which it is."""
    kind, place = draw
    if kind < lesion_fraction and len(with_lesion):
        return int(with_lesion[int(place * len(with_lesion))])
    return int(place * count)


@dataclass(frozen=True)
class SliceSampler(Sampler):
    """Draws a scan uniformly, then one of its slices; `lesion_fraction` of the draws only slices with lesion."""

    lesion_fraction: float = 0.0

    def batch(self, step: int) -> SliceBatch:
        """Return the batch of one step."""
        generator = make_generator(self.seed, self.stream, "slices", step)
        scans = torch.randint(len(self.store), (self.batch_size,), generator=generator).tolist()
        draws = torch.rand(self.batch_size, 2, generator=generator).tolist()
        store, fraction = self.store, self.lesion_fraction
        positions = [
            choose_slice(own, store.lesion_slices[scan], len(store.images[scan]), fraction)
            for scan, own in zip(scans, draws, strict=True)
        ]
        return store.read(scans, positions)


@dataclass(frozen=True)
class EpochSampler(Sampler):
    """Visits every slice once an epoch, in an order of the epoch's own; epochs follow each other without a gap."""

    @cached_property
    def _first(self) -> npt.NDArray[np.int64]:
        """Where each scan's slices begin in the count of all, `(scans + 1,)`; its last is how many there are."""
        return np.cumsum([0, *(len(images) for images in self.store.images)], dtype=np.int64)

    def batch(self, step: int) -> SliceBatch:
        """Return the batch of one step; one that an epoch's end falls into goes on with the next epoch."""
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
class LevelSampler(Sampler):
    """Draws batches of one height: a scan uniformly, one of its slices, then scans that have a slice at that height.

    For methods that compare slices of different heads at the same place; the store must have levels. A scan comes twice
    only where too few scans reach the height.
    """

    def __post_init__(self) -> None:
        if len(self.store.levels) != len(self.store):
            raise DataError(
                "slices drawn by level need a store with levels", remedy="open the store with with_levels=True"
            )

    def batch(self, step: int) -> SliceBatch:
        """Return the batch of one step."""
        generator = make_generator(self.seed, self.stream, "level", step)
        levels = self.store.levels[int(torch.randint(len(self.store), (1,), generator=generator))]
        level = int(levels[int(torch.randint(len(levels), (1,), generator=generator))])
        have = np.array([n for n, levels in enumerate(self.store.levels) if level in levels])
        rounds = -(-self.batch_size // len(have))
        turns = [torch.randperm(len(have), generator=generator) for _ in range(rounds)]
        scans = have[torch.cat(turns)[: self.batch_size].numpy()].tolist()
        return self.store.read(scans, [int(np.searchsorted(self.store.levels[s], level)) for s in scans])
