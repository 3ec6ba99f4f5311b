"""Light edge-preserving denoising (curvature flow; Sethian 1996), as the paper's preprocessing has it."""

import numpy as np

from halebrain.core.types import FloatArray

_TIME_STEP = 0.125


def curvature_flow(image: FloatArray, *, iterations: int) -> FloatArray:
    """Return the image after some steps of curvature flow (time step 0.125), same shape and units.

    Args:
        image: Scan `(i, j, k)`; voxels count as cubes, which is how the published preprocessing treats 1 mm scans.
        iterations: Steps; the paper takes three.
    """
    import SimpleITK as sitk  # noqa: N813

    moved = sitk.CurvatureFlow(sitk.GetImageFromArray(np.ascontiguousarray(image)), _TIME_STEP, iterations)
    smoothed: FloatArray = sitk.GetArrayFromImage(moved).astype(np.float32)
    return smoothed
