"""Check by intensities that a scan can be an MR image of a brain."""

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.types import MaskArray, Volume
from halebrain.preprocessing.measurements import structure

_AIR_HU = (-1100.0, -850.0)
_AIR_SHARE = 0.05
_SOFT_TISSUE_HU = (-20.0, 120.0)
_SOFT_SHARE = 0.02
_SOFT_SPREAD_HU = 6.0
"""From the 5th to the 95th percentile of soft tissue: grey and white matter, fluid and noise. Stripped CT: 15 and more;
a standardised brain on a background of −1024: 3."""
_LEAST_STRUCTURE = 0.1
"""Correlation of neighbouring voxels. Real scans: 0.7 to 0.98; scans of a signal-to-noise ratio of 2: 0.4; noise: 0."""


def refuse_ct(volume: Volume) -> None:
    """Raise where a scan is in Hounsfield units.

    In CT, air is about −1000 and soft tissue 0 to 100 in every scanner; MR has no such pair of values, be it raw or
    standardised. A standardised brain whose background was set to −1000 or so is none: its values hardly spread.

    Args:
        volume: The scan on its native grid.

    Raises:
        DataError: It looks like CT.
    """
    data = volume.data
    if float(data.min()) > _AIR_HU[1]:
        return
    air = float(np.mean((data >= _AIR_HU[0]) & (data <= _AIR_HU[1])))
    soft = data[(data >= _SOFT_TISSUE_HU[0]) & (data <= _SOFT_TISSUE_HU[1])]
    if (
        air >= _AIR_SHARE
        and soft.size >= _SOFT_SHARE * data.size
        and np.ptp(np.percentile(soft, [5, 95])) >= _SOFT_SPREAD_HU
    ):
        raise DataError(
            "a scan must be MR",
            received=f"intensities in Hounsfield units, as of CT ({100 * air:.0f} % of the voxels are air)",
            where=volume.name,
            remedy="give T1, T2 or FLAIR",
        )


def refuse_without_structure(volume: Volume, brain_mask: MaskArray) -> None:
    """Raise where there is one intensity, or noise alone, in the place of the brain.

    Args:
        volume: The scan on its native grid.
        brain_mask: What was taken for its brain.

    Raises:
        DataError: It shows no brain.
    """
    inside = volume.data[brain_mask]
    if inside.size < 2:
        return  # the brain extractor reports an empty mask
    low, high = (float(value) for value in np.percentile(inside, [1, 99]))
    if not high > low:
        found = f"{low:g} everywhere"
    elif (agreement := structure(volume, brain_mask)) < _LEAST_STRUCTURE:
        found = f"noise (neighbouring voxels correlate by {agreement:.2f})"
    else:
        return
    raise DataError(
        "intensities inside the brain must vary and show structure",
        received=found,
        where=volume.name,
        remedy="check the scan and its brain mask",
    )
