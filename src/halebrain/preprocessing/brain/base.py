"""Interface of the brain extractors: a mask with a confidence."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.registry import Registry
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume, voxel_mm3_of


@dataclass(frozen=True)
class BrainMask:
    """Where the brain is.

    Args:
        mask: Bool, on the grid of the scan.
        method: How it was found.
        confidence: From 0 (a guess) to 1 (sure).
        volume_ml: Volume of the mask.
        template_to_native: World-to-world matrix, mm, RAS, close to where registration will end; `None` = not known.
        notes: Remarks on how it was found; they become quality flags.
    """

    mask: MaskArray
    method: str
    confidence: float
    volume_ml: float
    template_to_native: Affine | None = None
    notes: tuple[str, ...] = ()


BrainExtractor = Callable[[Volume], BrainMask]
BRAIN_EXTRACTORS: Registry[BrainExtractor] = Registry("brain extractor")
_PLAUSIBLE_ML = (200.0, 800.0, 2000.0, 2500.0)


def background_of(data: FloatArray) -> float:
    """Return the intensity of the background: the median of the outermost voxels of the first two axes."""
    return float(np.median(np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel()])))


def volume_ml(mask: MaskArray, volume: Volume) -> float:
    """Return the volume of a mask on the grid of `volume`, in ml."""
    return float(mask.sum()) * voxel_mm3_of(volume.affine) / 1000


def plausible_brain(mask: MaskArray, volume: Volume, method: str) -> BrainMask:
    """Return the mask of a learned extractor, trusted fully where its volume is an adult brain's (0.8 to 2 litres).

    Confidence falls to 0 towards 0.2 and 2.5 litres: slabs and children in between keep a mask, and a flag with it.

    Raises:
        DataError: The volume is no brain's.
    """
    size = volume_ml(mask, volume)
    confidence = float(np.interp(size, _PLAUSIBLE_ML, [0.0, 1.0, 1.0, 0.0]))
    if confidence == 0:
        raise DataError(
            "a brain mask must hold 200 to 2500 ml",
            received=f"{size:.0f} ml from {method}",
            where=volume.name,
            remedy="check the scan, or give --brain-mask",
        )
    return BrainMask(mask, method, confidence, size)
