"""Masks of a scan: fractions, ringing, labels, NaN, another grid, another format."""

import functools
from pathlib import Path
from random import Random
from typing import Any

import nibabel
import numpy as np

from fuzzing.base import Attempt, check, kind
from fuzzing.nifti import AFFINE, SHAPE, head


@kind("mask", weight=10)
def mask(random: Random, folder: Path) -> Attempt:
    """Write a scan and a mask, and read the mask on the grid of the scan."""
    about, data, affine = spoilt_mask(random)
    path = folder / random.choice(("m.nii", "m.nii.gz", "m.mgz", "m.hdr"))
    save(path, data, affine)
    nibabel.save(nibabel.Nifti1Image(head().astype(np.int16), AFFINE), folder / "scan.nii")
    return Attempt(f"{path.name}: {about}", functools.partial(_read, path, folder / "scan.nii"))


def save(path: Path, data: np.ndarray[Any, Any], affine: np.ndarray[Any, Any]) -> None:
    """Write an image in the format that its name tells."""
    suffix = path.name.partition(".")[2]
    kinds = {"mgz": nibabel.MGHImage, "hdr": nibabel.Nifti1Pair}
    if suffix == "mgz":
        data = data.squeeze(tuple(range(3, data.ndim))) if set(data.shape[3:]) <= {1} else data
        data = data.astype(np.float32) if data.dtype == np.float64 else data
    nibabel.save(kinds.get(suffix, nibabel.Nifti1Image)(data, affine), path)


def spoilt_mask(random: Random) -> tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return what was done, and a mask or a map on the grid of the small head, more or less, with its affine."""
    noise = np.random.default_rng(random.getrandbits(32))
    lesion = np.zeros(SHAPE)
    low = [random.randrange(2, n - 5) for n in SHAPE]
    lesion[tuple(slice(a, a + random.randrange(1, 4)) for a in low)] = 1
    affine = AFFINE.copy()
    values: dict[str, Any] = {
        "binary": lesion,
        "empty": lesion * 0,
        "full": lesion * 0 + 1,
        "255": lesion * 255,
        "labels": lesion * random.choice((2, 4)) + (head() > 90),
        "nearly whole labels": lesion * random.choice((0.9999999, 1.0000001, 3.9999998)),
        "fractions": np.clip(lesion + noise.normal(0, 0.2, SHAPE), 0, 1),
        "ringing": lesion + noise.normal(0, 0.05, SHAPE),
        "negative": -lesion,
        "NaN": np.where(lesion > 0, np.nan, 0),
        "infinite": np.where(lesion > 0, np.inf, 0),
        "huge": lesion * 1e30,
        "tiny": lesion * 1e-30,
        "the scan itself": head().astype(float),
        "four dimensions": np.stack([lesion, lesion], axis=-1),
        "(x, y, z, 1, 1)": lesion[..., None, None],
        "one slice": lesion[..., :1],
        "another shape": lesion[1:],
        "turned": lesion[::-1],
    }
    about = random.choice(sorted(values))
    data = np.asarray(values[about])
    if about == "turned":
        affine = affine @ np.diag([-1, 1, 1, 1])
        affine[:3, 3] += AFFINE[:3, 0] * (SHAPE[0] - 1)
    if random.random() < 0.2:
        shift = random.choice((1e-6, 1e-4, 1e-2, 0.5, 15.0, 1e6))
        affine[random.randrange(3), 3] += shift
        about += f", shifted by {shift} mm"
    whole = bool(np.isfinite(data).all()) and np.array_equal(data, np.rint(data)) and np.abs(data).max() < 256
    kinds = (np.uint8, np.int16, np.float32) if whole and data.min() >= 0 else (np.float32, np.float64)
    return about, data.astype(random.choice(kinds)), affine


def _read(path: Path, scan: Path) -> None:
    from halebrain.io.volume import read_mask, read_volume

    volume = read_volume(scan)
    found = read_mask(path, volume)
    check(found.dtype == bool and found.shape == volume.shape, "a mask on another grid than its scan")
