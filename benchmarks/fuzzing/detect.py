"""Whole detections: a doubtful scan through `halebrain detect` with a small untrained model."""

import functools
from pathlib import Path
from random import Random
from typing import Any

import nibabel
import numpy as np

from fuzzing import model
from fuzzing.base import KINDS, Attempt, check, command, kind

AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
AFFINE[:3, 3] = [-90, -126, -78]
_SHAPE = (30, 37, 28)
_NAMES = ("scan.nii.gz", "sub-1_T1w.nii.gz", "sub-1_ses-2_FLAIR.nii", "ü b.nii", "a\x1bb.nii.gz", "s.mgz", "x.hdr")


@functools.cache
def ball() -> np.ndarray[Any, Any]:
    """Return a stripped head of noise with a bright spot."""
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in _SHAPE), indexing="ij"))
    noise = np.random.default_rng(0).normal(100, 8, _SHAPE)
    inside = (index**2).sum(axis=0) < 0.75
    spot = ((index - 0.3) ** 2).sum(axis=0) < 0.03
    data: np.ndarray[Any, Any] = np.where(inside, noise + 60 * spot, 0).astype(np.float32)
    return data


@kind("detect", weight=0)
def detect(random: Random, folder: Path) -> Attempt:
    """Write a scan, and detect in it."""
    (folder / "in").mkdir()
    if random.random() < 0.3:
        about = KINDS[random.choice(("nifti", "mgh", "pair", "dicom"))].make(random, folder / "in").about
        source = folder / "in"
    else:
        about, data, affine = _doubtful(random)
        source = folder / "in" / random.choice(_NAMES)
        image = {"mgz": nibabel.MGHImage, "hdr": nibabel.Nifti1Pair}.get(source.name[-3:], nibabel.Nifti1Image)
        nibabel.save(image(data, affine), source)
    options = random.choice(((), (), ("--modality", "T2w"), ("--min-lesion-mm3", "0"), ("--draws", "2"), ("--json",)))
    threshold = random.choice(("0.3", "0.3", "auto", "0.999", "1e-9", "ml:1", "nan"))
    out = folder / "out"
    arguments = ("-i", source, "-o", out, "-m", model.folder(), "--threshold", threshold, *options, "--no-progress")
    return Attempt(
        f"{about}, {source.name!r}, {threshold} {' '.join(options)}", functools.partial(_run, out, arguments)
    )


def _doubtful(random: Random) -> tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    data, affine = ball().copy(), AFFINE.copy()
    match random.randrange(9):
        case 0:
            turn = random.choice(([-1, 1, 1], [1, -1, 1], [1, 1, -1], [-1, -1, -1]))
            return f"turned {turn}", data, affine @ np.diag([*turn, 1.0])
        case 1:
            data[random.randrange(30)] = random.choice((np.nan, np.inf, 1e30, -1e30, 1e-30))
            return "a plane of other values", data, affine
        case 2:
            scale = random.choice((1e-6, 1e6, -1.0, 1e30))
            return f"values × {scale}", data * np.float32(scale), affine
        case 3:
            kinds = (np.uint8, np.int16, np.float64)
            return "another type", data.clip(0, 200).astype(random.choice(kinds)), affine
        case 4:
            return "head cut", data[:, : random.choice((8, 12, 20))], affine
        case 5:
            return "noise", np.random.default_rng(random.getrandbits(32)).random(_SHAPE, np.float32), affine
        case 6:
            affine[:3, :3] *= random.choice((0.5, 0.001, 1.5, 20))
            return "another size", data, affine
        case 7:
            return "one axis more", data[..., None], affine
        case _:
            return "as it should be", data, affine


def _run(out: Path, arguments: tuple[object, ...]) -> None:
    try:
        command("detect", *arguments)
    except BaseException:
        left = [path for path in out.rglob("*") if path.suffix == ".gz"] if out.exists() else []
        # Of a folder of scans, those that went well stay.
        check(not left or (out / "index.html").exists(), "maps of a scan that was refused")
        raise
    check(any(out.rglob("*_provenance.json")), "a success without its files")
