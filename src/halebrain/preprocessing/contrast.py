"""Whether a scan can be an MR image at all, by its intensities."""

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.types import Volume

_AIR_HU = (-1100.0, -850.0)
_AIR_SHARE = 0.05
_SOFT_TISSUE_HU = (-20.0, 120.0)
_SOFT_SHARE = 0.02


def refuse_ct(volume: Volume) -> None:
    """Raise where a scan is in Hounsfield units.

    In CT, air is about −1000 and soft tissue 0 to 100 in every scanner; MR has no such pair of values, be it raw or
    standardised.

    Args:
        volume: The scan on its native grid.

    Raises:
        DataError: It looks like CT.
    """
    data = volume.data
    if float(data.min()) > _AIR_HU[1]:
        return
    air = float(np.mean((data >= _AIR_HU[0]) & (data <= _AIR_HU[1])))
    soft = float(np.mean((data >= _SOFT_TISSUE_HU[0]) & (data <= _SOFT_TISSUE_HU[1])))
    if air >= _AIR_SHARE and soft >= _SOFT_SHARE:
        raise DataError(
            "a scan must be MR",
            received=f"intensities in Hounsfield units, as of CT ({100 * air:.0f} % of the voxels are air)",
            where=volume.name,
            remedy="give T1, T2 or FLAIR",
        )
