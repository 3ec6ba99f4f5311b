"""How good a reconstruction is, where the true healthy image is known: does it remove the lesion and keep the rest?"""

from dataclasses import dataclass

import numpy as np

from halebrain.core.types import FloatArray, MaskArray


@dataclass(frozen=True)
class ReconstructionQuality:
    """Errors of one reconstruction, intensities in [0, 1].

    Args:
        error_inside: Mean |reconstruction − true healthy| in the lesion.
        error_outside: Mean |reconstruction − image| in the rest of the brain.
        lesion_removed: 1 − error_inside ÷ mean |image − true healthy| in the lesion; 1 = gone, 0 = as it was.
        residual_contrast: Mean |image − reconstruction| in the lesion over its 95th percentile outside.
    """

    error_inside: float
    error_outside: float
    lesion_removed: float
    residual_contrast: float


def reconstruction_quality(
    image: FloatArray,
    reconstruction: FloatArray,
    healthy: FloatArray,
    lesion: MaskArray,
    brain_mask: MaskArray,
) -> ReconstructionQuality:
    """Measure one scan; all arrays `(i, j, k)` on the same grid, intensities in [0, 1].

    Raises:
        ValueError: The lesion holds no voxel of the brain.
    """
    inside, outside = lesion & brain_mask, brain_mask & ~lesion
    if not inside.any():
        raise ValueError("reconstruction quality needs a lesion inside the brain")
    residual = np.abs(image - reconstruction)
    error_inside = float(np.abs(reconstruction - healthy)[inside].mean())
    visible = float(np.abs(image - healthy)[inside].mean())
    return ReconstructionQuality(
        error_inside=error_inside,
        error_outside=float(residual[outside].mean()),
        lesion_removed=1 - error_inside / max(visible, 1e-6),
        residual_contrast=float(residual[inside].mean() / max(np.percentile(residual[outside], 95), 1e-6)),
    )
