"""deepbet (Fisch et al. 2024): a brain in a T1 head, by the two networks in the package that the user has installed.

The networks are TorchScript files, `bbox_model.pt` and `model.pt`, in the distribution `deepbet`
(`pip install --no-deps deepbet`) or in the folder that `HALEBRAIN_DEEPBET_WEIGHTS` names. The package itself is never
imported. TorchScript holds a program: it is loaded from these two places only, never from a model bundle or from scans.
"""

import os
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.errors import DataError, UnavailableError
from halebrain.core.home import named_path
from halebrain.core.mask import largest_component
from halebrain.core.types import FloatArray, MaskArray, Volume
from halebrain.preprocessing.brain.base import BRAIN_EXTRACTORS, BrainMask, plausible_brain
from halebrain.preprocessing.brain.command import learned_device
from halebrain.preprocessing.geometry import reorient

DISTRIBUTION = "deepbet"
WEIGHTS_VARIABLE = "HALEBRAIN_DEEPBET_WEIGHTS"
FILES = ("bbox_model.pt", "model.pt")
"""The network that finds the box of the brain, and the one that outlines it there."""
_COARSE, _FINE = (128, 128, 128), (256, 256, 256)
_PERCENTILES = (0.5, 99.5)
_MEAN, _SCALE = 0.449, 0.226
_MARGIN = 0.1
"""Share of the box's size added on each side."""
_LEAST_SHARE = 0.02
"""Share of a plane that is brain, from which the plane lies in the box."""

_Box = tuple[slice, slice, slice]


@BRAIN_EXTRACTORS.register("deepbet")
def extract_by_deepbet(volume: Volume) -> BrainMask:
    """Return the brain of a whole T1 head."""
    paths = find_networks()
    if paths is None:
        raise UnavailableError(
            "deepbet needs its two networks",
            received=f"no distribution {DISTRIBUTION} that holds {' and '.join(FILES)}",
            remedy=f"pip install --no-deps {DISTRIBUTION}, name their folder in {WEIGHTS_VARIABLE}, or use another",
        )
    standard, to_original = reorient(volume, "RAS")
    return plausible_brain(to_original(_outline(standard, paths)), volume, "deepbet")


def find_networks() -> tuple[Path, Path] | None:
    """Return the two files: in the folder that the user named, there or not, else of the installed distribution."""
    named = named_path(WEIGHTS_VARIABLE)
    if named is not None:
        return named / FILES[0], named / FILES[1]
    try:
        listed = distribution(DISTRIBUTION).files or []
    except PackageNotFoundError:
        return None
    found = {file.name: Path(str(file.locate())) for file in listed if file.name in FILES}
    if set(found) != set(FILES) or not all(os.access(path, os.R_OK) for path in found.values()):
        return None
    return found[FILES[0]], found[FILES[1]]


def is_available() -> bool:
    """Return whether the networks are installed, or a folder was named."""
    return find_networks() is not None


def _outline(volume: Volume, paths: tuple[Path, Path]) -> MaskArray:
    data = np.nan_to_num(volume.data)
    small = _nearest(data, _COARSE)
    low, high = (float(value) for value in np.percentile(small, _PERCENTILES))
    mask: MaskArray = np.zeros(volume.shape, dtype=bool)
    if not high > low:
        return mask
    coarse = largest_component(_run(paths[0], small, low, high) > 0.5, corners=True)
    box = _box(coarse, volume.shape)
    if box is None:
        return mask
    fine = _run(paths[1], _nearest(data[box], _FINE), low, high)
    inside = largest_component(_nearest(fine, data[box].shape) > 0.5, corners=True)
    mask[box] = ndimage.binary_fill_holes(inside)
    return mask


def _nearest(data: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return an image of the same field with another number of voxels, by nearest neighbours."""
    for axis, size in enumerate(shape):
        places = np.floor((np.arange(size) + 0.5) * data.shape[axis] / size).astype(int)
        data = np.take(data, np.minimum(places, data.shape[axis] - 1), axis=axis)
    return data


def _box(coarse: MaskArray, shape: tuple[int, ...]) -> _Box | None:
    """Return where the brain lies on a grid of `shape` with the field of `coarse`, with a margin; `None`: nowhere."""
    parts = []
    for axis, size in enumerate(shape):
        others = tuple(other for other in range(3) if other != axis)
        planes = np.flatnonzero(coarse.mean(axis=others) > _LEAST_SHARE)
        if planes.size == 0:
            return None
        factor = size / coarse.shape[axis]
        centre = round(factor * (planes[-1] + 1 + planes[0]) / 2)
        half = round(factor * (planes[-1] + 1 - planes[0]) * (1 + 2 * _MARGIN)) / 2
        parts.append(slice(max(0, int(centre - half)), min(size, int(centre + half))))
    return parts[0], parts[1], parts[2]


def _run(path: Path, image: FloatArray, low: float, high: float) -> FloatArray:
    """Return the probability of brain that a network gives for an image, scaled as it was in its training."""
    import torch

    device = learned_device()
    network = _load(path, _changed(path), device)
    scaled = np.clip((image - low) / (high - low), 0, 1)
    scaled = _SCALE * (scaled - scaled.mean()) / max(float(scaled.std(ddof=1)), 1e-9) + _MEAN
    with torch.inference_mode():
        given = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))[None, None].to(device)
        try:
            found: FloatArray = network(given)[0, 1].float().cpu().numpy()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, IndexError, AttributeError, TypeError) as error:
            raise _wrong(path, f"a network that fails ({type(error).__name__})") from error
    if found.shape != image.shape:
        raise _wrong(path, f"an output of shape {found.shape} for {image.shape}")
    return found


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise UnavailableError(
            "deepbet needs its two networks",
            received=f"no {path.name}",
            where=path.parent,
            remedy=f"set {WEIGHTS_VARIABLE} to the folder that holds {' and '.join(FILES)}, or unset it",
        ) from error


@lru_cache(maxsize=2)
def _load(path: Path, _time: int, device: str) -> Any:
    import torch

    try:
        network = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise _wrong(path, f"a file that cannot be opened ({type(error).__name__})") from error
    return network.eval()


def _wrong(path: Path, found: str) -> DataError:
    return DataError(
        "deepbet's networks must be those of its package",
        received=found,
        where=path,
        remedy=f"pip install --no-deps --force-reinstall {DISTRIBUTION}",
    )
