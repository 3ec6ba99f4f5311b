"""Lesion masks of real patients as shapes for synthetic anomalies, at their place, with varied intensities."""

import logging
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from halebrain.core.errors import DataError, MissingInputError
from halebrain.core.random import make_generator
from halebrain.io.discovery import scans_in
from halebrain.io.masks import look_at_values, mask_from
from halebrain.io.volume import read_volume
from halebrain.preprocessing.geometry import Grid, resample, working_grid
from halebrain.simulation.fields import smooth_noise

_log = logging.getLogger(__name__)
_SHAPE, _SPACING_MM = (96, 96, 80), 2.0
_LEAST_PIXELS = 12
"""Slices with less lesion are not kept."""
_FLUID_SHARE = 0.25
"""Share of masks that stand for a cavity."""


@lru_cache(maxsize=2)
def mask_library(folder: Path) -> torch.Tensor:
    """Return axial slices of lesion masks on the 2 mm grid, `(n, 2, 96, 96)`: how wet and how fluid, in about [0, 1].

    How a mask is filled is drawn from its name, so that the same folder gives the same slices.

    Args:
        folder: Masks in template space, in any format; files with more than one value besides 0 are left out and
            named in a warning (atlases of regions, for example).

    Raises:
        MissingInputError: There is none.
        DataError: One does not lie where the template does.
    """
    if not folder.is_dir():
        raise MissingInputError(
            "lesion masks must be in a folder", where=folder, remedy="check the path given as masks"
        )
    found: list[torch.Tensor] = []
    for path in scans_in(folder, masks=True):
        found += _slices(path)
    if not found:
        raise MissingInputError(
            "the folder must hold a lesion mask to take shapes from",
            where=folder,
            remedy="add masks in template space to this folder, with 0 and one other value",
        )
    return torch.stack(found)


def _slices(path: Path) -> list[torch.Tensor]:
    volume = read_volume(path)
    notes: list[str] = []
    if len(look_at_values(volume.data, path).labels) != 1:
        _log.warning("%s: left out, a lesion mask must hold 0 and one other value", path.name)
        return []
    mask = mask_from(volume.data, path, notes)
    for note in notes:
        _log.warning("%s", note)
    extent = resample(mask.astype(np.float32), Grid(volume.shape, volume.affine), working_grid(_SHAPE, _SPACING_MM))
    if not extent.any():
        raise DataError("a lesion mask must lie in template space", where=path, remedy="register it first")
    generator = make_generator("mask library", path.name)
    soft, water, grain, fluid, seed = torch.rand(5, generator=generator).tolist()
    extent = np.clip(ndimage.gaussian_filter(extent, 0.3 + 0.7 * soft), 0, 1)
    noise = smooth_noise(_SHAPE, wavelength_mm=8, spacing_mm=_SPACING_MM, seed=int(seed * 2**40))
    wet = torch.from_numpy(extent) * (0.6 + 0.6 * water) * (1 + 0.4 * grain * noise).clamp_min(0)
    filled = torch.from_numpy(extent) * (0.5 + 2 * fluid if fluid < _FLUID_SHARE else 0.0)
    maps = torch.stack([wet, filled])
    shows = (torch.from_numpy(extent) > 0.5).sum(dim=(0, 1)) >= _LEAST_PIXELS
    # Every second slice: neighbours are nearly the same.
    return [maps[..., k].contiguous() for k in shows.nonzero().flatten().tolist()[::2]]
