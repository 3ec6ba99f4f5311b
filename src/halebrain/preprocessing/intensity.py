"""Intensities of a scan: denoising, removal of the bias field, and [0, 1] between two percentiles inside the brain."""

from dataclasses import dataclass

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.types import FloatArray, MaskArray
from halebrain.preprocessing.itk import one_itk_thread

_TIME_STEP = 0.125


def curvature_flow(image: FloatArray, *, iterations: int) -> FloatArray:
    """Return the image after some steps of curvature flow (time step 0.125; Sethian 1996), same shape and units.

    Voxels count as cubes, as in the published preprocessing of 1 mm scans; the paper takes three steps.
    """
    import SimpleITK as sitk  # noqa: N813

    moved = sitk.CurvatureFlow(sitk.GetImageFromArray(np.ascontiguousarray(image)), _TIME_STEP, iterations)
    smoothed: FloatArray = sitk.GetArrayFromImage(moved).astype(np.float32)
    return smoothed


def n4_log_bias(image: FloatArray, brain_mask: MaskArray, *, iterations: int = 30) -> FloatArray:
    """Return the logarithm of the bias field on the grid of `image`; divide the image by its exponential.

    N4 (Tustison et al. 2010), fitted within the mask, with at most `iterations` at each of three levels.
    """
    import SimpleITK as sitk  # noqa: N813

    shifted = np.where(brain_mask, image - image[brain_mask].min() + 0.01 * np.ptp(image[brain_mask]), 0)
    fixed = sitk.GetImageFromArray(np.ascontiguousarray(shifted.astype(np.float32)))
    mask = sitk.GetImageFromArray(np.ascontiguousarray(brain_mask.astype(np.uint8)))
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([iterations] * 3)
    with one_itk_thread():
        # At 8 mm the field is as good (differs by 0.6 % on average) and found in a fifth of the time.
        corrector.Execute(sitk.Shrink(fixed, [4] * 3), sitk.Shrink(mask, [4] * 3))
        field: FloatArray = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(fixed)).astype(np.float32)
    return field - float(field[brain_mask].mean())


@dataclass(frozen=True)
class IntensityRange:
    """The intensities that became 0 and 1, above `offset`, which was subtracted where there were negative ones."""

    low: float
    high: float
    offset: float = 0.0


def scale_intensity(
    image: FloatArray, brain_mask: MaskArray, *, low_percentile: float, high_percentile: float
) -> tuple[FloatArray, IntensityRange]:
    """Return the image scaled to [0, 1] inside the brain, clipped, 0 outside; with the range that undoes it.

    Percentiles are taken inside the brain mask, after all resampling, so nothing leaves [0, 1] afterwards.
    """
    inside = image[brain_mask]
    low, high = (float(v) for v in np.percentile(inside, [low_percentile, high_percentile]))
    if not high > low:
        raise DataError(
            "intensities inside the brain must vary",
            received=f"{low:g} at both percentiles",
            remedy="check the scan and its brain mask",
        )
    scaled = np.clip((image - low) / (high - low), 0, 1)
    return np.where(brain_mask, scaled, 0).astype(np.float32), IntensityRange(low, high)
