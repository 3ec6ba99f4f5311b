"""The brains in the scans of an exam: which come with one, where it is found, and whether they are of one person."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from halebrain.core.errors import DataError, HalebrainError
from halebrain.core.parallel import map_threads
from halebrain.core.types import Affine, MaskArray, Volume
from halebrain.core.wording import first_of
from halebrain.preprocessing.brain import BrainMask, from_given_mask
from halebrain.preprocessing.brain.base import volume_ml
from halebrain.preprocessing.brain.given import extract_stripped
from halebrain.preprocessing.geometry import Grid, apply_affine, resample
from halebrain.preprocessing.pipeline import Preprocessor

_KEPT_BY_ITSELF = ("auto", "stripped")
"""Brain extractors that use stripped scans unchanged."""
_SURE = 0.5
"""Confidence of a brain mask from which no other scan is tried."""
_WHOLE = 0.95
"""Overlap from which two masks show the same part of a brain, so that their volumes compare."""
_APART = 0.02
"""Share of the smaller brain outside the larger one that is flagged. Stripped T1 and FLAIR of one person have less than
0.01, also where one mask was eroded or grown by a voxel; T1 of different people of one brain size 0.03 to 0.05."""
_EVERY = 97
"""Of so many voxels of a brain, one is looked up."""
_FLAGGED_SIZE, _REFUSED_SIZE = 1.15, 1.3
"""Ratio of two brain volumes. Masks of one person differ by up to a tenth."""


@dataclass(frozen=True)
class ExamScan:
    """One scan of an exam as it was read.

    Args:
        name: Its name.
        volume: Its voxels.
        image: Where it was read from; `None` = it was in memory.
        brain_mask: The mask that was given with it, bool on its grid.
        space: "native", or the template's name where it lies in template space.
        contrast: Its contrast where that is declared, a BIDS suffix.
    """

    name: str
    volume: Volume
    image: Path | None = None
    brain_mask: MaskArray | None = None
    space: str = "native"
    contrast: str | None = None


def known_brains(
    preprocessor: Preprocessor, scans: Sequence[ExamScan], failed: dict[str, str], threads: int
) -> dict[str, BrainMask]:
    """Return the brains of the scans that come with one."""

    def look(scan: ExamScan) -> BrainMask | HalebrainError | None:
        try:
            return _known_brain(preprocessor, scan)
        except DataError as error:
            return error

    found = {}
    for scan, result in zip(scans, map_threads(look, scans, threads=threads), strict=True):
        if isinstance(result, HalebrainError):
            failed[scan.name] = str(result)
        elif result is not None:
            found[scan.name] = result
    return found


def _known_brain(preprocessor: Preprocessor, scan: ExamScan) -> BrainMask | None:
    """Return the brain of a scan that comes with its mask, or is stripped; `None` where it must be found."""
    if scan.brain_mask is not None:
        return from_given_mask(scan.volume, scan.brain_mask)
    if preprocessor.config.brain not in _KEPT_BY_ITSELF:
        return None
    try:
        return extract_stripped(scan.volume)
    except DataError:
        return None


def find_holder(
    preprocessor: Preprocessor, ranked: Sequence[ExamScan], known: dict[str, BrainMask], failed: dict[str, str]
) -> tuple[ExamScan, BrainMask]:
    """Return the scan whose brain mask serves the others: the best with a known brain, else where it is found."""
    for scan in ranked:
        if scan.name in known:
            return scan, known[scan.name]
    best: tuple[ExamScan, BrainMask] | None = None
    for scan in ranked:
        try:
            found = preprocessor.find_brain(scan.volume, None)
        except DataError as error:
            failed.setdefault(scan.name, str(error))
            continue
        if best is None or found.confidence > best[1].confidence:
            best = scan, found
        if found.confidence >= _SURE:
            break
    if best is None:
        raise DataError(
            "the brain must be found in one scan of an exam",
            received=first_of([f"{name}: {reason}" for name, reason in failed.items()], 2),
            remedy="strip one of them, or give its mask in a manifest",
        )
    for scan in ranked:  # the mask of the best one serves those in which none was found
        failed.pop(scan.name, None)
    return best


def fit_brain(brain: BrainMask, holder: ExamScan, scan: ExamScan, matrix: Affine) -> BrainMask:
    """Return the brain mask of one scan on the grid of another one; `matrix` is world-to-world, first to other."""
    source = Grid(holder.volume.shape, holder.volume.affine)
    target = Grid(scan.volume.shape, scan.volume.affine)
    back = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    mask: MaskArray = resample(brain.mask.astype(np.float32), source, target, target_to_source=back) > 0.5
    if not mask.any():
        raise DataError(
            "the scans of an exam must show the same part of the head",
            received="no brain",
            where=scan.name,
            remedy="leave it out of the exam, or check its header",
        )
    method = f"{brain.method}, found in {holder.name}"
    return BrainMask(mask, method, brain.confidence, volume_ml(mask, scan.volume), notes=brain.notes)


def find_doubts(
    brain: BrainMask, holder: ExamScan, scan: ExamScan, own: BrainMask | None, fitted: BrainMask
) -> tuple[str, ...]:
    """Return what a user should check of a scan that was registered to another one of its exam.

    Args:
        brain: The brain of the scan that it was registered to.
        holder: That scan.
        scan: The scan.
        own: Its own brain, where it came with one.
        fitted: `brain` on its grid, where the registration places it.
    """
    doubts = []
    points = apply_affine(holder.volume.affine, np.argwhere(brain.mask)[::_EVERY].astype(np.float64))
    back = np.asarray(np.linalg.inv(scan.volume.affine), dtype=np.float64)
    places = apply_affine(back, points)
    if not np.all((places >= 0) & (places <= np.array(scan.volume.shape) - 1), axis=1).any():
        said = f"by their headers, {scan.name} shows nothing of the brain of {holder.name}; they were registered"
        doubts.append(f"{said} by their content alone: check that the contrasts overlap in the viewer")
    if own is not None and _shows_all(own.mask) and _shows_all(brain.mask):
        both, smaller = (own.mask & fitted.mask).sum(), min(own.mask.sum(), fitted.mask.sum())
        if (apart := 1 - both / smaller) > _APART:
            said = f"{apart:.0%} of the smaller brain of {scan.name} and {holder.name} lies outside the other"
            doubts.append(f"{said} after registration: check that they are of one person")
    return tuple(doubts)


def check_sizes(scans: Sequence[ExamScan], known: dict[str, BrainMask]) -> tuple[str, ...]:
    """Refuse brains of sizes that no person has at one time; a lesser difference is a note."""
    sizes = {}
    for scan in scans:
        if (brain := known.get(scan.name)) is not None and _shows_all(brain.mask):
            sizes[scan.name] = brain.volume_ml
    if len(sizes) < 2:
        return ()
    small, large = min(sizes, key=lambda name: sizes[name]), max(sizes, key=lambda name: sizes[name])
    ratio = sizes[large] / sizes[small]
    said = f"{sizes[small]:.0f} ml of brain in {small} and {sizes[large]:.0f} ml in {large}"
    if ratio > _REFUSED_SIZE:
        raise DataError(
            "the scans of an exam must be of one person",
            received=said,
            remedy="give each person an exam, or each scan a brain mask of the same tissue",
        )
    return (f"{said}: check that they are of one person",) if ratio > _FLAGGED_SIZE else ()


def _shows_all(mask: MaskArray) -> bool:
    """Return whether a brain mask ends before the field of view does, but for a hundredth of its area."""
    for axis in range(3):
        area = np.moveaxis(mask, axis, 0).sum(axis=(1, 2))
        if max(area[0], area[-1]) > (1 - _WHOLE) * area.max():
            return False
    return True
