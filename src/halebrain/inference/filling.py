"""Lesion filling: what a healthy brain would show in a region of a scan, at the scan's own resolution and noise.

The reconstruction of the networks is smooth and has 2 mm voxels. It is brought to the native grid and matched to the
scan in three steps, each measured in the healthy tissue around a component of the region:

1. *Sharpness*: the contrast of the reconstruction is scaled in three bands of detail, each by the slope of the scan on
   the reconstruction (least squares, outliers removed).
2. *No seam*: the difference between scan and reconstruction at the rim is continued into the region as the solution u
   of (Δ − 1/λ²) u = 0, and removed. Near the rim the filled scan continues the scan; λ inside it, only the median
   difference of the surroundings is left, so that what remains of a lesion at the rim does not reach its middle.
3. *Noise*: Gaussian noise with the level and the correlation between neighbours of the scan's own noise, measured
   where tissue is flat.

A mask is grown by a margin, as its edge is known to about one voxel of the networks. A voxel of the margin that is
unlike the lesion (fluid beside a bright lesion) is not changed.

The membrane without the second term is that of Pérez et al. 2003 (Poisson image editing); filling lesions before
measuring atrophy is due to Battaglini et al. 2012 (doi:10.1002/hbm.21344). The seed of the noise comes from the content
of the scan, so the same scan is always filled with the same values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.linalg import cg

from halebrain.core.random import derive_seed
from halebrain.core.types import FloatArray, MaskArray, Volume, voxel_mm3_of
from halebrain.inference.predictor import Predictor
from halebrain.inference.slice_networks import brain_slices
from halebrain.io.stored import StoredScan
from halebrain.preprocessing.pipeline import WorkingScan

MARGIN_MM = 2.0
"""Default growth of a mask: one voxel of the working grid, which is how exactly a mask found there can lie. Within it
lies what is left of the lesion's contrast outside its mask, but for 15 % (multiple sclerosis, FLAIR)."""
_SURROUNDINGS_MM = 12.0
"""Healthy tissue within this distance of a component is what it is matched to."""
_REACH_MM = 4.0
"""Voxels of the brain up to this far from the reconstruction (its edge on the working grid) continue it."""
_BANDS_MM = (1.5, 4.0)
"""Standard deviations that divide an image into fine, middle and coarse detail."""
_GAINS = ((0.0, 2.0), (0.5, 2.0), (0.8, 1.5))
"""Range of the factor of each band."""
_DECAY_MM = 8.0
_FIRST_LAYER = 0.6
"""Factor of the noise in the voxels at the rim."""
_USUAL = 2.5
"""Differences at the rim are limited to this many standard deviations of those of the surroundings."""
_NOISE_MM = 1.5
"""Noise is what this much smoothing removes."""
_FLAT_MM, _FLATTEST = 2.0, 0.33
"""Tissue counts as flat where the noise and texture around, over this distance, are among the lowest third."""
_FEWEST = 50
"""Voxels that a measurement needs; with fewer it is made in a wider box."""
_CLEARLY = 3.0
"""Differences beyond this many standard deviations of the noise are none of it."""
_COLLAR_VOXELS = 2.0
"""Growth of a hole for a network, in voxels of the working grid."""
_TOUCHED = 0.05
"""Share of a voxel of the working grid from which on it belongs to a hole."""


@dataclass(frozen=True)
class Filling:
    """A scan with a region filled.

    Args:
        scan: The filled scan as a file; outside `region` the input to the last bit.
        region: Filled voxels, bool `(i, j, k)` on the native grid.
        margin_mm: How far the mask was grown.
        mask_ml: Volume of the mask before that.
        filled_ml: Volume of `region`.
        left_out_ml: Volume of the mask that is not filled, as it lies outside the brain or outside what the networks
            see.
        noise: Standard deviation of the noise in the region, mean over it, in the units of the scan.
        is_given: Whether the mask is a user's; otherwise it is what was found.
        by_holes: Whether the region was cut out and filled by a network that fills holes; otherwise it has the
            reconstruction.
        is_stripped: Whether the scan is empty outside the brain.
    """

    scan: StoredScan
    region: MaskArray
    margin_mm: float
    mask_ml: float
    filled_ml: float
    left_out_ml: float
    noise: float
    is_given: bool
    by_holes: bool
    is_stripped: bool


def fill_mask_in(
    predictor: Predictor,
    volume: Volume,
    stored: StoredScan,
    scan: WorkingScan,
    reconstruction: FloatArray,
    mask: MaskArray,
    *,
    margin_mm: float = MARGIN_MM,
    is_given: bool = False,
) -> Filling:
    """Fill a mask, grown by a margin, inside the brain.

    Args:
        predictor: Its reconstructor fills the region as a hole if it can; its seed seeds the noise.
        volume: The scan on its native grid.
        stored: The same as a file.
        scan: The same on the working grid.
        reconstruction: Pseudo-healthy scan on the working grid, in [0, 1].
        mask: Bool on the native grid.
        margin_mm: How far it is grown.
        is_given: Whether the mask is a user's.
    """
    spacing = volume.spacing_mm
    grown = grow(mask, margin_mm, spacing)
    ml = voxel_mm3_of(volume.affine) / 1000
    healthy, predicted = reconstruction, _seen(scan)
    # The network gives the rim of the region too, where it can be compared with the scan.
    hole = scan.from_native(
        grow(grown, _COLLAR_VOXELS * max(scan.grid.spacing_mm), spacing).astype(np.float32), order=1
    )
    filled = predictor.fill_holes(scan, hole > _TOUCHED) if grown.any() else None
    if filled is not None:
        healthy, predicted = filled, predicted & (hole > _TOUCHED)
    region, values, noise = fill_region(volume, scan, healthy, predicted, grown, core=mask, seed=predictor.seed)
    return Filling(
        scan=stored.replaced(region, values) if region.any() else stored,
        region=region,
        margin_mm=margin_mm,
        mask_ml=float(mask.sum()) * ml,
        filled_ml=float(region.sum()) * ml,
        left_out_ml=float((mask & ~region).sum()) * ml,
        noise=noise,
        is_given=is_given,
        by_holes=filled is not None,
        is_stripped=np.unique(volume.data[~scan.native_brain_mask]).size <= 1,
    )


def _seen(scan: WorkingScan) -> MaskArray:
    """Return the brain in those slices of the working grid that the networks process."""
    _, _, used = brain_slices(scan)
    seen = np.zeros_like(scan.brain_mask)
    seen[:, :, used.numpy()] = scan.brain_mask[:, :, used.numpy()]
    return seen


def grow(mask: MaskArray, margin_mm: float, spacing_mm: tuple[float, float, float]) -> MaskArray:
    """Return a mask with all voxels whose centre lies within `margin_mm` of that of one of its voxels."""
    if margin_mm <= 0 or not mask.any():
        return mask.copy()
    grown = np.zeros_like(mask)
    box = _box(mask, margin_mm, spacing_mm)
    grown[box] = ndimage.distance_transform_edt(~mask[box], sampling=spacing_mm) <= margin_mm
    return grown


def fill_region(
    volume: Volume,
    scan: WorkingScan,
    healthy: FloatArray,
    predicted: MaskArray,
    region: MaskArray,
    *,
    core: MaskArray,
    seed: int,
) -> tuple[MaskArray, FloatArray, float]:
    """Return the voxels of a region that are filled, the intensities that they get, and the level of their noise.

    Args:
        volume: The scan on its native grid.
        scan: The same on the working grid.
        healthy: Pseudo-healthy scan on the working grid, in [0, 1].
        predicted: Where a network predicted it, bool, same shape.
        region: What may be filled, bool on the native grid.
        core: That part of it which is lesion; the rest is a margin, which stays where it is unlike the core.
        seed: The user's seed; the noise depends on it and on the content of the scan.
    """
    native, known, reached = _on_native_grid(scan, healthy, predicted)
    inside = region & reached
    filled, chosen = np.array(volume.data, dtype=np.float32), np.zeros_like(inside)
    noise = 0.0
    for number, (box, component) in enumerate(_components(inside, volume.spacing_mm)):
        tissue = (scan.native_brain_mask & ~inside)[box]
        patch = _Patch(volume.data[box], native[box], component, tissue, tissue & known[box], volume.spacing_mm)
        rng = np.random.default_rng(derive_seed(seed, scan.content, "fill", number))
        values, level = patch.filled(rng)
        kept = _unlike_lesion(volume.data[box][component] - values, core[box][component], level)
        chosen[box][component] = ~kept
        filled[box][component] = np.where(kept, volume.data[box][component], values)
        noise += level * float(component.sum()) / float(inside.sum())
    brain = volume.data[scan.native_brain_mask]
    return chosen, np.clip(filled[chosen], brain.min(), brain.max()), noise


def _unlike_lesion(change: FloatArray, core: MaskArray, noise: float) -> MaskArray:
    """Return the voxels of a margin whose difference from healthy tissue is clearly opposite to that of the lesion.

    `change` is scan minus filled scan; `core` is where the lesion is.
    """
    if not core.any():
        return np.zeros_like(core)
    sign = float(np.sign(np.median(change[core])))
    unlike: MaskArray = ~core & (sign * change < -_CLEARLY * noise)
    return unlike


def _on_native_grid(
    scan: WorkingScan, healthy: FloatArray, predicted: MaskArray
) -> tuple[FloatArray, MaskArray, MaskArray]:
    """Return the pseudo-healthy scan on the native grid in the units of the scan, where it is known, and where reached.

    Beside where it is known, each voxel has the value of the nearest one that is.
    """
    # Dividing by the coverage undoes the mixing with empty background at the edge of the brain.
    coverage = scan.to_native(predicted.astype(np.float32))
    mixed = scan.to_native(np.where(predicted, scan.in_units(healthy), 0))
    known = coverage > 0.25
    native = np.where(known, mixed / np.maximum(coverage, 0.25) + scan.intensity.offset, 0).astype(np.float32)
    if not known.any():
        return native, known, known
    distance, nearest = ndimage.distance_transform_edt(~known, sampling=scan.native.spacing_mm, return_indices=True)
    return native[tuple(nearest)], known, scan.native_brain_mask & (distance <= _REACH_MM)


def _components(
    region: MaskArray, spacing_mm: tuple[float, float, float]
) -> Iterator[tuple[tuple[slice, ...], MaskArray]]:
    """Give each connected component of a region in its box with surroundings."""
    labels, _ = ndimage.label(region, structure=np.ones((3, 3, 3)))
    for number, tight in enumerate(ndimage.find_objects(labels), start=1):
        box = _wider(tight, _SURROUNDINGS_MM + 3 * max(_BANDS_MM), spacing_mm, region.shape)
        yield box, labels[box] == number


def _box(mask: MaskArray, margin_mm: float, spacing_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    return _wider(ndimage.find_objects(mask.astype(np.uint8))[0], margin_mm, spacing_mm, mask.shape)


def _wider(
    box: tuple[slice, ...], margin_mm: float, spacing_mm: tuple[float, float, float], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    more = [int(np.ceil(margin_mm / step)) + 1 for step in spacing_mm]
    return tuple(
        slice(max(0, side.start - n), min(size, side.stop + n)) for side, n, size in zip(box, more, shape, strict=True)
    )


@dataclass(frozen=True)
class _Patch:
    """One component of a region with its surroundings.

    Args:
        scan: Intensities.
        healthy: Pseudo-healthy intensities in the same units, known in `component` and `compared`.
        component: What is filled.
        tissue: Healthy tissue.
        compared: That part of it where `healthy` is a prediction.
        spacing_mm: Voxel size.
    """

    scan: FloatArray
    healthy: FloatArray
    component: MaskArray
    tissue: MaskArray
    compared: MaskArray
    spacing_mm: tuple[float, float, float]

    def filled(self, rng: np.random.Generator) -> tuple[FloatArray, float]:
        """Return the intensities of the component, and the standard deviation of their noise."""
        base = self.healthy
        near = self._near(self.compared)
        if near.any():
            base = self._sharpened(near)
            difference = self.scan - base
            middle, spread = float(np.median(difference[near])), _spread(difference[near])
            # Fat or skull left at the edge of the brain must not run into the region.
            usual = np.clip(difference, middle - _USUAL * spread, middle + _USUAL * spread)
            base = base + self._continued(usual, middle)
        near = self._near(self.tissue)
        noise, level = self._noise(near, rng) if near.any() else (np.zeros_like(base), 0.0)
        # At the rim, the continued difference brings the noise of the neighbours outside with it.
        first = self.component & ~ndimage.binary_erosion(~self.compared, border_value=1)
        return (base + np.where(first, _FIRST_LAYER, 1) * noise)[self.component].astype(np.float32), level

    def _near(self, tissue: MaskArray) -> MaskArray:
        """Return the part of some tissue that is close to the component, all of it where that is too little."""
        distance = ndimage.distance_transform_edt(~self.component, sampling=self.spacing_mm)
        near: MaskArray = tissue & (distance <= _SURROUNDINGS_MM)
        return near if near.sum() >= _FEWEST else tissue

    def _smooth(self, image: FloatArray, where: MaskArray, sigma_mm: float) -> FloatArray:
        """Return a Gaussian mean over some voxels; 0 where none is in reach."""
        sigma = [sigma_mm / step for step in self.spacing_mm]
        weight = ndimage.gaussian_filter(where.astype(np.float32), sigma, mode="constant", truncate=3.0)
        mixed = ndimage.gaussian_filter(
            np.where(where, image, 0).astype(np.float32), sigma, mode="constant", truncate=3.0
        )
        smooth: FloatArray = np.where(weight > 1e-4, mixed / np.maximum(weight, 1e-4), 0)
        return smooth

    def _bands(self, image: FloatArray, where: MaskArray) -> list[FloatArray]:
        """Return fine, middle and coarse detail, whose sum is the image."""
        steps = [image, *(self._smooth(image, where, sigma) for sigma in _BANDS_MM)]
        return [finer - coarser for finer, coarser in pairwise(steps)] + steps[-1:]

    def _sharpened(self, near: MaskArray) -> FloatArray:
        """Return the pseudo-healthy image with each band scaled to the contrast that the scan has around."""
        theirs = self._bands(self.scan, self.compared)
        ours = self._bands(self.healthy, self.compared)
        gains = [
            float(np.clip(_slope(one[near], other[near]), *limits))
            for one, other, limits in zip(ours, theirs, _GAINS, strict=True)
        ]
        bands = self._bands(self.healthy, self.compared | self.component)
        return np.asarray(sum(gain * band for gain, band in zip(gains, bands, strict=True)), dtype=np.float32)

    def _continued(self, difference: FloatArray, inside: float) -> FloatArray:
        """Return the solution u of (Δ − 1/λ²)(u − `inside`) = 0 in the component that is `difference` at its rim."""
        number = np.full(tuple(size + 2 for size in self.component.shape), -1, dtype=np.int64)
        number[1:-1, 1:-1, 1:-1][self.component] = np.arange(int(self.component.sum()))
        known = np.pad(self.compared, 1)
        values = np.pad(difference - inside, 1)
        here = np.nonzero(number >= 0)
        count = len(here[0])
        diagonal, right = np.full(count, 1 / _DECAY_MM**2), np.zeros(count)
        rows, columns, weights = [], [], []
        for axis, step in enumerate(self.spacing_mm):
            for direction in (-1, 1):
                there = tuple(index + direction * (axis == place) for place, index in enumerate(here))
                other, is_known, weight = number[there], known[there], 1 / step**2
                is_inner = other >= 0
                diagonal += weight * (is_inner | is_known)
                right += np.where(is_known, weight * values[there], 0)
                rows.append(np.flatnonzero(is_inner))
                columns.append(other[is_inner])
                weights.append(np.full(int(is_inner.sum()), -weight))
        places = (np.concatenate([*rows, np.arange(count)]), np.concatenate([*columns, np.arange(count)]))
        matrix = sparse.csr_matrix((np.concatenate([*weights, diagonal]), places), shape=(count, count))
        solution, _ = cg(matrix, right, rtol=1e-4, maxiter=500, M=sparse.diags(1 / diagonal))
        continued = np.zeros(self.component.shape, dtype=np.float32)
        continued[self.component] = solution + inside
        return continued

    def _noise(self, near: MaskArray, rng: np.random.Generator) -> tuple[FloatArray, float]:
        """Return noise like that of the scan, and its standard deviation."""
        high = np.where(self.tissue, self.scan - self._smooth(self.scan, self.tissue, _NOISE_MM), 0)
        inner = near & ndimage.binary_erosion(self.tissue, iterations=1)
        flat = inner if inner.sum() >= _FEWEST else near
        energy = self._smooth(high**2, self.tissue, _FLAT_MM)
        flat = flat & (energy <= np.quantile(energy[flat], _FLATTEST))
        level = _spread(high[flat])
        sigma = [_sigma_of(_neighbours_alike(high, flat, axis)) for axis in range(3)]
        drawn = ndimage.gaussian_filter(rng.standard_normal(self.scan.shape), sigma)
        # What smoothing leaves of the noise is not in `level`, which was measured without it.
        own = _spread((drawn - self._smooth(drawn, np.ones_like(self.tissue), _NOISE_MM))[flat])
        scaled: FloatArray = (drawn * (level / max(own, 1e-12))).astype(np.float32)
        return scaled, level


def _slope(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the least-squares slope of `other` on `one`, fitted again without outliers; 1 where `one` is constant."""
    slope, kept = 1.0, np.ones(one.shape, dtype=bool)
    for _ in range(3):
        x, y = one[kept] - one[kept].mean(), other[kept] - other[kept].mean()
        energy = float(np.dot(x, x))
        if energy <= 1e-12 * max(float(np.dot(y, y)), 1e-30):
            return slope
        slope = float(np.dot(x, y)) / energy
        apart = other - slope * one
        apart -= np.median(apart)
        kept = np.abs(apart) <= 3 * max(_spread(apart), 1e-12)
    return slope


def _spread(values: npt.NDArray[np.floating]) -> float:
    """Return the standard deviation of a normal distribution with the same median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _neighbours_alike(high: FloatArray, flat: MaskArray, axis: int) -> float:
    """Return the correlation of neighbours along an axis, over pairs of flat voxels."""
    first = [slice(None)] * 3
    second = [slice(None)] * 3
    first[axis], second[axis] = slice(None, -1), slice(1, None)
    both = flat[tuple(first)] & flat[tuple(second)]
    if both.sum() < _FEWEST:
        return 0.0
    one, other = high[tuple(first)][both], high[tuple(second)][both]
    energy = float(np.sqrt(np.dot(one, one) * np.dot(other, other)))
    return float(np.dot(one, other)) / energy if energy > 0 else 0.0


def _sigma_of(correlation: float) -> float:
    """Return the standard deviation in voxels of the Gaussian that gives white noise a correlation of neighbours."""
    if correlation <= 0.01:
        return 0.0
    return float(min(1 / (2 * np.sqrt(-np.log(min(correlation, 0.95)))), 1.5))
