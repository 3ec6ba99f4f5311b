"""Interface of the reconstructors, so that training and inference do not depend on the method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import nn

from halebrain.core.config import Config, parse_config
from halebrain.core.registry import Registry

Level = int | None
"""How strongly a reconstructor may alter the input; `None` for those that have no such choice."""


class ReconstructorSpec(Config):
    """Which reconstructor, and its settings.

    Args:
        name: Name of the reconstructor.
        settings: Its settings, checked by its own class.
    """

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


Corruption = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Puts synthetic anomalies into healthy slices `(b, 1, h, w)` in [0, 1], for reconstructors that learn to undo them."""


@runtime_checkable
class HoleFiller(Protocol):
    """A reconstructor that also gives back what lies in a hole from the surroundings of the hole."""

    def fill(self, image: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        """Return the slices with what a healthy brain would show in the holes, in [0, 1]; the rest to the bit.

        Args:
            image: Slices in [0, 1], `(b, 1, h, w)`.
            hole: What is cut out, bool, same shape.
        """
        ...


class Reconstructor(nn.Module, ABC):
    """Gives back a healthy version of a slice, having seen healthy slices only.

    A subclass names its settings class in `Settings`; the constructor takes one instance of it and nothing else, so
    a model can be rebuilt from its saved configuration.
    """

    Settings: ClassVar[type[Config]]
    reference: ClassVar[str] = ""
    """The paper that the method comes from, as a line of a list of references; "" where there is none."""
    needs_corruption: bool = False
    """Whether training needs synthetic anomalies to undo."""
    gives_image: ClassVar[bool] = True
    """Whether `reconstruct` gives a picture; a method that compares features has an `anomaly_map` alone."""

    def prepare(self) -> str:
        """Bring in what training starts from, once, before it; return a hash of it, "" where there is nothing.

        Loading a saved model never needs it: whatever was brought in is in the model.
        """
        return ""

    def _given(self, image: torch.Tensor, generator: torch.Generator, corrupt: Corruption | None) -> torch.Tensor:
        """Return what the network sees of healthy slices in training: with anomalies where `needs_corruption`."""
        if not self.needs_corruption:
            return image
        if corrupt is None:
            raise ValueError(f"{type(self).__name__.lower()} needs corrupted slices for training: give corrupt")
        return corrupt(image, generator)

    @abstractmethod
    def loss(
        self, image: torch.Tensor, *, generator: torch.Generator, corrupt: Corruption | None = None
    ) -> torch.Tensor:
        """Return the training loss, a scalar.

        Args:
            image: Healthy slices in [0, 1], `(b, 1, h, w)`.
            generator: All randomness comes from it.
            corrupt: Given where `needs_corruption`; others leave it alone.
        """

    @abstractmethod
    def reconstruct(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return pseudo-healthy slices in [0, 1], the shape of `image` `(b, 1, h, w)`.

        Args:
            image: Slices in [0, 1].
            level: One of `levels`, or another valid level.
            seeds: One int64 seed a slice, `(b,)`; a slice's result depends on its own seed alone.
        """

    def reconstruct_each(self, image: torch.Tensor, *, levels: Sequence[Level], seeds: torch.Tensor) -> torch.Tensor:
        """Return what `reconstruct` gives of each slice at its own level, float32; arguments as there."""
        found = torch.zeros(image.shape, device=image.device)
        for level in dict.fromkeys(levels):
            rows = [n for n, own in enumerate(levels) if own == level]
            found[rows] = self.reconstruct(image[rows], level=level, seeds=seeds[rows]).float()
        return found

    def second_pass(self, image: torch.Tensor, probability: torch.Tensor) -> torch.Tensor | None:
        """Return pseudo-healthy slices that take into account what the model's segmenter found in a first pass.

        `None` where there is no second pass, as with most methods: then `reconstruct` is all.

        Args:
            image: Slices in [0, 1], `(b, 1, h, w)`.
            probability: That of the segmenter, mean over levels and draws, same shape.
        """
        return None

    def anomaly_map(self, image: torch.Tensor, *, level: Level, seeds: torch.Tensor) -> torch.Tensor:
        """Return the method's own anomaly map in [0, 1], `(b, 1, h, w)`, higher = more anomalous.

        Asked only of methods that give no image; for others the residual of slice and reconstruction is the map.
        """
        raise TypeError(f"{type(self).__name__} has no own anomaly map: its residual is the map")

    @property
    @abstractmethod
    def levels(self) -> tuple[Level, ...]:
        """The levels over which inference averages; `(None,)` where there is no such choice."""

    @abstractmethod
    def random_level(self, generator: torch.Generator) -> Level:
        """Draw the level at which stage 2 sees a slice."""


class OneLevelReconstructor(Reconstructor):
    """A reconstructor without a choice of level."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """There is no choice of level."""
        return (None,)

    def random_level(self, generator: torch.Generator) -> Level:
        """Return the one level there is."""
        return None


RECONSTRUCTORS: Registry[type[Reconstructor]] = Registry("reconstructor")


def build_reconstructor(name: str, settings: dict[str, Any], *, where: object = "") -> Reconstructor:
    """Build the reconstructor registered as `name` from a plain mapping of its settings."""
    kind = RECONSTRUCTORS.get(name)
    return kind(parse_config(kind.Settings, settings, where=where))
