"""Interface of the synthetic anomalies: drawing parameters and applying them are separate steps."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import Field

from halebrain.core.config import Config, parse_config
from halebrain.core.registry import Registry
from halebrain.data.anomalies.shapes import drawn, put_in

Params = dict[str, Any]
"""The drawn parameters of one anomaly; JSON-able, so that it can be recorded and drawn again."""


class AnomalySpec(Config):
    """Which anomaly generator, and its settings.

    Args:
        name: Name of the generator.
        settings: Its settings, checked by its own class.
    """

    name: str = "perlin"
    settings: dict[str, Any] = Field(default_factory=dict)


class AnomalySettings(Config):
    """Settings that most generators have.

    Args:
        probability: Share of slices that get an anomaly.
    """

    probability: float = Field(default=0.5, ge=0, le=1)


class AnomalyGenerator(ABC):
    """Puts an anomaly into healthy slices and returns its exact mask.

    A subclass names its settings class in `Settings`, and types `settings` so.

    Args:
        settings: An instance of `Settings`.
    """

    Settings: ClassVar[type[Config]]
    settings: Config
    displaces_tissue: bool = False
    """Whether tissue around the anomaly moves too, which the mask leaves out."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def files_sha256(self) -> str:
        """Return a hash of the files that anomalies are made from; "" where settings say all."""
        return ""

    @abstractmethod
    def sample_params(self, count: int, *, generator: torch.Generator) -> list[Params]:
        """Draw the parameters of `count` anomalies."""

    def apply(
        self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the altered slices and the lesion mask; pure, same inputs give the same result.

        Args:
            image: Healthy slices in [0, 1], `(b, 1, h, w)`.
            brain_mask: Where an anomaly may be, bool, same shape.
            params: One entry a slice, from `sample_params`.

        Returns:
            Slices in [0, 1] and a bool mask, both `(b, 1, h, w)`. The mask lies inside the brain, and only where
            the image has changed; without `displaces_tissue`, everywhere it has changed.
        """
        return put_in(image, self._altered(image, brain_mask, params), brain_mask, drawn(params, "present"))

    def _altered(self, image: torch.Tensor, brain_mask: torch.Tensor, params: list[Params]) -> torch.Tensor:
        """Return the slices with their anomalies, also outside the brain and of those that get none; a subclass does.

        One that knows its mask itself overrides `apply` instead.
        """
        raise NotImplementedError


ANOMALIES: Registry[type[AnomalyGenerator]] = Registry("anomaly")


def build_anomaly(spec: AnomalySpec) -> AnomalyGenerator:
    """Build the generator that `spec` names."""
    kind = ANOMALIES.get(spec.name)
    return kind(parse_config(kind.Settings, spec.settings, where="anomaly"))
