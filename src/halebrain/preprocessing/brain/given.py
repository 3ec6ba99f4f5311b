"""The brain mask that the user gives."""

from halebrain.core.errors import DataError
from halebrain.core.types import MaskArray, Volume
from halebrain.preprocessing.brain.base import BrainMask, volume_ml

_PLAUSIBLE_ML = (200.0, 2500.0)


def from_given_mask(volume: Volume, mask: MaskArray) -> BrainMask:
    """Use the mask unchanged, and refuse only masks that cannot be a brain.

    Raises:
        DataError: The mask is on another grid, or its volume is outside 0.2–2.5 litres.
    """
    if mask.shape != volume.shape:
        raise DataError(
            f"a brain mask must have the shape of its scan {volume.shape}",
            received=mask.shape,
            where=volume.name,
            remedy="resample the mask to the scan",
        )
    size = volume_ml(mask, volume)
    if not _PLAUSIBLE_ML[0] <= size <= _PLAUSIBLE_ML[1]:
        raise DataError(
            "a brain mask must hold 200 to 2500 ml",
            received=f"{size:.0f} ml",
            where=volume.name,
            remedy="check that it is a brain mask",
        )
    return BrainMask(mask, "given", 1.0, size)
