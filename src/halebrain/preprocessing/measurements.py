"""Quality-control figures of intensities, sharpness and field of view."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.preprocessing.geometry import Grid, resample

_SMOOTHNESS_MM = 2.0
"""Voxel size at which `smoothness` is comparable; that of the networks' working grid."""
_MANY = 65536


def intensity_figures(volume: Volume, brain_mask: MaskArray) -> dict[str, Any]:
    """Return figures of how intensities are stored and spread; JSON-able.

    Figures: `distinct_values` in the brain (65536 = that many or more), `grey_levels` (steps of one size from 0 to
    the highest intensity, `None` where there is no such step: no 8-bit image), `lowest_intensity`, `highest_intensity`,
    `saturated_share` (of the brain's voxels at its highest value), `distance_to_uniform`
    (Kolmogorov–Smirnov, between the 1st and 99th percentile; an equalised histogram has 0), and `normalised`
    ("to [0, 1]", "standardised" or `None`), which is informative only.

    Args:
        volume: The scan on its native grid.
        brain_mask: Its brain on that grid, not empty.
    """
    inside = volume.data[brain_mask]
    values = np.unique(inside)
    return {
        "distinct_values": int(min(len(values), _MANY)),
        "grey_levels": _grey_levels(values, float(volume.data.max())),
        "lowest_intensity": round(float(volume.data.min()), 4),
        "highest_intensity": round(float(volume.data.max()), 4),
        "saturated_share": round(float((inside == values[-1]).mean()), 4),
        "distance_to_uniform": _distance_to_uniform(inside),
        "normalised": _normalised(volume, inside),
    }


def geometry_figures(volume: Volume, brain_mask: MaskArray) -> dict[str, Any]:
    """Return figures of voxels and field of view; JSON-able.

    Figures: `spacing_max_mm`, `brain_voxels_across` (the fewest along an axis), `cut_face` (the largest area of
    brain on a face of the field of view, over the brain's largest cross-section along that axis), and
    `placements_apart_mm` (how far apart sform and qform put a corner of the field of view).
    """
    areas = [np.moveaxis(brain_mask, axis, 0).sum(axis=(1, 2)) for axis in range(3)]
    return {
        "spacing_max_mm": round(max(volume.spacing_mm), 3),
        "brain_voxels_across": int(min(np.count_nonzero(area) for area in areas)),
        "cut_face": round(max(float(max(area[0], area[-1]) / max(area.max(), 1)) for area in areas), 3),
        "placements_apart_mm": round(
            0.0 if volume.placement is None else volume.placement.distance_mm(volume.shape), 2
        ),
    }


def cut_off(native: Grid, grid: Grid, template_to_native: Affine, template_mask: MaskArray) -> float:
    """Return the share of the template's brain whose place in the scan lies outside the scan's voxels.

    Args:
        native: Grid of the scan.
        grid: The working grid.
        template_to_native: World-to-world matrix, mm, RAS.
        template_mask: The template's brain on the working grid.
    """
    everywhere = np.ones(native.shape, dtype=np.float32)
    inside = resample(everywhere, native, grid, target_to_source=template_to_native, order=0)
    return 1 - float((inside[template_mask] > 0.5).mean())


def smoothness(image: FloatArray, brain_mask: MaskArray, spacing_mm: float) -> float | None:
    """Return how far neighbours agree beyond slow changes: correlation of high-passed neighbours, least of three axes.

    Thick slices are smooth along one axis only; PET and strongly filtered images along all.

    Args:
        image: The scan on the working grid.
        brain_mask: Its brain.
        spacing_mm: Voxel size; another than 2 mm cannot be compared and gives `None`.
    """
    inner = ndimage.binary_erosion(brain_mask, iterations=3)
    if abs(spacing_mm - _SMOOTHNESS_MM) > 0.2 or inner.sum() < 1000:
        return None
    weight = ndimage.gaussian_filter(brain_mask.astype(np.float32), 3)
    slow = ndimage.gaussian_filter(np.where(brain_mask, image, 0), 3) / np.maximum(weight, 1e-3)
    return min(_neighbour_correlations(np.where(brain_mask, image - slow, 0), inner))


def structure(volume: Volume, brain_mask: MaskArray) -> float:
    """Return the highest correlation of neighbouring voxels in the brain along an axis: about 0 in noise alone."""
    return max(_neighbour_correlations(volume.data, brain_mask))


def _neighbour_correlations(data: FloatArray, mask: MaskArray) -> list[float]:
    found = []
    for axis in range(3):
        planes, inside = np.moveaxis(data, axis, 0), np.moveaxis(mask, axis, 0)
        both = inside[1:] & inside[:-1]
        one, other = planes[1:][both].astype(np.float64), planes[:-1][both].astype(np.float64)
        can = one.size > 1 and one.std() > 0 and other.std() > 0
        found.append(float(np.corrcoef(one, other)[0, 1]) if can else 1.0)
    return found


def _grey_levels(values: npt.NDArray[np.float32], highest: float) -> int | None:
    """Return how many equal steps lead from 0 to the highest intensity, where all values lie on such steps."""
    if len(values) < 2 or len(values) > 256 or values[0] < 0:
        return None
    step = float(np.diff(values.astype(np.float64)).min())
    position = values / step
    return round(highest / step) if np.abs(position - np.round(position)).max() < 0.01 else None


def _normalised(volume: Volume, inside: npt.NDArray[np.float32]) -> str | None:
    low, high = float(volume.data.min()), float(volume.data.max())
    if low >= 0 and 0.99 < high <= 1.0:
        return "to [0, 1]"
    is_standard = low < 0 and abs(float(inside.mean())) < 0.05 and abs(float(inside.std()) - 1) < 0.05
    return "standardised" if is_standard else None


def _distance_to_uniform(inside: npt.NDArray[np.float32]) -> float:
    low, high = np.percentile(inside, [1, 99])
    kept = np.sort(inside[(inside >= low) & (inside <= high)])
    if not high > low:
        return 1.0
    rank = (np.arange(kept.size) + 0.5) / kept.size
    return round(float(np.abs((kept - low) / (high - low) - rank).max()), 4)
