"""A predictor whose networks run in another process, which several workers share."""

from collections.abc import Callable
from typing import Protocol

import torch

from halebrain.core.types import FloatArray, MaskArray
from halebrain.inference.predictor import Predictor, WorkingMaps
from halebrain.preprocessing.pipeline import WorkingScan


class RemoteNetworks(Protocol):
    """The networks of a predictor in another process."""

    def predict_working(self, scan: WorkingScan, contrast: str | None) -> WorkingMaps:
        """As that of `Predictor`."""

    def fill_holes(self, scan: WorkingScan, hole: MaskArray) -> FloatArray | None:
        """As that of `Predictor`."""

    def reconstruct_levels(self, scan: WorkingScan) -> dict[str, FloatArray]:
        """As that of `Predictor`."""


class RemotePredictor(Predictor):
    """A predictor whose networks run in another process; all else is done in this one.

    Args:
        predictor: The same model in this process.
        networks: That of the other process.
        device: Device of the other process.
    """

    def __init__(self, predictor: Predictor, networks: RemoteNetworks, device: str) -> None:
        self.__dict__.update(predictor.__dict__)
        self.networks, self.device = networks, torch.device(device)

    def predict_working(
        self, scan: WorkingScan, contrast: str | None, *, progress: Callable[[], None] | None = None
    ) -> WorkingMaps:
        """Let the other process run both networks; `progress` is called after all passes."""
        maps = self.networks.predict_working(scan, contrast)
        for _ in range(len(self.levels) * self.draws if progress else 0):
            progress()  # type: ignore[misc]
        return maps

    def fill_holes(self, scan: WorkingScan, hole: MaskArray) -> FloatArray | None:
        """Let the other process fill holes."""
        return self.networks.fill_holes(scan, hole)

    def reconstruct_levels(self, scan: WorkingScan) -> dict[str, FloatArray]:
        """Let the other process reconstruct a scan at each level."""
        return self.networks.reconstruct_levels(scan)
