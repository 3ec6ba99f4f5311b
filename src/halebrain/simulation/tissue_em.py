"""Soft tissues of a real T1 brain: a mixture of Gaussians with the template's tissues as its spatial prior.

Expectation-maximisation as in Ashburner & Friston (2005) and Van Leemput et al. (1999), on a scan that is registered,
free of bias and scaled: a Gaussian a tissue, a prior that the template gives, loosened so that real ventricles and
sulci may be wider than the average, and neighbours that agree a little (mean field). What a voxel holds of two tissues
is then read off its intensity between their means: at 2 mm most of the cortex and all sulci are such mixtures.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from halebrain.core.errors import DataError
from halebrain.core.types import FloatArray, MaskArray
from halebrain.simulation.anatomy import CSF, DEEP, GM, VENTRICLE, WM

Numbers = npt.NDArray[np.float64]
_MOST_STEPS = 40
_FLOOR = 0.02
"""Minimum prior of a class in the brain, before normalisation, as sulci differ between people."""
_LOOSE_MM = 4.0
"""Standard deviation of the blur of the prior: how far a real border may lie from the template's."""
_AGREEMENT = 0.15
"""Weight of the neighbours in the mean field."""
_ISLAND_ML = 3.0
"""Components of grey matter or CSF up to this size inside white matter are age-related lesions, not tissue."""


@dataclass(frozen=True)
class Segmentation:
    """Tissue fractions `(5, i, j, k)` in the order of `anatomy.TISSUES`; means of CSF, grey and white matter."""

    tissues: FloatArray
    means: tuple[float, float, float]


def segment_t1(image: FloatArray, brain_mask: MaskArray, atlas: FloatArray, *, spacing_mm: float) -> Segmentation:
    """Return the tissues of a T1 brain in [0, 1], free of bias; `atlas` has the template's fractions on its grid.

    A `DataError` where white matter does not come out brighter than grey, and grey than CSF.
    """
    prior = _intensity_prior(atlas, brain_mask, spacing_mm)
    values = image[brain_mask].astype(np.float64)
    here = prior[:, brain_mask]
    mean, variance = _start(values, here)
    posterior = here
    for _ in range(_MOST_STEPS):
        belief = here * _agreement(posterior, brain_mask)
        deviation = (values - mean[:, None]) ** 2 / variance[:, None]
        likelihood = (1 / np.sqrt(2 * np.pi * variance))[:, None] * np.exp(-0.5 * deviation)
        found = belief * likelihood
        found /= np.maximum(found.sum(axis=0), 1e-12)
        moved = float(np.abs(found - posterior).mean())
        posterior = found
        # Values that no Gaussian explains do not move one.
        share = posterior * likelihood / np.maximum(likelihood, 1e-12)
        mass = np.maximum(share.sum(axis=1), 1e-6)
        mean = (share * values).sum(axis=1) / mass
        variance = np.maximum((share * (values - mean[:, None]) ** 2).sum(axis=1) / mass, 0.015**2)
        if moved < 1e-4:
            break
    csf, gm, wm = (float(value) for value in mean)
    means = csf, gm, wm
    if not means[0] < means[1] < means[2]:
        raise DataError(
            "tissue segmentation needs T1, with white matter brightest and CSF darkest",
            received=f"CSF {means[0]:.2f}, grey {means[1]:.2f}, white {means[2]:.2f}",
            remedy="give a T1w scan, or remove this one",
        )
    classes = _mixtures(image, brain_mask, prior, means)
    classes = _without_islands(classes, brain_mask, atlas, spacing_mm)
    return Segmentation(_five_tissues(classes, brain_mask, atlas, spacing_mm), means)


def _start(values: Numbers, prior: Numbers) -> tuple[Numbers, Numbers]:
    """Return mean and variance of each class where the prior is sure of itself."""
    mean, variance = np.empty(len(prior)), np.empty(len(prior))
    for place, share in enumerate(prior):
        sure = share >= np.quantile(share, 0.9)
        spread = float(values[sure].std()) + 0.02
        mean[place], variance[place] = float(np.median(values[sure])) - 0.5 * spread, spread**2
    return mean, variance


def _intensity_prior(atlas: FloatArray, brain_mask: MaskArray, spacing_mm: float) -> Numbers:
    """Return the template's CSF, grey and white matter, loosened, `(3, i, j, k)`, summing to 1 in the brain."""
    grouped = [atlas[CSF] + atlas[VENTRICLE], atlas[GM] + atlas[DEEP], atlas[WM]]
    inside = ndimage.gaussian_filter(brain_mask.astype(np.float64), _LOOSE_MM / spacing_mm)
    loose = []
    for part in grouped:
        smooth = ndimage.gaussian_filter(np.where(brain_mask, part, 0).astype(np.float64), _LOOSE_MM / spacing_mm)
        loose.append(0.5 * part + 0.5 * smooth / np.maximum(inside, 1e-3) + _FLOOR)
    # Nothing is white at the surface of the brain; there the template ends in CSF or cortex.
    prior = np.stack(loose)
    return np.asarray(prior / prior.sum(axis=0) * brain_mask)


def _mixtures(
    image: FloatArray, brain_mask: MaskArray, prior: Numbers, means: tuple[float, float, float]
) -> FloatArray:
    """Return the shares of CSF, grey and white matter that give each voxel its intensity, `(3, i, j, k)`.

    A value between CSF and white is grey matter or a mixture of both; where the prior has no grey matter, the mixture.
    """
    csf, gm, wm = means
    fluid = np.clip((gm - image) / (gm - csf), 0, 1)
    white = np.clip((image - gm) / (wm - gm), 0, 1)
    by_grey = np.stack([fluid, 1 - fluid - white, white])
    wall = np.clip((wm - image) / (wm - csf), 0, 1)
    without_grey = np.stack([wall, np.zeros_like(wall), 1 - wall])
    # Half the prior is the unmodified template; the minimum prior alone never makes grey matter.
    share = np.clip((prior[1] - 2 * _FLOOR) / 0.25, 0, 1)
    shares = share * by_grey + (1 - share) * without_grey
    return np.where(brain_mask, shares, 0).astype(np.float32)


def _agreement(posterior: Numbers, brain_mask: MaskArray) -> Numbers:
    """Return exp(weight · what the six neighbours say), `(3, n)`."""
    volume = np.zeros(brain_mask.shape)
    said = np.empty_like(posterior)
    kernel = ndimage.generate_binary_structure(3, 1).astype(np.float64)
    kernel[1, 1, 1] = 0
    for place, share in enumerate(posterior):
        volume[brain_mask] = share
        said[place] = ndimage.convolve(volume, kernel, mode="constant")[brain_mask]
    return np.asarray(np.exp(_AGREEMENT * (said - said.mean(axis=0))))


def _without_islands(classes: FloatArray, brain_mask: MaskArray, atlas: FloatArray, spacing_mm: float) -> FloatArray:
    """Return the classes with dark spots of the white matter, lesions of the elderly in T1, given back to it."""
    white = classes[2] > 0.5
    # Where the template is nearly all white, away from ventricles and nuclei.
    deep_white = (atlas[WM] > 0.75) & brain_mask & ~white
    near_fluid = ndimage.binary_dilation(atlas[VENTRICLE] > 0.3, iterations=max(1, round(4 / spacing_mm)))
    labels, count = ndimage.label(brain_mask & ~white)
    if count == 0:
        return classes
    sizes = np.bincount(labels.ravel()) * spacing_mm**3 / 1000
    small = np.flatnonzero(sizes <= _ISLAND_ML)
    island = np.isin(labels, small[small > 0]) & ndimage.binary_fill_holes(white)
    around = ndimage.uniform_filter(white.astype(np.float32), size=2 * max(1, round(5 / spacing_mm)) + 1)
    filled = (island | (deep_white & (around > 0.75))) & ~near_fluid
    classes = classes.copy()
    classes[:, filled] = np.array([0, 0, 1], dtype=np.float32)[:, None]
    return classes


def _five_tissues(classes: FloatArray, brain_mask: MaskArray, atlas: FloatArray, spacing_mm: float) -> FloatArray:
    """Return cortex and nuclei apart, sulci and ventricles apart: by the template's share, and by what is connected."""
    csf, gm, wm = classes
    grey = atlas[DEEP] / np.maximum(atlas[DEEP] + atlas[GM], 1e-3)
    nuclei = ndimage.gaussian_filter(grey, 2.0 / spacing_mm)
    seed = (atlas[VENTRICLE] > 0.5) & (csf > 0.5)
    reach = ndimage.binary_dilation(atlas[VENTRICLE] > 0.1, iterations=max(1, round(14 / spacing_mm)))
    depth = ndimage.distance_transform_edt(brain_mask, sampling=spacing_mm)
    grown = ndimage.binary_propagation(seed, mask=(csf > 0.5) & reach & (depth > 16)) if seed.any() else seed
    ventricle = np.clip(ndimage.gaussian_filter(grown.astype(np.float32), 1.0 / spacing_mm) * 2, 0, 1)
    tissues = np.zeros((5, *csf.shape), dtype=np.float32)
    tissues[WM], tissues[GM], tissues[DEEP] = wm, gm * (1 - nuclei), gm * nuclei
    tissues[CSF], tissues[VENTRICLE] = csf * (1 - ventricle), csf * ventricle
    total = np.maximum(tissues.sum(axis=0), 1e-6)
    return np.where(brain_mask, tissues / total, 0).astype(np.float32)
