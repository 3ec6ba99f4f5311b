"""Quality-control figures: registration, noise, missing slices, plausibility of masks; outliers among other scans."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from halebrain.core.mask import dice
from halebrain.core.types import FloatArray, MaskArray, Volume
from halebrain.preprocessing.brain.base import volume_ml
from halebrain.preprocessing.pipeline import WorkingScan
from halebrain.preprocessing.quality.measurements import normalised_mutual_information, rounded
from halebrain.preprocessing.quality.rules import MASK_BY_ATLAS, flags_without
from halebrain.preprocessing.template import Template, template_on

HISTOGRAM_BINS = 64
GRID_DICE = "working_grid_mask_dice"
"""Overlap of brain and template on the working grid, of every scan: registered here, before, or not at all. What the
registration itself ended at is another figure, `registration_mask_dice`."""
OUTSIDE_GRID = "lesion_outside_grid"
"""Share of the annotated lesion outside the working grid; scans prepared by earlier versions do not state it."""
_LOW_GRID_DICE = 0.90
"""Real adult scans reach 0.93 to 0.98 with their masks; lower values need a visual check."""
_MOST_ML = 2000.0
"""Of adults, brain with the fluid in and around it as extractors leave it; small brains are flagged by the pipeline."""
_ENOUGH = 8
"""Minimum number of scans of one contrast for outlier detection."""
_FAR = 5.0
"""Robust deviations from the median that make a scan an outlier: one in 1.7 million of normal ones."""


@dataclass(frozen=True)
class ScanQuality:
    """What was measured of one scan.

    Args:
        figures: Name with unit → value; `None` where it is not defined (no registration, no annotation).
        flags: One line for each thing that a user should check; as the pictures of all scans are checked anyway,
            a mask found with confidence is not flagged.
        histogram: Share of brain voxels in each of 64 equal bins of the scaled intensity in [0, 1]; sums to 1.
    """

    figures: dict[str, float | None]
    flags: tuple[str, ...]
    histogram: tuple[float, ...]


def assess(
    volume: Volume, scan: WorkingScan, lesion: MaskArray | None = None, *, atlas: Template | None = None
) -> ScanQuality:
    """Return the quality of one scan.

    Figures: `working_grid_mask_dice` and `normalised_mutual_information` (Studholme et al. 1999, 1 = independent,
    2 = the same) with the template on the working grid, `brain_confidence`, `brain_volume_ml`, `snr` (median over
    noise in the brain), `cut_off` (share of the template's brain outside the field of view), `gap_slices` (empty or
    repeated slices within the brain), `slice_thickness_mm`, `distinct_values`, `highest_intensity`,
    `lesion_volume_ml`, `lesion_outside_brain` (share), and `lesion_outside_grid` (share outside the working grid, whose
    slices may be cut at top and bottom: it counts nowhere on that grid).

    Args:
        volume: The scan on its native grid.
        scan: What the preprocessing made of it.
        lesion: Annotation on the native grid.
        atlas: What the scan was registered to; `None` = the MNI template.
    """
    template, template_mask = template_on(scan.grid, atlas)
    figures: dict[str, float | None] = {
        GRID_DICE: dice(scan.brain_mask, template_mask),
        "normalised_mutual_information": normalised_mutual_information(scan.image, template, scan.brain_mask),
        "brain_confidence": scan.qc.brain_confidence,
        "brain_volume_ml": volume_ml(scan.native_brain_mask, volume),
        "snr": _snr(volume.data, scan.native_brain_mask),
        "cut_off": scan.qc.cut_off,
        "gap_slices": float(_gap_slices(volume.data, scan.native_brain_mask)),
        "slice_thickness_mm": max(scan.native.spacing_mm),
        "distinct_values": None if scan.qc.distinct_values is None else float(scan.qc.distinct_values),
        "highest_intensity": scan.qc.highest_intensity,
        "lesion_volume_ml": None,
        "lesion_outside_brain": None,
        OUTSIDE_GRID: None,
    }
    if lesion is not None:
        size = float(lesion.sum())
        figures["lesion_volume_ml"] = volume_ml(lesion, volume)
        figures["lesion_outside_brain"] = float((lesion & ~scan.native_brain_mask).sum()) / size if size else None
        figures[OUTSIDE_GRID] = scan.share_outside_grid(lesion) if size else None
    counts, _ = np.histogram(scan.image[scan.brain_mask], bins=HISTOGRAM_BINS, range=(0, 1))
    histogram = tuple(float(share) for share in np.round(counts / max(counts.sum(), 1), 6))
    return ScanQuality(
        {name: None if value is None else rounded(value) for name, value in figures.items()},
        (*flags_without(scan.qc, MASK_BY_ATLAS), *_flags(figures)),
        histogram,
    )


def _flags(figures: dict[str, float | None]) -> list[str]:
    flags = []
    dice, brain_ml = figures[GRID_DICE] or 0.0, figures["brain_volume_ml"] or 0.0
    if dice < _LOW_GRID_DICE:
        flags.append(f"low overlap of brain and template ({dice:.2f}): check the registration")
    if brain_ml > _MOST_ML:
        flags.append(f"a brain of {brain_ml:.0f} ml is not an adult's: check the mask and the spacing")
    if figures["gap_slices"]:
        flags.append(f"{figures['gap_slices']:.0f} empty or repeated slices within the brain")
    if figures["lesion_volume_ml"] == 0:
        flags.append("the lesion mask is empty")
    elif (figures["lesion_outside_brain"] or 0.0) > 0.1:
        flags.append(f"{100 * (figures['lesion_outside_brain'] or 0):.0f} % of the lesion lies outside the brain mask")
    if (figures[OUTSIDE_GRID] or 0.0) > 0.1:
        flags.append(f"{100 * (figures[OUTSIDE_GRID] or 0):.0f} % of the lesion lies outside the working grid")
    return flags


def _snr(data: FloatArray, mask: MaskArray) -> float | None:
    """Return the brain's median over its noise, the latter from second differences (Immerkær 1996), robustly."""
    inner = ndimage.binary_erosion(mask, iterations=2)
    if not inner.any():
        return None
    residual = np.asarray(data, dtype=np.float32)
    for axis in range(3):
        residual = ndimage.convolve1d(residual, [-0.5, 1.0, -0.5], axis=axis)
    # Noise of standard deviation σ leaves it with σ · √1.5 for each axis; half the voxels lie within 0.6745 deviations.
    sigma = float(np.median(np.abs(residual[inner]))) / 0.6745 / math.sqrt(1.5) ** 3
    return float(np.median(data[inner])) / sigma if sigma > 0 else None


def _gap_slices(data: FloatArray, mask: MaskArray) -> int:
    """Return how many slices within the brain's extent are empty, or the same as the one before, along any axis."""
    most = 0
    for axis in range(3):
        planes = np.moveaxis(data, axis, 0)
        shown = np.flatnonzero(np.moveaxis(mask, axis, 0).any(axis=(1, 2)))
        if len(shown) < 3:
            continue
        gaps = 0
        for place in range(shown[0] + 1, shown[-1]):
            gaps += bool(np.ptp(planes[place]) == 0 or np.array_equal(planes[place], planes[place - 1]))
        most = max(most, gaps)
    return most


def histogram_distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the 1-Wasserstein distance of two histograms over [0, 1], in units of that range.

    Example:
        >>> histogram_distance([1, 0, 0, 0], [0, 0, 1, 0])
        0.5
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(np.abs(np.cumsum(a / a.sum() - b / b.sum())).sum() / len(a))


def group_distances(histograms: Sequence[Sequence[float]]) -> list[float | None]:
    """Return how far each histogram lies from the mean of the others; `None` where there are no others."""
    stack = np.asarray(histograms, dtype=np.float64)
    if len(stack) < 2:
        return [None] * len(stack)
    others = (stack.sum(axis=0) - stack) / (len(stack) - 1)
    return [round(histogram_distance(own, mean), 4) for own, mean in zip(stack, others, strict=True)]


def robust_deviations(values: Sequence[float | None]) -> list[float | None]:
    """Return (value − median) / (1.4826 · MAD) of each; `None` for what is undefined or where all are alike."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) < _ENOUGH:
        return [None] * len(values)
    middle = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - middle)))
    if spread < 1e-9:
        return [None] * len(values)
    return [None if value is None else (value - middle) / spread for value in values]


def outliers(figures: Sequence[Mapping[str, float | None]]) -> list[tuple[float, list[str]]]:
    """Return the largest robust deviation of each scan of one contrast, and a line for each outlying figure."""
    found: list[tuple[float, list[str]]] = [(0.0, []) for _ in figures]
    for name in figures[0] if figures else ():
        for place, deviation in enumerate(robust_deviations([scan[name] for scan in figures])):
            if deviation is None:
                continue
            worst, lines = found[place]
            if abs(deviation) > _FAR:
                lines.append(f"{name} {figures[place][name]:g} lies {deviation:+.0f} robust SD from the other scans")
            found[place] = (max(worst, abs(deviation)), lines)
    return found
