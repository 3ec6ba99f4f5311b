"""Quality-control figures of intensities, sharpness, field of view and orientation."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.mask import box_of
from halebrain.core.provenance import QualityReport
from halebrain.core.types import Affine, FloatArray, MaskArray, Volume
from halebrain.preprocessing.geometry import Grid, resample

_SMOOTHNESS_MM = 2.0
"""Voxel size at which `smoothness` is comparable; that of the networks' working grid."""
_MANY = 65536
TURNED_RATIO = 1.25
"""`orientation_ratio` below which a scan is taken to be inverted. Upright real scans: 1.7 to 5; inverted ones: 0.3 to
1.0. Affine registration fits an inverted or back-to-front head nearly as well as an upright one."""
_TURNS = ((1,), (2,), (1, 2))
"""Axes that are flipped: back to front, upside down, both. A symmetric template cannot show left–right flips."""


def measure_intensities(report: QualityReport, volume: Volume, brain_mask: MaskArray) -> QualityReport:
    """Return a report with figures of how intensities are stored and spread; the mask must not be empty."""
    inside = volume.data[brain_mask]
    values = np.unique(inside)
    return replace(
        report,
        distinct_values=int(min(len(values), _MANY)),
        grey_levels=_grey_levels(values, float(volume.data.max())),
        lowest_intensity=rounded(float(volume.data.min())),
        highest_intensity=rounded(float(volume.data.max())),
        saturated_share=round(float((inside == values[-1]).mean()), 4),
        distance_to_uniform=_distance_to_uniform(inside),
        normalised=_normalised(volume, inside),
    )


def rounded(value: float) -> float:
    """Return a figure with four decimals, or four digits where it is small.

    Example:
        >>> rounded(3543.28203), rounded(0.000012345678)
        (3543.282, 1.235e-05)
    """
    return round(value, 4) if abs(value) >= 1 else float(f"{value:.4g}")


def measure_geometry(report: QualityReport, volume: Volume, brain_mask: MaskArray) -> QualityReport:
    """Return a report with figures of voxels and field of view; arguments as for `measure_intensities`."""
    areas = [np.moveaxis(brain_mask, axis, 0).sum(axis=(1, 2)) for axis in range(3)]
    apart_mm = 0.0 if volume.placement is None else volume.placement.distance_mm(volume.shape)
    return replace(
        report,
        spacing_max_mm=round(max(volume.spacing_mm), 3),
        brain_voxels_across=int(min(np.count_nonzero(area) for area in areas)),
        cut_face=round(max(float(max(area[0], area[-1]) / max(area.max(), 1)) for area in areas), 3),
        placements_apart_mm=round(apart_mm, 2),
    )


def cut_off(native: Grid, grid: Grid, template_to_native: Affine, template_mask: MaskArray) -> float:
    """Return the share of the template's brain whose place in the scan lies outside the scan's voxels."""
    everywhere = np.ones(native.shape, dtype=np.float32)
    inside = resample(everywhere, native, grid, target_to_source=template_to_native, order=0)
    return 1 - float((inside[template_mask] > 0.5).mean())


def smoothness(image: FloatArray, brain_mask: MaskArray, spacing_mm: float) -> float | None:
    """Return how far neighbours agree beyond slow changes: correlation of high-passed neighbours, least of three axes.

    Thick slices are smooth along one axis only; PET and strongly filtered images along all. `None` unless voxels have 2
    mm.
    """
    inner = ndimage.binary_erosion(brain_mask, iterations=3)
    if abs(spacing_mm - _SMOOTHNESS_MM) > 0.2 or inner.sum() < 1000:
        return None
    weight = ndimage.gaussian_filter(brain_mask.astype(np.float32), 3)
    slow = ndimage.gaussian_filter(np.where(brain_mask, image, 0), 3) / np.maximum(weight, 1e-3)
    return min(_neighbour_correlations(np.where(brain_mask, image - slow, 0), inner))


def structure(volume: Volume, brain_mask: MaskArray, *, enough: float = 1.0) -> float:
    """Return the highest correlation of neighbouring voxels in the brain along an axis: about 0 in noise alone.

    The first axis that reaches `enough` spares the others.
    """
    highest = -1.0
    for correlation in _neighbour_correlations(volume.data, brain_mask):
        highest = max(highest, correlation)
        if highest >= enough:
            break
    return highest


def _neighbour_correlations(data: FloatArray, mask: MaskArray) -> Iterator[float]:
    """Yield the correlation of neighbours in the mask along each axis; 1 where there is none to be had."""
    box = box_of(mask)
    data, mask = data[box], mask[box]
    for axis in range(3):
        planes, inside = np.moveaxis(data, axis, 0), np.moveaxis(mask, axis, 0)
        both = inside[1:] & inside[:-1]
        one, other = planes[1:][both].astype(np.float64), planes[:-1][both].astype(np.float64)
        can = one.size > 1 and one.std() > 0 and other.std() > 0
        yield float(np.corrcoef(one, other)[0, 1]) if can else 1.0


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


def normalised_mutual_information(one: FloatArray, other: FloatArray, mask: MaskArray, *, bins: int = 32) -> float:
    """Return (H(a) + H(b)) / H(a, b) within a mask (Studholme et al. 1999): 1 = independent, 2 = the same."""
    return information_of_bins(bins_of(one[mask], bins), bins_of(other[mask], bins), bins)


def bins_of(values: FloatArray, bins: int) -> npt.NDArray[np.int64]:
    """Return which of equal bins from the least to the greatest value each one lies in, as `numpy.histogram2d` does."""
    low, high = (values.min(), values.max()) if values.size else (np.float32(0), np.float32(1))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, bins + 1)
    places = np.searchsorted(edges, values, side="right") - 1
    return np.asarray(np.minimum(places, bins - 1, out=places), dtype=np.int64)


def information_of_bins(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64], bins: int) -> float:
    """Return the normalised mutual information of two lists of bins of the same points."""
    share = np.bincount(one * bins + other, minlength=bins**2).reshape(bins, bins) / max(len(one), 1)
    both = _entropy(share)
    return (_entropy(share.sum(axis=0)) + _entropy(share.sum(axis=1))) / both if both > 0 else 2.0


def orientation_ratio(
    image: FloatArray, brain_mask: MaskArray, template: FloatArray, template_mask: MaskArray
) -> float | None:
    """Return the similarity of a registered image (RAS) and template, relative to the best one of an inverted image.

    A ratio of normalised mutual information above 1; `None` where there is none either way.
    """
    if not brain_mask.any():
        return None
    own = normalised_mutual_information(image, template, brain_mask) - 1
    centre = np.array(ndimage.center_of_mass(template_mask))
    turned = []
    for axes in _TURNS:
        mask = np.flip(brain_mask, axes)
        shift = tuple(int(n) for n in np.round(centre - np.array(ndimage.center_of_mass(mask))))
        moved = np.roll(np.flip(image, axes), shift, (0, 1, 2))
        turned.append(normalised_mutual_information(moved, template, np.roll(mask, shift, (0, 1, 2))) - 1)
    best = max(turned)
    return own / best if best > 1e-9 else None


def _entropy(share: npt.NDArray[np.float64]) -> float:
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum())
