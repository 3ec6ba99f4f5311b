"""What every brain extractor promises: a mask, and how far it is to be trusted."""

from collections.abc import Callable
from dataclasses import dataclass

from halebrain.core.registry import Registry
from halebrain.core.types import Affine, MaskArray, Volume


@dataclass(frozen=True)
class BrainMask:
    """Where the brain is.

    Args:
        mask: Bool, on the grid of the scan.
        method: How it was found.
        confidence: From 0 (a guess) to 1 (sure).
        volume_ml: Volume of the mask.
        template_to_native: World-to-world matrix, mm, RAS, close to where registration will end; `None` = not known.
    """

    mask: MaskArray
    method: str
    confidence: float
    volume_ml: float
    template_to_native: Affine | None = None


BrainExtractor = Callable[[Volume], BrainMask]
BRAIN_EXTRACTORS: Registry[BrainExtractor] = Registry("brain extractor")


def volume_ml(mask: MaskArray, volume: Volume) -> float:
    """Return the volume of a mask on the grid of `volume`, in ml."""
    x, y, z = volume.spacing_mm
    return float(mask.sum()) * x * y * z / 1000
