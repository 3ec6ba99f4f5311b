"""The same voxels in another order of axes: nothing is interpolated, so the way back is exact."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from halebrain.core.types import MaskArray, Volume

ToOriginal = Callable[[MaskArray], MaskArray]


def reorient(volume: Volume, codes: str) -> tuple[Volume, ToOriginal]:
    """Return a scan with its axes permuted and flipped, and what brings a mask on it back to the original order.

    Args:
        volume: The scan; its world coordinates stay, oblique ones too.
        codes: Where the axes shall point, "RAS" or "LIA" for example, as nearly as the scan allows.
    """
    present = io_orientation(volume.affine)
    wanted = axcodes2ornt(tuple(codes))
    turn, back = ornt_transform(present, wanted), ornt_transform(wanted, present)
    data = np.ascontiguousarray(apply_orientation(volume.data, turn), dtype=np.float32)
    affine: npt.NDArray[np.float64] = volume.affine @ inv_ornt_aff(turn, volume.shape)

    def to_original(mask: MaskArray) -> MaskArray:
        return np.ascontiguousarray(apply_orientation(mask, back), dtype=bool)

    return Volume(data, affine, name=volume.name), to_original
