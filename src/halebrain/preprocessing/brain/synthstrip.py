"""SynthStrip (Hoopes et al. 2022): a brain in a head of any contrast, by the weights or the program that the user has.

With a weights file (`HALEBRAIN_SYNTHSTRIP_WEIGHTS`, or `synthstrip.1.pt` in `HALEBRAIN_HOME`, by default
`~/.halebrain`) the network runs here; without one, FreeSurfer's `mri_synthstrip` is called where it is on PATH.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from halebrain.core.errors import UnavailableError
from halebrain.core.home import halebrain_home, named_path
from halebrain.core.mask import largest_component
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask, plausible_brain
from halebrain.preprocessing.brain.command import learned_device, mask_by_command
from halebrain.preprocessing.geometry import Grid, reorient, resample

COMMAND = "mri_synthstrip"
WEIGHTS_VARIABLE = "HALEBRAIN_SYNTHSTRIP_WEIGHTS"
WEIGHTS_FILE = "synthstrip.1.pt"
_BORDER_MM = 1.0
"""Voxels closer to the brain than this belong to it."""
_FAR_MM = 100.0
"""Distance of voxels outside the network's field of view."""
_FACTOR, _LEAST, _MOST = 64, 192, 320
"""Sides of the network's grid: multiples of 64, within these bounds."""


@BRAIN_EXTRACTORS.register("synthstrip")
def extract_by_synthstrip(volume: Volume) -> BrainMask:
    """Return the brain of a whole head, of any contrast and resolution."""
    weights = find_weights()
    if weights is not None:
        return plausible_brain(_by_network(volume, weights), volume, "synthstrip")
    command = shutil.which(COMMAND)
    if command is not None:
        how = ["-b", f"{_BORDER_MM:g}", *(["-g"] if learned_device() == "cuda" else [])]
        mask = mask_by_command(
            lambda scan, out: [command, "-i", str(scan), "-m", str(out / "mask.nii.gz"), *how], volume, ["mask.nii.gz"]
        )
        return plausible_brain(mask, volume, "synthstrip")
    usual = (halebrain_home() or Path("~")) / WEIGHTS_FILE
    raise UnavailableError(
        "SynthStrip needs its weights or its program",
        received=f"no {usual} and no {COMMAND} on PATH",
        remedy=f"put {WEIGHTS_FILE} of FreeSurfer there, give its path in {WEIGHTS_VARIABLE}, or install FreeSurfer",
    )


def find_weights() -> Path | None:
    """Return the weights file that the user named, whether it exists or not, else the one at its usual place if any."""
    named = named_path(WEIGHTS_VARIABLE)
    if named is not None:
        return named
    home = halebrain_home()
    usual = None if home is None else home / WEIGHTS_FILE
    # Not `is_file`, which fails where this user may not look into that home.
    return usual if usual is not None and os.access(usual, os.R_OK) else None


def is_available() -> bool:
    """Return whether weights or the program are there, or weights were named."""
    return find_weights() is not None or shutil.which(COMMAND) is not None


def _by_network(volume: Volume, weights: Path) -> MaskArray:
    import torch

    from halebrain.preprocessing.brain.synthstrip_network import load_network

    device = learned_device()
    network = load_network(weights, device)
    conformed = conform(volume)
    with torch.inference_mode():
        image = torch.from_numpy(conformed.image)[None, None].to(device)
        distance = network(image)[0, 0].cpu().numpy()
    inside = conformed.to_native(distance) < _BORDER_MM
    mask: MaskArray = ndimage.binary_fill_holes(largest_component(inside))
    return mask


@dataclass(frozen=True)
class Conformed:
    """A scan as the network wants it.

    Args:
        image: Intensities in [0, 1], `(i, j, k)`, float32, 1 mm, axes to the left, down and to the front.
        affine: Its voxel-to-world in mm, RAS.
        native: Grid that it came from.
    """

    image: FloatArray
    affine: Affine
    native: Grid

    def to_native(self, distance: FloatArray) -> FloatArray:
        """Return a distance in mm on the native grid; far away where the network did not look."""
        # Resampling fills with 0, so that what is carried over is how much nearer than far away it is.
        nearer = (_FAR_MM - np.minimum(distance, _FAR_MM)).astype(np.float32)
        i, j, k = distance.shape
        back = resample(nearer, Grid((i, j, k), self.affine), self.native, antialias=False)
        return (_FAR_MM - back).astype(np.float32)


def conform(volume: Volume) -> Conformed:
    """Return a scan at 1 mm along its own axes, cut to what is not empty, on the network's grid.

    Nearest neighbours, the order of steps and the range from the minimum to the 99th percentile are as published.
    """
    turned, _ = reorient(volume, "LIA")
    shape = np.ceil(np.round(np.array(turned.spacing_mm) * turned.shape, 3)).astype(int)
    fine = _centred(turned, shape)
    native = Grid(volume.shape, volume.affine)
    image = resample(turned.data, Grid(turned.shape, turned.affine), fine, order=0)
    filled = ndimage.find_objects((image > 0).astype(np.uint8))
    box = filled[0] if filled else tuple(slice(0, n) for n in image.shape)
    image = image[box]
    start = np.array([part.start for part in box])
    sides = np.clip(np.ceil(np.array(image.shape) / _FACTOR).astype(int) * _FACTOR, _LEAST, _MOST)
    spare = np.floor((sides - np.array(image.shape)) / 2).astype(int)
    output = np.zeros(tuple(sides), dtype=np.float32)
    to = tuple(slice(max(s, 0), max(s, 0) + min(n, m)) for s, n, m in zip(spare, image.shape, sides, strict=True))
    cut = tuple(slice(max(-s, 0), max(-s, 0) + min(n, m)) for s, n, m in zip(spare, image.shape, sides, strict=True))
    output[to] = image[cut]
    affine = fine.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ (start - spare)
    output -= output.min()
    high = float(np.percentile(output, 99))
    return Conformed(np.clip(output / high, 0, 1) if high > 0 else output, affine, native)


def _centred(volume: Volume, shape: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Grid:
    """Return the grid of 1 mm along the axes of `volume` with the same middle of the field."""
    affine = np.eye(4)
    affine[:3, :3] = volume.affine[:3, :3] / np.array(volume.spacing_mm)
    middle = volume.affine[:3, :3] @ (np.array(volume.shape) / 2) + volume.affine[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ (shape / 2)
    i, j, k = (int(n) for n in shape)
    return Grid((i, j, k), affine)
