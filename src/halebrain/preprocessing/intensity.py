"""Intensities to [0, 1] between two percentiles inside the brain, and back."""

from dataclasses import dataclass

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.types import FloatArray, MaskArray


@dataclass(frozen=True)
class IntensityRange:
    """The intensities that became 0 and 1.

    Args:
        low: Intensity of 0, above `offset`.
        high: Intensity of 1, above `offset`.
        offset: What was subtracted from the scan before, where it had negative intensities.
    """

    low: float
    high: float
    offset: float = 0.0


def scale_intensity(
    image: FloatArray, brain_mask: MaskArray, *, low_percentile: float, high_percentile: float
) -> tuple[FloatArray, IntensityRange]:
    """Return the image scaled to [0, 1] inside the brain, clipped, 0 outside; with the range that undoes it.

    Percentiles are taken inside the brain mask, after all resampling, so nothing leaves [0, 1] afterwards.

    Raises:
        DataError: The intensities inside the brain do not vary.
    """
    inside = image[brain_mask]
    low, high = (float(v) for v in np.percentile(inside, [low_percentile, high_percentile]))
    if not high > low:
        raise DataError(
            "intensities inside the brain must vary",
            received=f"{low:g} at both percentiles",
            remedy="check the scan and its brain mask",
        )
    scaled = np.clip((image - low) / (high - low), 0, 1)
    return np.where(brain_mask, scaled, 0).astype(np.float32), IntensityRange(low, high)
