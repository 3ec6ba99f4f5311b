"""A volume as a batch of its axial slices, and back."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from halebrain.core.types import SLICE_AXIS


def slices_of(volume: npt.NDArray[Any]) -> torch.Tensor:
    """Return the axial slices `(n, 1, h, w)` of a volume `(i, j, k)`, in its own type; a copy."""
    return torch.from_numpy(np.array(np.moveaxis(volume, SLICE_AXIS, 0), order="C"))[:, None]


def volume_of(slices: torch.Tensor) -> npt.NDArray[Any]:
    """Return the volume `(i, j, k)` of axial slices `(n, 1, h, w)`, in their type."""
    return np.ascontiguousarray(np.moveaxis(slices[:, 0].numpy(), 0, SLICE_AXIS))
